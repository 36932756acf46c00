"""Jobs watched from elsewhere, on a Ray of this machine."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray.job_submission import JobSubmissionClient

from pes_cluster.cli import main
from pes_cluster.cluster.job import Attempt, JobError
from pes_cluster.cluster.status import RunStatus
from pes_cluster.ray_backend import endpoint, service, watching
from pes_cluster.ray_backend.jobs import Jobs
from pes_cluster.ray_backend.watching import Watch, whole_lines

ROOT = pathlib.Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "toy_regression" / "pes.yaml")


def test_lines_are_given_once_they_are_whole() -> None:
    parts = ["a\nb", "c", "\n\nd\ne", "f"]
    assert list(whole_lines(parts)) == ["a", "bc", "", "d"]


class Away:
    """A cluster that answers once, and then no more."""

    def __init__(self) -> None:
        self.answers = [[Attempt("a", 1, status="RUNNING")]]

    def attempts(self) -> list[Attempt]:
        if not self.answers:
            raise JobError("away")
        return self.answers.pop()

    def start_helper(self, words: list[str]) -> str:
        raise JobError("away")


def test_a_cluster_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away: Any = Away()
    watch = Watch(away)
    assert watch.look() == [(Attempt("a", 1, status="RUNNING"), None)]
    monkeypatch.setattr(watching, "SILENCE", -1.0)
    with pytest.raises(JobError, match="away"):
        watch.look()
    watch.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_is_followed_by_one_helper_at_a_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(watching, "LEASE", 4.0)
    service.up(runs=tmp_path / "runs")
    try:
        _follow(tmp_path)
    finally:
        service.down()


def _follow(folder: pathlib.Path) -> None:
    (folder / "client").mkdir()
    long = ["run.outer_steps=10000000", "cluster.fuse=1", "--name", "a"]
    there = ["--working-dir", str(folder / "client")]
    assert main(["submit", TOY, *long, *there]) == 0
    found = endpoint.find(None, None)
    client = JobSubmissionClient(found.address, headers=dict(found.headers))

    def helpers(*status: str) -> list[str]:
        there = [one for one in client.list_jobs() if not one.metadata]
        return [str(one.submission_id) for one in there if one.status in status]

    with pytest.raises(JobError, match="b: no such job; jobs there: a"):
        Watch(Jobs(found), ["b"])
    watch = Watch(Jobs(found))

    def seen() -> RunStatus | None:
        ((attempt, status),) = watch.look()
        assert attempt.name == "a"
        return status

    first = _eventually(lambda: (now := seen()) and now.outer_step and now)
    assert (first.shards, first.shards_target, first.particles) == (1, 1, 100)
    _eventually(lambda: (now := seen()) and now.outer_step > first.outer_step)
    # A helper that nobody ends is gone when its lease is over; another one follows.
    _eventually(lambda: helpers("SUCCEEDED"))
    again = _eventually(lambda: (now := seen()) and now.outer_step > 0 and now)
    _eventually(lambda: (now := seen()) and now.outer_step > again.outer_step)
    assert len(helpers("PENDING", "RUNNING")) <= 1
    watch.close()
    _eventually(lambda: not helpers("PENDING", "RUNNING"))


def _eventually(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError("never")
