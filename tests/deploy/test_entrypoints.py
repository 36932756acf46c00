"""What manifests, scripts and instructions run is what our command line takes."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from pes_cluster import cli, job_commands
from pes_cluster.config import run_config
from pes_cluster.config.run_config import RunConfig
from pes_cluster.ray_backend.environment import JOB, RUNS
from tests.deploy.manifests import DEPLOY, ROOT, SLURM_SCRIPT, Document, clusters, jobs

README = DEPLOY / "README.md"
IN_IMAGE = "/opt/pes/"


def parsed(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command and its parameters, read by the application and not run.

    Raises:
        typer.BadParameter: They are wrong use; or another of its family.
    """
    group: Any = typer.main.get_command(cli.app)
    with group.make_context("pes", list(words)) as context:
        name, command, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        inner = command.make_context(name, list(rest), parent=context)
        return name, inner.params


def here(path: Path) -> Path:
    """Where a path of the image, or of the repository, lies."""
    return ROOT / str(path).removeprefix(IN_IMAGE)


@pytest.mark.parametrize("name, job", list(jobs()))
def test_the_entrypoint_of_a_job_is_ours(name: str, job: Document) -> None:
    entry, *words = shlex.split(job["spec"]["entrypoint"])
    assert (entry, words[0]) == ("exec", "pes")  # So that a signal reaches it.
    command, given = parsed(words[1:])
    assert (command, given["name"]) == ("job", job["metadata"]["name"])
    config = run_config.load(here(given["file"]), given["overrides"] or ())
    assert config.cluster.pool == "ray"
    assert config.cluster.shards == room(job["spec"]["rayClusterSpec"], config)


def room(spec: Document, config: RunConfig) -> int:
    """How many shards the workers of a cluster hold, less a CPU for each driver."""
    each, found = config.cluster.per_shard, 0
    for group in spec["workerGroupSpecs"]:
        if group["rayStartParams"].get("num-cpus") == "0":
            continue
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus = int(limits["cpu"]) - ("resources" in group["rayStartParams"])
        if each.num_gpus:
            fit = int(limits.get("nvidia.com/gpu", 0) / each.num_gpus)
        else:
            fit = int(cpus / each.num_cpus)
        found += fit * group["replicas"]
    return found


def test_a_wrong_entrypoint_is_reported() -> None:
    """The power of the check above."""
    with pytest.raises(typer.BadParameter.__base__ or Exception):
        parsed(["job", "name", "configs/digits/pes.yaml", "--run-dr", "x"])
    with pytest.raises(typer.BadParameter.__base__ or Exception):
        parsed(["superise", "configs/digits/pes.yaml"])


def test_slurm_supervises_a_run() -> None:
    text = SLURM_SCRIPT.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"(pes supervise .*?) &$", text, re.M)
    words = shlex.split(line.replace('"$@"', "cluster.shards=4"))
    command, given = parsed(words[1:])
    assert command == "supervise" and str(given["run_dir"]) == "$run"
    (line,) = re.findall(r"(pes stop [^|]*)\|\|", text)
    command, given = parsed(shlex.split(line)[1:])
    assert (command, given["wait"]) == ("stop", 0.0)


def shell_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.M | re.S)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line]


def test_the_commands_of_the_instructions_are_ours() -> None:
    found = [line for line in shell_lines() if line.startswith("pes ")]
    assert len(found) >= 4
    for line in found:
        command, given = parsed(shlex.split(line)[1:])
        for config in given.get("configs") or ():
            assert "=" in config or list(ROOT.glob(config)), line
        assert command in ("submit", "status", "logs", "scale", "stop", "resume"), line


def test_the_files_of_the_instructions_are_there() -> None:
    text = README.read_text()
    named = set(re.findall(r"deploy/[\w./-]+\.\w+", text)) | {
        f"deploy/{one}"
        for one in re.findall(r"`((?:kuberay|launcher|slurm)/[\w.-]+)`", text)
    }
    there = {
        f"deploy/{p.relative_to(DEPLOY)}" for p in DEPLOY.rglob("*") if p.is_file()
    }
    assert named - {"deploy/monitoring"} <= there
    # And each manifest is in the table of situations.
    manifests = {
        one
        for one in there
        if re.search(r"(kuberay|launcher|slurm)/.*(yaml|sbatch)$", one)
    }
    assert manifests <= named


@pytest.fixture
def supervised(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[list[str], RunConfig, Path]]:
    """What a job would have run."""
    seen: list[tuple[list[str], RunConfig, Path]] = []

    def note(command: list[str], config: RunConfig, directory: Any) -> int:
        seen.append((command, config, directory.path))
        return 0

    monkeypatch.setattr(job_commands, "supervise_run", note)
    return seen


def test_a_job_may_name_its_configuration_by_a_file(
    supervised: list[tuple[list[str], RunConfig, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(RUNS, str(tmp_path))
    monkeypatch.setenv(JOB, "")
    file = str(ROOT / "configs/digits/pes.yaml")
    assert cli.main(["job", "digits-pes", file, "cluster.shards=6"]) == 0
    ((command, config, folder),) = supervised
    assert config == run_config.load(Path(file), ["cluster.shards=6"])
    assert folder == tmp_path / "digits-pes"
    assert command[-2:] == ["--run-dir", str(folder)]
    # The driver answers to the name, and the end stands in the log.
    assert os.environ[JOB] == "digits-pes"
    assert '"name": "digits-pes"' in capsys.readouterr().out


def test_a_job_whose_configuration_is_not_there_says_so(
    supervised: list[tuple[list[str], RunConfig, Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["job", "a", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err
    assert supervised == []


def test_no_secret_lies_in_the_folder() -> None:
    """Nothing that looks like one: long, random, and not a hash that pip checks."""
    looks = re.compile(r"(?<![\w/-])[0-9a-fA-F]{32,}|[A-Za-z0-9+/]{40,}={1,2}")
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert not looks.search(path.read_text(encoding="utf-8")), path.name
    assert looks.search("token: " + "0123456789abcdef" * 4)


def test_no_dashboard_is_open_without_a_token() -> None:
    """Beyond loopback only where a token is asked for, in all that starts a head."""
    for _, spec in clusters():
        host = spec["headGroupSpec"]["rayStartParams"]["dashboard-host"]
        assert host == "127.0.0.1" or spec["authOptions"]["mode"] == "token"
    for path in [
        *DEPLOY.rglob("*.sh"),
        *DEPLOY.rglob("*.sbatch"),
        *DEPLOY.rglob("launcher/*.yaml"),
    ]:
        text = path.read_text()
        hosts = re.findall(r"dashboard-host[= ]+(\S+)", text)
        assert all(host.strip(")") == "127.0.0.1" for host in hosts), path.name
        assert not re.search(r"AUTH_MODE=(?!token)", text), path.name
