"""Where jobs are submitted, what opens it, and what is said where it does not open."""

import contextlib
import http.server
import importlib.metadata
import json
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from pes_cluster.cli import main
from pes_cluster.cluster.job import JobError
from pes_cluster.ray_backend import endpoint
from pes_cluster.ray_backend.endpoint import Endpoint

Serve = Callable[[int, bytes], str]
TOY = str(pathlib.Path(__file__).parents[2] / "configs" / "toy_regression" / "pes.yaml")


@pytest.fixture(autouse=True)
def alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """No service, and no environment that names one."""
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    for name in ("PES_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(endpoint.TRUSTED, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves one answer to every question; the tokens it was shown are kept."""
    with contextlib.ExitStack() as stack:

        def start(status: int, body: bytes) -> str:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:  # noqa: N802
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, format: str, *args: object) -> None:
                    del format, args

            server = stack.enter_context(
                http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            )
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.mark.parametrize(
    "address, token, words",
    [
        ("ftp://host", "t", "not an address"),
        ("host:8265", "t", "not an address"),
        ("", "t", "not an address"),
        ("http://host:many", "t", "not an address"),
        ("http://", "t", "not an address"),
        ("http://10.0.0.1:8265/a b", "t", "not an address"),
        ("http://10.0.0.1 :8265", "t", "not an address"),
        ("http://10.0.0.1:8265\n", "t", "not an address"),
        ("http://10.0.0.1:8265", None, "beyond this machine"),
        ("http://localhost.example.com:8265", None, "beyond this machine"),
        ("https://cluster.example.com", None, "beyond this machine"),
    ],
)
def test_endpoints_that_are_refused(
    address: str, token: str | None, words: str
) -> None:
    line = endpoint.refusal(Endpoint(address, token))
    assert line is not None and words in line


@pytest.mark.parametrize(
    "address, token",
    [
        ("http://127.0.0.1:8265", None),
        ("http://localhost:8265", None),
        ("http://[::1]:8265", None),
        ("http://10.0.0.1:8265", "t"),
        ("https://cluster.example.com", "t"),
    ],
)
def test_endpoints_that_are_used(address: str, token: str | None) -> None:
    assert endpoint.refusal(Endpoint(address, token)) is None


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("http://127.0.0.1", "secret"))


@pytest.mark.parametrize(
    "token, why",
    [
        ("", "no token"),
        ("one\ntwo", "more than one line"),
        ("one two", "one word"),
        ("one\ttwo", "one word"),
        ("jeton\u00e9", "plain characters"),
    ],
)
def test_what_is_no_token(
    token: str, why: str, alone: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = alone / "token"
    path.touch(mode=0o600)
    path.write_text(token, encoding="utf-8")
    with pytest.raises(JobError, match=f"^{path}: holds.*{why}") as refused:
        endpoint.find("http://127.0.0.1:1", path)
    assert "two" not in str(refused.value).removeprefix(str(path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    if token:
        with pytest.raises(JobError, match=f"^RAY_AUTH_TOKEN: holds.*{why}"):
            endpoint.find("http://127.0.0.1:1", None)
    else:
        assert endpoint.find("http://127.0.0.1:1", None).token is None


def test_what_speaks_no_http_is_no_dashboard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x00\x00\x18\x04 what?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(JobError, match="is no Ray dashboard"):
            endpoint.check(Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}"))
        thread.join()


def test_the_token_file_that_is_named_comes_first(
    alone: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("named", "one\n"), ("other", "two")):
        (alone / name).touch(mode=0o600)
        (alone / name).write_text(text)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(alone / "other"))
    url = "http://127.0.0.1:1/"
    assert endpoint.find(url, alone / "named") == Endpoint("http://127.0.0.1:1", "one")
    assert endpoint.find(url, None).token == "two"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(alone / "absent"))
    with pytest.raises(JobError, match="absent: the token cannot be read"):
        endpoint.find(url, None)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_token_that_others_may_read_is_refused(
    alone: pathlib.Path, mode: int
) -> None:
    path = alone / "open"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(JobError, match=f"mode {mode:o}.*chmod 600 {path}") as refused:
        endpoint.find("http://127.0.0.1:1", path)
    assert "secret" not in str(refused.value)
    path.chmod(0o400)
    assert endpoint.find("http://127.0.0.1:1", path).token == "secret"


def test_a_network_that_is_trusted_needs_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_one = "http://10.0.0.1:8265"
    with pytest.raises(JobError, match="beyond this machine"):
        endpoint.find(open_one, None)
    monkeypatch.setenv("PES_TRUSTED_NETWORK", "0")
    with pytest.raises(JobError, match="beyond this machine"):
        endpoint.find(open_one, None)
    monkeypatch.setenv("PES_TRUSTED_NETWORK", "1")
    assert endpoint.find(open_one, None).token is None


def beyond(host: str) -> bool:
    del host
    return False


def test_a_cluster_that_takes_jobs_from_anybody_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_open, is_guarded = serve(200, b'{"ray_version": "0"}'), serve(401, b"")
    assert endpoint.exposed(is_open) is None  # On this machine alone.
    monkeypatch.setattr(endpoint, "_loopback", beyond)
    line = endpoint.exposed(is_open)
    assert line is not None and "RAY_AUTH_MODE=token" in line
    assert endpoint.exposed(is_guarded) is None
    assert endpoint.exposed("http://127.0.0.1:1") is None  # Nobody can tell.
    assert endpoint.exposed(None) is None
    monkeypatch.setenv("PES_TRUSTED_NETWORK", "1")
    assert endpoint.exposed(is_open) is None


def test_a_client_with_a_token_does_not_use_a_cluster_that_asks_for_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = importlib.metadata.version("ray")
    address = serve(200, json.dumps({"ray_version": ours}).encode())
    monkeypatch.setattr(endpoint, "_loopback", beyond)
    with pytest.raises(JobError, match="takes jobs from anybody"):
        endpoint.check(Endpoint(address, "secret"))


@pytest.mark.parametrize(
    "status, body, words",
    [
        (401, b"", "asks for a token"),
        (403, b"", "refuses this token"),
        (404, b"", "no Ray dashboard"),
        (500, b"", "HTTP status 500"),
        (200, b"<html>", "no Ray dashboard"),
        (200, b"\xff\xfe", "no Ray dashboard"),
        (200, b'{"ray_version": "1.0.0"}', "has Ray 1.0.0, here is"),
        (200, b'{"other": 1}', "no Ray dashboard"),
        (200, b"[]", "no Ray dashboard"),
    ],
)
def test_what_a_client_is_told_of_a_cluster_that_refuses(
    serve: Serve,
    status: int,
    body: bytes,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = serve(status, body)
    assert main(["list", "--address", address]) == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"pes: {address}: ") and words in line
    assert said.out == ""


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["list"], "no cluster is named"),
        (["status"], "no cluster is named"),
        (["logs", "a"], "no cluster is named"),
        (["submit", TOY], "no cluster is named"),
        (["submit", "absent.yaml"], "absent.yaml"),
        (["submit", TOY, TOY], "two configurations of that name"),
        (["submit", TOY, TOY, "--name", "a"], "2 configurations, but one name"),
        (["submit", "a.b=1"], "no configuration is named"),
        (["submit", TOY, "estimator.num_particles=3"], "num_particles"),
        (["submit", TOY, "--address", "http://127.0.0.1:1"], "no cluster answers"),
        (["stop", "a", "--address", "http://127.0.0.1:1"], "no cluster answers"),
        (["resume", "a", "--address", "http://127.0.0.1:1"], "no cluster answers"),
        (["compare", "g", "--address", "http://127.0.0.1:1"], "no cluster answers"),
        (["list", "--address", "http://10.0.0.1:1"], "beyond this machine"),
        (["list", "--token-file", "absent", "--address", "x"], "cannot be read"),
    ],
)
def test_wrong_uses_end_with_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) in (1, 2)
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("pes: ") and words in line
    assert said.out == ""
