"""Wrong uses: a status, one line on stderr, nothing written."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pes_cluster import blame
from pes_cluster.cli import main

from . import wrong_uses, wrong_uses_of_clusters
from .board import Board
from .scene import Scene
from .wrong_uses import FILES, TOY, Use, mine

ROOT = pathlib.Path(__file__).parents[2]
USES = wrong_uses.USES | wrong_uses_of_clusters.USES
OURS = ("PES_", "RAY_AUTH_TOKEN", "RAY_ADDRESS")  # What the environment may tell us.


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with Board(TOY) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def scene(
    tmp_path: pathlib.Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    board.changes.clear()
    with contextlib.closing(Scene(tmp_path, board)) as scene:
        yield scene


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_one_line_and_nothing_written(
    use: Use, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    use.before(scene)
    before = scene.tree()
    assert main(scene.arguments(use.arguments)) == use.status
    written = capsys.readouterr()
    _check(use, written.err, written.out)
    assert scene.tree() == before
    assert scene.board.changes == []


def test_there_are_many() -> None:
    assert len(USES) > 150


def test_a_jobs_own_modules_are_looked_for_in_its_working_directory(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scene.folder / "of_a_job"
    folder.mkdir()
    (folder / "own_tasks.py").write_text(FILES["tasks_of_mine.py"])
    words = [TOY, "task={type: 'own_tasks:Sound'}", "--working-dir", "of_a_job"]
    assert main(["submit", *words, "--address", scene.board.address]) == 1
    assert "own_tasks" not in capsys.readouterr().err
    assert scene.board.changes  # It was accepted, as far as that goes on a stub.


# What only a process of its own shows: the imports, the exit status, what others print.
PROCESSES = [
    "a GPU where there is none",
    "odd N",
    "theta of integers",
    "a task that raises",
    "nothing listens there",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_so_it_is_as_a_process(name: str, scene: Scene) -> None:
    use = USES[name]
    before = scene.tree()
    done = subprocess.run(
        [sys.executable, "-m", "pes_cluster", *scene.arguments(use.arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == use.status
    _check(use, done.stderr, done.stdout)
    assert scene.tree() == before


def test_a_traceback_is_shown_to_who_asks_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(blame.SHOW, "1")
    assert main(mine("Raises")) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback") and last.startswith("pes: RuntimeError")


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 99}'])
def test_a_checkpoint_that_cannot_be_read_is_named_and_kept(
    damage: str, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = scene.folder / "made" / "checkpoints" / "step_00000002" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(damage)
    before = scene.tree()
    assert main(["resume", "made"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pes: {manifest}: ") and "there is no other" in line
    after = scene.tree()
    assert {name: after[name] for name in before} == before
    assert json.loads(after["made/result.json"])["status"] == "failed"


def _check(use: Use, err: str, out: str) -> None:
    (line,) = err.splitlines()
    assert line.startswith("pes: ")
    assert use.words in line
    assert out == ""
