"""Where a cluster takes jobs, and what opens it: an address and a token.

Looked for in this order: what was named, the environment, the service of this machine
(whose own token comes before the environment's).
A token is held in memory and sent in a header; it is in no command line and no log.
Beyond this machine a token is asked for on both sides: we send one, and what would do
without is not used, unless `PES_TRUSTED_NETWORK` says that its network is guarded.
"""

import dataclasses
import http.client
import importlib.metadata
import ipaddress
import json
import os
import pathlib
import stat
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pes_cluster.cluster.job import JobError
from pes_cluster.ray_backend import service
from pes_cluster.ray_backend.room import Offer

ADDRESS = "PES_ADDRESS"
TRUSTED = "PES_TRUSTED_NETWORK"  # Set: who reaches the cluster may use it.
MOST_NODES = 10_000  # As many as Ray lists in one answer; unasked it lists 100.
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where jobs are submitted.

    Attributes:
        address: A URL.
        token: What opens it; None: nothing does, or nothing need.
        token_file: Where that was read; it must not travel with a job.
    """

    address: str
    token: str | None = dataclasses.field(default=None, repr=False)
    token_file: pathlib.Path | None = dataclasses.field(default=None, compare=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def find(address: str | None, token_file: pathlib.Path | None) -> Endpoint:
    """The endpoint that is meant.

    Raises:
        JobError: None is, its token cannot be read, or it would be used openly.
    """
    here = service.running()
    named = address or os.environ.get(ADDRESS) or (here.address if here else None)
    if named is None:
        raise JobError(
            "no cluster is named: give --address http://HOST:8265, or start one on "
            "this machine with pes up"
        )
    own = here.token_file if here and here.address == named.rstrip("/") else None
    chosen = token_file or own or os.environ.get(_TOKEN_PATH)
    path = pathlib.Path(chosen).expanduser() if chosen else None
    token = _read(path) if path else _in_environment()
    endpoint = Endpoint(named.rstrip("/"), token, path)
    refused = refusal(endpoint, trusted())
    if refused is not None:
        raise JobError(refused)
    return endpoint


def trusted() -> bool:
    """Whether the environment says that the cluster's network is guarded."""
    return os.environ.get(TRUSTED, "") not in ("", "0")


def refusal(endpoint: Endpoint, trusted: bool = False) -> str | None:
    """Why an endpoint is not to be used, in one line; pure."""
    address = endpoint.address
    no_address = f"{address!r}: not an address; it looks like http://HOST:8265"
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return no_address
    if parts.scheme not in ("http", "https") or not host or not _in_one_word(address):
        return no_address
    if endpoint.token is None and not _loopback(host) and not trusted:
        return (
            f"{address}: is beyond this machine, and there is no token; name a file "
            f"that holds it with --token-file or {_TOKEN_PATH}"
        )
    return None


def check(endpoint: Endpoint) -> None:
    """Asks whether a cluster is there that takes jobs from us.

    Raises:
        JobError: Nothing answers, the token is refused, its Ray is another, or it would
            take jobs from anybody.
    """
    try:
        theirs = str(get(endpoint, "/api/version")["ray_version"])
    except (KeyError, TypeError):
        raise JobError(f"{endpoint.address}: is no Ray dashboard") from None
    line = other_version(importlib.metadata.version("ray"), theirs)
    if line is None and endpoint.token is not None:
        line = exposed(endpoint.address)
    if line is not None:
        raise JobError(f"{endpoint.address}: {line}")


def exposed(address: str | None) -> str | None:
    """Why what takes jobs there is not to be used, in one line.

    That it answers beyond its machine, without a token, is found by asking. None: it
    does not, or cannot be asked from here, or its network is trusted.
    """
    host = urllib.parse.urlsplit(address or "").hostname
    if not host or _loopback(host) or trusted():
        return None
    try:
        get(Endpoint(str(address)), "/api/version", seconds=5.0)
    except JobError:
        return None
    return (
        "takes jobs from anybody who reaches it; start its nodes with "
        f"RAY_AUTH_MODE=token, or set {TRUSTED}=1 if its network is guarded"
    )


def offers(endpoint: Endpoint) -> list[Offer]:
    """What each node that lives offers.

    Raises:
        JobError: The cluster does not tell.
    """
    answer = get(endpoint, f"/api/v0/nodes?detail=1&limit={MOST_NODES}")
    try:
        found = answer["data"]["result"]["result"]
        return [_offer(one) for one in found if one["state"] == "ALIVE"]
    except (KeyError, TypeError):
        raise JobError(f"{endpoint.address}: does not list its nodes") from None


def other_version(ours: str, theirs: str) -> str | None:
    """Why a cluster's Ray cannot be used with ours; pure."""
    if ours.split(".")[:2] == theirs.split(".")[:2]:
        return None
    return f"has Ray {theirs}, here is {ours}; install ray=={theirs} here"


def get(endpoint: Endpoint, path: str, seconds: float = 10.0) -> Any:
    """What the cluster answers to a question, decoded.

    Raises:
        JobError: It does not answer, or refuses; one line that says what to do.
    """
    url = endpoint.address + path
    request = urllib.request.Request(url, headers=endpoint.headers)
    try:
        with _opener(endpoint).open(request, timeout=seconds) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise JobError(f"{endpoint.address}: {refused(error.code)}") from None
    except (ValueError, http.client.HTTPException):
        raise JobError(f"{endpoint.address}: is no Ray dashboard") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise JobError(
            f"{endpoint.address}: no cluster answers there ({why})"
        ) from None


def refused(status: int) -> str:
    """What an HTTP status other than success means here; pure."""
    match status:
        case 401:
            return "asks for a token; name its file with --token-file"
        case 403:
            return "refuses this token; it is another cluster's, or an old one"
        case 404:
            return "is no Ray dashboard, or an old one"
        case _:
            return f"answers with HTTP status {status}"


def _offer(described: Any) -> Offer:
    labels = described.get("labels") or {}
    head = bool(described.get("is_head_node"))
    return Offer(described["node_ip"], described["resources_total"], labels, head)


def _opener(endpoint: Endpoint) -> urllib.request.OpenerDirector:
    host = urllib.parse.urlsplit(endpoint.address).hostname or ""
    if not _loopback(host):
        return urllib.request.build_opener()
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def malformed(token: str) -> str | None:
    """Why a text is no token, in words that follow where it was found; pure."""
    if not token:
        return "holds no token"
    if len(token.splitlines()) > 1:
        return "holds more than one line; a token is one"
    if not (token.isascii() and _in_one_word(token)):
        return "holds no token: one word of plain characters is"
    return None


def _in_one_word(text: str) -> bool:
    return text.isprintable() and len(text.split()) == 1


def _in_environment() -> str | None:
    token = os.environ.get(_TOKEN, "").strip()
    why = malformed(token) if token else None
    if why is not None:
        raise JobError(f"{_TOKEN}: {why}")
    return token or None


def _read(path: pathlib.Path) -> str:
    """The token in a file that nobody else may read."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise JobError(f"{path}: the token cannot be read ({why})") from None
    if mode & 0o077:
        raise JobError(
            f"{path}: others on this machine may read the token (mode {mode:o}); "
            f"chmod 600 {path}"
        )
    why = malformed(text)
    if why is not None:
        raise JobError(f"{path}: {why}")
    return text
