"""Lines in a job's log that are meant for clients; the rest is for people."""

from collections.abc import Iterable, Iterator

MARK = "pes-cluster: "  # An answer, or how a run ended; JSON.
HISTORY = "pes-history: "  # What a run has to show; see metrics/history.py.


def marked(log: str, mark: str = MARK) -> list[str]:
    """The lines of a log that are meant for us; pure."""
    lines = log.splitlines()
    return [line.removeprefix(mark) for line in lines if line.startswith(mark)]


def spoken(parts: Iterable[str]) -> Iterator[str]:
    """A log that comes in parts, as whole lines, without those that are for us."""
    rest = ""
    for part in parts:
        *lines, rest = (rest + part).split("\n")
        told = [f"{line}\n" for line in lines if not line.startswith((MARK, HISTORY))]
        if told:
            yield "".join(told)
    if rest and not rest.startswith((MARK, HISTORY)):
        yield rest
