"""What the documents tell a reader to do, done: commands, links, and the tutorial."""

import pathlib
import re
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pes_cluster.cli import app, main

ROOT = pathlib.Path(__file__).parents[1]
TUTORIAL = ROOT / "configs" / "your_own_task"
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:1])
    and "runs" not in path.parts
)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"\s*(\S*/)?pes ")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")


def _name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _commands() -> Iterator[Any]:
    """Each line of a shell block that calls `pes`, with where it stands."""
    for path in DOCUMENTS:
        for kind, block in FENCE.findall(path.read_text(encoding="utf-8")):
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines() if kind in ("sh", "bash") else []:
                if CALL.match(line):
                    words = shlex.split(line, comments=True)
                    yield pytest.param(words[1:], path, id=f"{_name(path)}: {line}")


@pytest.mark.parametrize("words, path", list(_commands()))
def test_each_command_is_one_that_pes_understands(
    words: list[str], path: pathlib.Path
) -> None:
    command: Any = typer.main.get_command(app)
    context = command.make_context("pes", list(words))
    while hasattr(command, "resolve_command"):
        arguments = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, arguments)
        context = command.make_context(name, rest, parent=context)
    for word in words:
        if word.endswith(".yaml") and "=" not in word and word != "CONFIG":
            files = [*path.parent.glob(word), *ROOT.glob(word)]
            assert files, f"{word} is not there"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: pathlib.Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target, anchor in LINK.findall(text):
        if "://" in target:
            continue
        found = path.parent / target
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), f"{target}#{anchor}"


def test_the_tutorial_shows_the_file_that_runs() -> None:
    blocks = dict(FENCE.findall((TUTORIAL / "README.md").read_text(encoding="utf-8")))
    code = (TUTORIAL / "noisy_quadratic.py").read_text(encoding="utf-8")
    assert blocks["python"] == code
    assert len(code.splitlines()) <= 30


def test_the_tutorial_runs_as_it_says(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "mine"
    shutil.copytree(TUTORIAL, here)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    short = ["run.outer_steps=3", "run.eval_every=3", "run.eval_episodes=1"]
    small = ["estimator.num_particles=4", "task.episode_length=20"]
    for name in ("pes", "truncated_es", "tbptt"):
        words = [f"{name}.yaml", *short, *small, "--run-dir", f"runs/{name}"]
        assert main(["run", *words]) == 0
    assert main(["compare", "runs/pes", "runs/truncated_es", "runs/tbptt"]) == 0


def _anchors(path: pathlib.Path) -> set[str]:
    """The names by which the headings of a document are linked."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    return set(plain)
