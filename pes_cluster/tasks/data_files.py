"""The files of public data sets: where they are found, unpacked and checked.

A file is looked for under a folder that the user names (`data_dir`, else the
environment variable PES_DATA_DIR), packed (.gz, .xz) or not. Its content must have the
published md5. Nothing is downloaded unless `data_dir` says "download".
"""

import gzip
import hashlib
import lzma
import os
from pathlib import Path
from typing import NamedTuple

from pes_cluster.core.task import TaskError

DOWNLOAD = "download"
ENVIRONMENT_VARIABLE = "PES_DATA_DIR"


class DatasetError(TaskError):
    """Data that is absent or damaged; the message is one line that says what to do."""


class DataFile(NamedTuple):
    """One file of a set.

    Attributes:
        name: Without the ending of a packed form.
        md5: Of the unpacked content.
        packed: Ending of the published form: "", ".gz" or ".xz".
        md5_packed: Of the published form; None where it is the content itself.
    """

    name: str
    md5: str
    packed: str = ""
    md5_packed: str | None = None


class Place(NamedTuple):
    """Where the files of a set may lie.

    Attributes:
        set_name: For messages.
        folders: Below `data_dir`, looked through in this order.
        mirrors: Folders on the network, tried in this order where asked to.
    """

    set_name: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...] = ()


def read(place: Place, file: DataFile, data_dir: str | None) -> tuple[Path, bytes]:
    """Returns where a file was found, and its unpacked content.

    Args:
        place: Of its set.
        file: Which one.
        data_dir: A folder, "download", or None for the environment variable.

    Raises:
        DatasetError: It is absent or damaged, or cannot be fetched.
    """
    path = _locate(place, file, data_dir or os.environ.get(ENVIRONMENT_VARIABLE))
    return path, _checked(path, file)


def unpacked(path: Path, raw: bytes) -> bytes:
    """Returns `raw`, decompressed if the file's name ends in .gz or .xz.

    Raises:
        DatasetError: The stream is damaged or cut short; names the file.
    """
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix)
    if unpack is None:
        return raw
    try:
        return unpack(raw)
    except (OSError, EOFError, lzma.LZMAError) as error:
        kind = {".gz": "gzip", ".xz": "xz"}[path.suffix]
        raise DatasetError(f"{path}: not a whole {kind} file ({error})") from error


def _locate(place: Place, file: DataFile, data_dir: str | None) -> Path:
    """Returns the path of a file, packed or not."""
    name = place.set_name
    if data_dir == DOWNLOAD:
        return _download(place, file)
    advice = f"set data_dir (or {ENVIRONMENT_VARIABLE}) to the folder that holds it"
    if place.mirrors:
        advice += f", or data_dir: {DOWNLOAD}"
    if data_dir is None:
        raise DatasetError(f"data set {name} is not shipped; {advice}")
    root = Path(data_dir).expanduser().absolute()
    folders = [root / folder for folder in place.folders] + [root]
    for folder in folders:
        for ending in (".gz", ".xz", ""):
            path = folder / f"{file.name}{ending}"
            if path.is_file():
                return path
    looked = " or ".join(str(folder) for folder in folders)
    packed = f"[{file.packed}]" if file.packed else ""
    raise DatasetError(f"data set {name}: no {file.name}{packed} in {looked}; {advice}")


def _checked(path: Path, file: DataFile) -> bytes:
    """Returns the unpacked content of a file whose md5 is the published one."""
    content = unpacked(path, path.read_bytes())
    # The archive may have been packed again; what counts is the content.
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.md5:
        raise DatasetError(
            f"{path}: md5 of the content is {found}, published is {file.md5}; "
            "the file is damaged or of another data set"
        )
    return content


def _download(place: Place, file: DataFile) -> Path:
    name = place.set_name
    if not place.mirrors:
        raise DatasetError(
            f"data set {name} cannot be fetched; set data_dir (or "
            f"{ENVIRONMENT_VARIABLE}) to the folder that holds {file.name}"
        )
    try:
        import pooch  # An optional extra, needed by this path alone.
    except ImportError as error:
        raise DatasetError(
            f'downloading {name} needs pooch: pip install "pes-cluster[data]"'
        ) from error
    folder = Path(pooch.os_cache("pes_cluster")) / name
    packed, failures = f"{file.name}{file.packed}", []
    for mirror in place.mirrors:
        url = f"{mirror}{packed}"
        try:
            known_hash = f"md5:{file.md5_packed or file.md5}"
            path = pooch.retrieve(url, known_hash, packed, folder)
        # requests' errors are OSErrors; pooch reports a wrong checksum by a ValueError.
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {type(error).__name__}")
        else:
            return Path(path)
    raise DatasetError(f"data set {name} could not be fetched ({'; '.join(failures)})")
