"""Files that are written whole or not at all: nobody ever reads half of one."""

import pathlib
import uuid


def write(path: pathlib.Path, text: str) -> None:
    """Puts a file in the place of the one that is there, if any.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
