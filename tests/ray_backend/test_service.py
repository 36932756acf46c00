"""`pes up` and `pes down`, on a Ray of their own."""

import os
import pathlib
import stat
import urllib.error
import urllib.request

import pytest

from pes_cluster.cli import main
from pes_cluster.ray_backend import service
from pes_cluster.ray_backend.health import HEALTH


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_service_of_one_host_leads_and_works() -> None:
    (only,) = service.nodes(1, 4, 6379, 8265)
    assert {"--head", "--num-cpus=4", '--resources={"driver": 64}'} <= set(only)


@pytest.mark.parametrize("hosts, cores, each", [(2, 4, 4), (3, 4, 2), (6, 4, 1)])
def test_the_first_of_several_hosts_only_leads(
    hosts: int, cores: int, each: int
) -> None:
    head, *workers = service.nodes(hosts, cores, 6379, 8265)
    assert "--num-cpus=0" in head and not any("driver" in flag for flag in head)
    assert len(workers) == hosts - 1
    assert all(f"--num-cpus={each}" in flags for flags in workers)
    assert all("--address=127.0.0.1:6379" in flags for flags in workers)
    assert ["--num-gpus=0" in flags for flags in workers] == [False] + [True] * (
        hosts - 2
    )


def test_the_dashboard_is_on_loopback_whatever_the_hosts() -> None:
    for hosts in (1, 3):
        heads = [f for f in service.nodes(hosts, 4, 6379, 8265) if "--head" in f]
        assert ["--dashboard-host=127.0.0.1" in flags for flags in heads] == [True]


def test_nodes_ask_for_the_token_whatever_is_around_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "somebody's")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    here = service.Service("http://127.0.0.1:1", "the_token", "mark", "folder")
    env = service.environment(here, pathlib.Path("runs"))
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == "the_token"
    assert not {"RAY_AUTH_TOKEN", "RAY_ADDRESS"} & set(env)
    assert env.items() >= HEALTH.items()


def test_down_where_nothing_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "nothing was up\n"


def test_a_state_file_that_is_damaged_is_told_in_one_line(
    home: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "service.json").write_text('{"address": 1')
    for command in ("up", "down"):
        assert main([command]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"pes: {home}/service.json: cannot be read")


def test_a_home_that_cannot_be_written_is_told_in_one_line(
    home: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("a file")
    assert main(["up"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pes: {home}/") and "cannot be" in line


@pytest.mark.ray
@pytest.mark.slow
def test_up_and_down_leave_nothing_and_touch_nobody_else(
    home: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--hosts", "2"]) == 0
    started = service.running()
    try:
        assert started is not None
        for file in ("token", "service.json"):
            assert stat.S_IMODE((home / file).stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        token = (home / "token").read_text()
        assert token not in "".join(capsys.readouterr())
        assert not any(token in line for line in _command_lines())
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(f"{started.address}/api/jobs/", timeout=10)
        assert refused.value.code == 401
        assert main(["up"]) == 1
        assert started.address in capsys.readouterr().err
    finally:
        assert main(["down"]) == 0
    assert service._marked(started.mark) == []
    assert os.listdir(home) == []
    assert not pathlib.Path(started.folder).exists()


def _command_lines() -> list[str]:
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            found.append((entry / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found
