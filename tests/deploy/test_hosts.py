"""Launchers and Slurm: their nodes are started as ours are, and told before they go."""

import copy
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import click
import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start, symmetric_run

from pes_cluster.ray_backend.environment import DRAIN_SECONDS, DRIVER, NODE, RUNS
from pes_cluster.ray_backend.jobs import SAVE_SECONDS
from pes_cluster.ray_backend.service import DRIVERS
from tests.deploy.manifests import (
    LAUNCHERS,
    NODE_SCRIPT,
    ROOT,
    SCRIPTS,
    SLURM_SCRIPT,
    Document,
    documents,
    exports,
)

TEARDOWN_SECONDS = 10  # For Ray to end its processes once a node has drained.

every_launcher = pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)


def launcher(path: pathlib.Path) -> Document:
    (config,) = documents(path)
    return config


@every_launcher
def test_ray_takes_the_launcher(path: pathlib.Path) -> None:
    """By Ray's own schema and checks, as `ray up` does before it calls a cloud."""
    prepared = prepare_config(launcher(path))
    validate_config(prepared)
    assert prepared["provider"]["type"] == path.stem


@pytest.mark.parametrize(
    "section, field",
    [(None, "head_start_ray_comands"), ("auth", "ssh_usr"), ("worker", "min_wrkers")],
)
def test_a_misspelt_field_is_reported(section: str | None, field: str) -> None:
    """The power of the check above."""
    config = launcher(next(path for path in LAUNCHERS if path.stem == "aws"))
    wrong = copy.deepcopy(config)
    place = {
        None: wrong,
        "auth": wrong["auth"],
        "worker": wrong["available_node_types"]["workers"],
    }[section]
    place[field] = "x"
    with pytest.raises(jsonschema.ValidationError, match=field):
        validate_config(prepare_config(wrong))


@every_launcher
def test_what_travels_to_a_host_is_there(path: pathlib.Path) -> None:
    files = dict(launcher(path)["file_mounts"])
    token = files.pop("~/pes/token")
    assert token.startswith("~/.pes_cluster/")  # Not in the repository.
    for there, here in files.items():
        assert there == f"~/pes/source/{here}" and (ROOT / here).exists()
    needed = {"pes_cluster", "pyproject.toml", "requirements.lock", "README.md"}
    assert needed <= set(files.values())


@every_launcher
def test_commands_name_scripts_that_are_there(path: pathlib.Path) -> None:
    config = launcher(path)
    commands = [
        command
        for name, part in config.items()
        if name.endswith("_commands")
        for command in part
    ]
    called = {found for one in commands for found in re.findall(r"\S+\.sh", one)}
    assert {one.rpartition("/")[2] for one in called} == {"install.sh", "node.sh"}
    for one in called:
        assert (ROOT / one.removeprefix("~/pes/source/")).exists()
    for one in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert re.match(rf"{RUNS}=/\S+ bash ~/\S+/node.sh (head|worker)\b", one)


def test_clouds_keep_shards_off_the_head_and_drivers_off_spot_machines() -> None:
    for path in LAUNCHERS:
        config = launcher(path)
        types: dict[str, Any] = dict(config.get("available_node_types", {}))
        if not types:  # A local provider has none: the scripts' flags say it.
            (command,) = config["worker_start_ray_commands"]
            flags = dict(one.split("=", 1) for one in shlex.split(command)[4:])
            assert json.loads(flags["--resources"]) == {DRIVER: DRIVERS}
            continue
        head = types.pop(config["head_node_type"])
        assert head["resources"] == {"CPU": 0}
        drivers = types.pop("drivers")
        assert drivers["resources"] == {"CPU": 0, DRIVER: DRIVERS}
        assert drivers["min_workers"] == drivers["max_workers"] == 1
        kept = json.dumps([head["node_config"], drivers["node_config"]])
        assert "spot" not in kept and "preemptible" not in kept
        assert not any(DRIVER in one["resources"] for one in types.values())


@pytest.mark.parametrize("script", [NODE_SCRIPT, SLURM_SCRIPT], ids=lambda p: p.name)
def test_nodes_have_the_environment_of_a_node(script: pathlib.Path) -> None:
    found = exports(script)
    assert {name: found.get(name) for name in NODE} == NODE


def run_node_script(
    tmp_path: pathlib.Path, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs node.sh with stand-ins for what it calls; they write what they are given."""
    folder = tmp_path / "pes" / "venv" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    record = 'printf "%s\\0" "$0" "$@" >> "$HOME/calls"; echo >> "$HOME/calls"; '
    record += 'env > "$HOME/env"\n'
    for name, then in {
        "ray": "",
        "sudo": "exit 1\n",
        "setsid": 'shift; "$@"\n',
    }.items():
        stand_in = folder / name
        stand_in.write_text(f"#!/bin/bash\n{record}{then}")
        stand_in.chmod(0o755)
    token = tmp_path / "pes" / "token"
    token.write_text("made for this test")
    token.chmod(0o644)
    runs = str(tmp_path / "runs")
    base = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], RUNS: runs}
    return subprocess.run(
        ["bash", str(NODE_SCRIPT), *arguments],
        env=base | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def calls(tmp_path: pathlib.Path) -> list[list[str]]:
    record = tmp_path / "calls"
    lines = record.read_text().splitlines() if record.exists() else []
    found = [line.rstrip("\0").split("\0") for line in lines]
    return [[pathlib.Path(one[0]).name, *one[1:]] for one in found]


def started(tmp_path: pathlib.Path) -> dict[str, str | None]:
    """The flags of the `ray start` that is called, beside the script."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for call in calls(tmp_path):
            if call[:2] == ["ray", "start"]:
                parts = (flag.partition("=") for flag in call[2:])
                return {name: value if sign else None for name, sign, value in parts}
        time.sleep(0.05)
    raise AssertionError("no node was started")


def test_the_head_starts_without_work_and_its_dashboard_on_loopback(
    tmp_path: pathlib.Path,
) -> None:
    done = run_node_script(tmp_path, "head", "--autoscaling-config=x.yaml")
    assert done.returncode == 0, done.stderr
    assert started(tmp_path) == {
        "--head": None,
        "--port": "6379",
        "--num-cpus": "0",
        "--num-gpus": "0",
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": "8265",
        "--block": None,
        "--autoscaling-config": "x.yaml",
    }
    assert "leaves without notice" in done.stderr  # Said, since sudo was refused.
    assert (tmp_path / "pes" / "token").stat().st_mode & 0o777 == 0o600


def test_a_worker_finds_its_head(tmp_path: pathlib.Path) -> None:
    secret = "not to be handed on"
    done = run_node_script(
        tmp_path,
        "worker",
        '--resources={"driver":64}',
        RAY_HEAD_IP="192.0.2.10",
        RAY_AUTH_TOKEN=secret,
    )
    assert done.returncode == 0, done.stderr
    assert started(tmp_path) == {
        "--address": "192.0.2.10:6379",
        "--block": None,
        "--resources": '{"driver":64}',
    }
    given = (tmp_path / "env").read_text()
    for name, value in NODE.items():
        assert f"{name}={value}\n" in given
    assert f"RAY_AUTH_TOKEN_PATH={tmp_path}/pes/token\n" in given
    assert secret not in given + (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    "arguments, env, words",
    [
        ([], {}, "name head or worker"),
        (["worker"], {}, "RAY_HEAD_IP: names the host of the head"),
        (["head"], {RUNS: ""}, "PES_RUNS: names the folder of the runs"),
    ],
)
def test_wrong_uses_of_a_node_end_with_one_line(
    arguments: list[str], env: dict[str, str], words: str, tmp_path: pathlib.Path
) -> None:
    done = run_node_script(tmp_path, *arguments, **env)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("words", [["-c", "sleep 60"], ["/x/ray", "start", "--block"]])
def test_a_node_takes_the_place_of_a_node_and_of_nothing_else(
    words: list[str], tmp_path: pathlib.Path
) -> None:
    """The number of one that ended with its host may be another process' by now."""
    program = "import time; time.sleep(60)"
    given = [sys.executable, "-c", program, *words]
    with subprocess.Popen(given) as other:
        threading.Thread(target=other.wait).start()  # A zombie would count as there.
        try:
            (tmp_path / "pes").mkdir()
            (tmp_path / "pes" / "node.pid").write_text(f"{other.pid}\n")
            done = run_node_script(tmp_path, "worker", RAY_HEAD_IP="192.0.2.10")
            assert done.returncode == 0, done.stderr
            is_node = "start" in words
            assert other.poll() == (-signal.SIGTERM if is_node else None)
        finally:
            other.kill()
    assert started(tmp_path)["--address"] == "192.0.2.10:6379"


def test_a_node_without_a_token_is_not_started(tmp_path: pathlib.Path) -> None:
    done = run_node_script(tmp_path, "head", HOME=str(tmp_path / "other"))
    assert done.returncode == 1 and "no token in" in done.stderr


def test_systemd_waits_longer_than_a_node_drains() -> None:
    text = NODE_SCRIPT.read_text()
    (wait,) = re.findall(r"TimeoutStopSec=(\d+)", text)
    assert int(wait) >= DRAIN_SECONDS + TEARDOWN_SECONDS
    assert "KillMode=mixed" in text  # To the node alone: it tells the others.


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_stop_at_the_first_error(script: pathlib.Path) -> None:
    done = subprocess.run(
        ["bash", "-n", str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK) or script == SLURM_SCRIPT


def directives() -> dict[str, str]:
    found = re.findall(
        r"^#SBATCH --([\w-]+)(?:=(.*))?$", SLURM_SCRIPT.read_text(), re.M
    )
    return dict(found)


def test_slurm_asks_for_a_checkpoint_in_time() -> None:
    given = directives()
    receiver, number, seconds = re.split("[:@]", given["signal"])
    assert (receiver, number) == ("B", "USR1")  # Not to the shards.
    assert int(seconds) >= SAVE_SECONDS + TEARDOWN_SECONDS
    assert {"requeue", "exclusive", "no-kill"} <= set(given)
    assert given["open-mode"] == "append"  # A run that goes on keeps its log.
    trap = re.search(r"^trap '(.*)' USR1$", SLURM_SCRIPT.read_text(), re.M)
    assert trap and 'pes stop "$run"' in trap[1]


def symmetric_words() -> tuple[list[str], list[str]]:
    """What stands before and after the separator of symmetric-run."""
    text = SLURM_SCRIPT.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"ray symmetric-run (.*) &$", text, re.M)
    words = shlex.split(line)
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts}


def test_symmetric_run_is_called_as_this_ray_has_it() -> None:
    before, after = symmetric_words()
    own, starts = _options(symmetric_run), _options(start)
    named = {word.partition("=")[0] for word in before if word.startswith("--")}
    assert named <= own | starts
    assert {"--address", "--min-nodes"} <= named & own
    refused = {"--head", "--node-ip-address", "--port", "--block"}
    assert not named & refused
    # The flags go to every node, and a worker does not take these.
    assert not named & {"--include-dashboard", "--redis-shard-ports"}
    # It takes no environment along: without this the run would start a Ray of its own.
    assert after[:2] == ["env", "RAY_ADDRESS=$address"]
    # What is no option of its own goes to `ray start`, by "=": else it would be torn.
    passed = [word for word in before if word.partition("=")[0] in named - own]
    assert all("=" in word or _is_flag(word) for word in passed)


def _is_flag(word: str) -> bool:
    (option,) = (one for one in start.params if word in one.opts)
    return isinstance(option, click.Option) and option.is_flag


def test_the_token_of_a_slurm_job_is_its_owners_alone() -> None:
    lines: Iterable[str] = SLURM_SCRIPT.read_text().splitlines()
    order = [
        index
        for wanted in (
            "umask 077",
            "unset RAY_AUTH_TOKEN",
            "trap 'rm -f \"$RAY_AUTH",
            "python -c",
        )
        for index, line in enumerate(lines)
        if line.startswith(wanted)
    ]
    assert len(order) == 4 and order == sorted(order)
