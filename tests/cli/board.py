"""A dashboard that holds two jobs and takes no third: what a client is told by one."""

import http.server
import importlib.metadata
import json
from typing import Any

from pes_cluster.cluster.job import Attempt
from pes_cluster.config.run_config import digest, load

NODE = {
    "state": "ALIVE",
    "node_ip": "127.0.0.1",
    "is_head_node": True,
    "resources_total": {"CPU": 4.0, "memory": 1e9, "driver": 64.0},
    "labels": {},
}


def jobs(config: str) -> list[dict[str, Any]]:
    """One that runs, one that has ended, and one that somebody else submitted."""
    shared = {"type": "SUBMISSION", "entrypoint": "true", "runtime_env": {}}
    live = Attempt("live", 1, "g", digest(load(config)))
    ended = Attempt("ended", 1, "g", "another")
    told = [(live, "RUNNING", None), (ended, "FAILED", 1)]
    found = [
        {
            **shared,
            "submission_id": attempt.id,
            "status": status,
            "metadata": attempt.metadata(),
            "driver_exit_code": code,
        }
        for attempt, status, code in told
    ]
    return [*found, {**shared, "submission_id": "theirs", "status": "PENDING"}]


class Board(http.server.ThreadingHTTPServer):
    """Answers as a dashboard does.

    Attributes:
        address: Where it is.
        changes: What it was asked to change.
    """

    def __init__(self, config: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.changes: list[str] = []
        listed = jobs(config)
        ray = {"ray_version": importlib.metadata.version("ray")}
        nodes = {"data": {"result": {"result": [NODE]}}}
        self.answers: dict[str, Any] = {
            "/api/version": ray,
            "/api/jobs/": listed,
            "/api/v0/nodes": nodes,
            "/old/api/version": {"ray_version": "1.0.0"},
            "/odd/api/version": ["no", "dashboard"],
        } | {f"/api/jobs/{one['submission_id']}": one for one in listed}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Board

    def do_GET(self) -> None:  # noqa: N802
        answer = self.server.answers.get(self.path.partition("?")[0])
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self) -> None:  # noqa: N802
        self.server.changes.append(self.path)
        self.send_response(500)
        self.end_headers()

    do_PUT = do_DELETE = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        del format, args
