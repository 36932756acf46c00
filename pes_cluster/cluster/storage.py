"""Files of a checkpoint, in a folder or under any URL that fsspec knows.

Everything that a store may refuse comes out as one `CheckpointError` naming the path.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class CheckpointError(Exception):
    """A checkpoint that cannot be written or must not be read; one line with a file."""


class StoreError(CheckpointError):
    """A store that does not do what it should; later, it may."""


def write(folder: str, name: str, data: bytes) -> None:
    """Writes a file whole or not at all, and to the disk before it returns.

    Raises:
        CheckpointError: The file cannot be written.
    """
    files, root = _opened(folder)
    with _refusals(f"{folder}/{name}", "written"):
        if isinstance(files, LocalFileSystem):
            _write_locally(root, name, data)
        else:
            # An object is shown whole or not at all. Elsewhere the manifest's hashes
            # tell, and the checkpoint before this one is still there.
            files.makedirs(root, exist_ok=True)
            files.pipe_file(f"{root}/{name}", data)


def read(folder: str, name: str) -> bytes:
    """Returns the bytes of a file.

    Raises:
        CheckpointError: The file is not there, or cannot be read.
    """
    files, root = _opened(folder)
    with _refusals(f"{folder}/{name}", "read"):
        return files.cat_file(f"{root}/{name}")


def size(folder: str, name: str) -> int:
    """Returns a file's size in bytes, as the store has it now; raises as `read`."""
    files, root = _opened(folder)
    with _refusals(f"{folder}/{name}", "found"):
        files.invalidate_cache()
        return int(files.size(f"{root}/{name}"))


def names(folder: str) -> list[str]:
    """Returns the names in a folder, sorted; none where there is no such folder.

    Raises:
        CheckpointError: The folder cannot be listed. That is never taken for an empty
            one: a run would begin anew.
    """
    files, root = _opened(folder)
    with _refusals(folder, "listed"):
        files.invalidate_cache()
        try:
            found = files.ls(root, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def remove(folder: str, name: str | None = None) -> None:
    """Deletes a file, or a folder with all that is in it; absent ones are fine.

    Raises:
        CheckpointError: It cannot be deleted.
    """
    files, root = _opened(folder)
    path = root if name is None else f"{root}/{name}"
    with _refusals(path, "deleted"), contextlib.suppress(FileNotFoundError):
        files.rm(path, recursive=name is None)


def check(url: str) -> None:
    """Refuses a URL of a protocol that fsspec does not know, or lacks a package for.

    Raises:
        CheckpointError: One line that names the URL.
    """
    _opened(url)


def probe(folder: str) -> None:
    """Writes a small file and deletes it.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    name = f"probe_{uuid.uuid4().hex[:8]}"
    write(folder, name, bytes(1024))  # A full disk takes empty ones.
    remove(folder, name)


def _opened(url: str) -> tuple[Any, str]:
    with _refusals(url, "opened"):
        return fsspec.core.url_to_fs(url)


@contextlib.contextmanager
def _refusals(path: str, done: str) -> Iterator[None]:
    """Turns what a file system raises into one line that names the path."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{path}: cannot be {done} (not there)") from None
    except (ImportError, ValueError) as error:
        line = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be {done} ({line})") from None
    except Exception as error:
        # The libraries behind fsspec raise errors of their own, of no common base.
        line = getattr(error, "strerror", None) or str(error) or type(error).__name__
        line = " ".join(line.split())
        raise StoreError(f"{path}: cannot be {done} ({line})") from None


def _write_locally(root: str, name: str, data: bytes) -> None:
    """Under another name first, then renamed; a crashed host finds all or nothing."""
    os.makedirs(root, exist_ok=True)
    scratch = os.path.join(root, f".{name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, os.path.join(root, name))
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(scratch)
        raise
    _sync_folder(root)


def _sync_folder(root: str) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # Some file systems cannot; the file itself is written.
    finally:
        os.close(descriptor)
