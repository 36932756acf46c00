"""The image: what is built into it, as whom it runs, and that its versions are ours."""

import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.deploy.dockerfile import Instruction, instructions, stages
from tests.deploy.manifests import (
    CUDA_LOCK,
    DEPLOY,
    DOCKERFILE,
    ROOT,
    pinned,
    project,
)

LOCK = ROOT / "requirements.lock"


def last(stage: list[Instruction], word: str) -> Instruction:
    return [one for one in stage if one.word == word][-1]


def arguments() -> dict[str, str]:
    found = [one.text for one in instructions(DOCKERFILE) if one.word == "ARG"]
    return dict(text.split("=", 1) for text in found)


def settings(stage: list[Instruction]) -> dict[str, str]:
    words = [word for one in stage if one.word == "ENV" for word in one.words]
    return dict(word.split("=", 1) for word in words)


def test_it_is_built_in_one_stage_and_runs_in_another() -> None:
    build, final = stages(DOCKERFILE)
    assert build[0].words[-2:] == ["AS", "build"]
    # Neither compilers nor sources come along: but for what is copied, a new system.
    (taken,) = (
        one.words for one in final if one.word == "COPY" and "--from" in one.text
    )
    assert taken == ["--from=build", "/opt/venv", "/opt/venv"]
    assert not any(word.word == "ADD" for word in instructions(DOCKERFILE))


def test_it_does_not_run_as_root() -> None:
    _, final = stages(DOCKERFILE)
    user, group = last(final, "USER").text.split(":")
    assert int(user) > 0 and int(group) > 0  # Numbers: else Kubernetes must guess.
    after = final[final.index(last(final, "USER")) :]
    assert not any(one.word == "RUN" for one in after)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copies = [
        one.words
        for one in instructions(DOCKERFILE)
        if one.word == "COPY" and "--from" not in one.text
    ]
    sources = {source for words in copies for source in words[:-1]}
    assert sources and all((ROOT / source).exists() for source in sources)
    assert sources == kept  # Nothing goes to the builder that is not copied.
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_python_is_one_that_the_package_takes_and_the_lock_is_for() -> None:
    python = arguments()["PYTHON"]
    assert Version(python) in SpecifierSet(project()["requires-python"])
    makefile = (ROOT / "Makefile").read_text()
    (locked,) = re.findall(r"--python-version (\S+)", makefile)
    assert python == locked
    for stage in stages(DOCKERFILE):
        assert stage[0].words[0] == "python:${PYTHON}-slim-bookworm"


def test_the_variants_are_locked_and_agree() -> None:
    """CUDA adds packages to the lock, and changes none."""
    plain, cuda = pinned(LOCK), pinned(CUDA_LOCK)
    assert {name: cuda.get(name) for name in plain} == plain
    added = set(cuda) - set(plain)
    assert added and all(re.match("jax-cuda12|nvidia-", name) for name in added)
    versions = {entry.split(" ;")[0] for entry in cuda["jax-cuda12-plugin"]}
    assert versions == {entry.split(" ;")[0] for entry in cuda["jaxlib"]}
    (install,) = (one for one in stages(DOCKERFILE)[0] if "--requirement" in one.text)
    assert arguments()["VARIANT"] == "cpu"
    for lock in (LOCK, CUDA_LOCK):
        assert f"lock={lock.name} ;;" in install.text


def test_the_locks_pin_all_and_name_no_place() -> None:
    assert (
        "--output-file deploy/requirements-cuda.lock" in (ROOT / "Makefile").read_text()
    )
    for lock in (LOCK, CUDA_LOCK):
        lines = lock.read_text().splitlines()
        assert all(re.match(r"\s*#|[\w.-]+==", line) for line in lines)
        assert "://" not in lock.read_text()


def test_a_node_that_nobody_gave_a_token_does_not_start_openly() -> None:
    _, final = stages(DOCKERFILE)
    assert settings(final)["RAY_AUTH_MODE"] == "token"
    # All GPUs of a host to each container that asks for none: not by our image.
    assert "NVIDIA_VISIBLE_DEVICES" not in settings(final)


def test_every_image_that_is_named_can_be_built_from_here() -> None:
    """By a command that stands in the Dockerfile, with the version of the package."""
    named = {
        match
        for path in sorted(DEPLOY.rglob("*"))
        if path.is_file() and path.suffix in (".yaml", ".md", "")
        for match in re.findall(r"pes-cluster:[\w.-]+", path.read_text())
    }
    version = project()["version"]
    assert named == {f"pes-cluster:{version}-{one}" for one in ("cpu", "cuda")}


@pytest.mark.parametrize("path", ["/opt/pes/configs", "/runs"])
def test_the_places_that_manifests_name_are_in_the_image(path: str) -> None:
    _, final = stages(DOCKERFILE)
    made = [one.text for one in final if one.word in ("COPY", "RUN")]
    assert any(path in text.split() for text in made)
    assert Path(path).is_absolute()
