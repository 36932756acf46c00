"""A RayJob as its operator submits it, and what our commands then make of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobSubmissionClient

from pes_cluster.ray_backend import service
from tests.deploy.manifests import ROOT, Document, jobs

PATIENCE = 120.0
# The run of the manifest, but smaller and without an end.
LONG = "cluster.shards=1 run.outer_steps=100000 run.eval_every=0"


def submit(address: str, token: str, spec: Document) -> None:
    """Does what the operator does in HTTPMode with these fields."""
    headers = {"Authorization": f"Bearer {token}"}
    entrypoint = spec["entrypoint"].replace("/opt/pes/", f"{ROOT}/")
    JobSubmissionClient(address, headers=headers).submit_job(
        entrypoint=entrypoint.replace("cluster.shards=6", LONG),
        submission_id=spec["jobId"],
        metadata=spec["metadata"],
        runtime_env=yaml.safe_load(spec["runtimeEnvYAML"]),
        entrypoint_resources=json.loads(spec["entrypointResources"]),
    )


def pes(folder: Path, *arguments: str) -> str:
    """What a command of a user prints, whose only knowledge is the service here."""
    done = subprocess.run(
        [sys.executable, "-m", "pes_cluster", *arguments],
        cwd=folder,
        env={name: one for name, one in os.environ.items() if name[:4] != "RAY_"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def until(words: str, folder: Path, *arguments: str) -> None:
    deadline, said = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        said = pes(folder, *arguments)
        if words in said:
            return
        time.sleep(0.5)
    raise AssertionError(f"{words!r} is not in {said!r}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_ray_job_is_seen_and_stopped_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = (job["spec"] for name, job in jobs() if name == "ray-job.cpu.yaml")
    name = spec["metadata"]["pes_name"]
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = service.up(runs=tmp_path / "runs")
    try:
        submit(started.address, Path(started.token_file).read_text(), spec)
        until("/100000", tmp_path, "status", name)
        until("steps/s", tmp_path, "logs", name)
        assert "digits" in pes(tmp_path, "list")
        assert "stopped" in pes(tmp_path, "stop", name)
        # It saved, and its end is told from its log.
        assert list((tmp_path / "runs" / name / "checkpoints").glob("step_*"))
        assert "stopped" in pes(tmp_path, "status", name)
    finally:
        service.down()
