"""What lies in deploy/: where, and as values."""

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = sorted((DEPLOY / "kuberay").glob("*.yaml"))
LAUNCHERS = sorted((DEPLOY / "launcher").glob("*.yaml"))
NODE_SCRIPT = DEPLOY / "launcher" / "node.sh"
SLURM_SCRIPT = DEPLOY / "slurm" / "pes.sbatch"
SCRIPTS = [*sorted(DEPLOY.rglob("*.sh")), SLURM_SCRIPT]
DOCKERFILE = DEPLOY / "Dockerfile"
CUDA_LOCK = DEPLOY / "requirements-cuda.lock"

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """The documents of a manifest."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def clusters() -> Iterator[tuple[str, Document]]:
    """The specification of each Ray cluster, with what names it in a failure."""
    for path in KUBERAY:
        for document in documents(path):
            if document["kind"] == "RayCluster":
                yield path.name, document["spec"]
            elif document["kind"] == "RayJob":
                yield path.name, document["spec"]["rayClusterSpec"]


def jobs() -> Iterator[tuple[str, Document]]:
    """Each RayJob."""
    for path in KUBERAY:
        for document in documents(path):
            if document["kind"] == "RayJob":
                yield path.name, document


def groups(spec: Document) -> Iterator[Document]:
    """The head's group and those of the workers."""
    yield spec["headGroupSpec"]
    yield from spec["workerGroupSpecs"]


def pods(document: Any) -> Iterator[Document]:
    """The specification of each pod, however deep it lies."""
    if isinstance(document, list):
        for part in document:
            yield from pods(part)
    elif isinstance(document, dict):
        if "containers" in document:
            yield document
        for part in document.values():
            yield from pods(part)


def environment(container: Document) -> dict[str, str]:
    """The plain values of a container's environment."""
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def exports(script: Path) -> dict[str, str]:
    """What a shell script puts into the environment of all that it starts."""
    found = re.findall(r"^export (\w+)=(.*)$", script.read_text(), re.MULTILINE)
    return dict(found)


@functools.cache
def project() -> Document:
    """The project section of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(lock: Path) -> dict[str, set[str]]:
    """The versions of each package that a lock names, with what they depend on."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==(.+)", line):
            found.setdefault(match[1], set()).add(match[2].strip())
    return found
