"""Errors that nobody foresaw, in one line: what was raised, where, and by whose code.

A task is its author's own program, and may raise anything. Its author wants to know the
line of it, not the forty of ours and JAX's that lie between. `PES_TRACEBACK=1` shows
those too; in a job's log they always are.
"""

import os
import pathlib
import sysconfig
import textwrap
import traceback

SHOW = "PES_TRACEBACK"

_LENGTH = 300  # Of a message; JAX explains at length.
_OURS = pathlib.Path(__file__).resolve().parent
_PYTHONS = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}


def line(error: BaseException) -> str:
    """Says what was raised and where; in the user's own code, if it was on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = _theirs(error)
    said = textwrap.shorten(f"{type(error).__name__}: {error}", _LENGTH)
    noted = [
        f"; {note}" for note in getattr(error, "__notes__", []) if "\n" not in note
    ]
    if not frames:
        return said
    last = (theirs or frames)[-1]
    where = f"{pathlib.Path(last.filename).name}, line {last.lineno}, in {last.name}"
    whose = "" if theirs else "unexpected "
    more = f"{SHOW}=1 shows how it came to that"
    return f"{whose}{said} ({where}{''.join(noted)}); {more}"


def show(error: BaseException) -> None:
    """Prints the whole traceback, where that was asked for."""
    if os.environ.get(SHOW):
        traceback.print_exception(error)


def is_theirs(error: BaseException) -> bool:
    """Whether the user's own code was on the way."""
    return bool(_theirs(error))


def _theirs(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if _lies_apart(frame.filename)]


def _lies_apart(file: str) -> bool:
    path = pathlib.Path(file).resolve()
    known = file.startswith("<") or path.is_relative_to(_OURS)
    return not known and not any(path.is_relative_to(root) for root in _PYTHONS)
