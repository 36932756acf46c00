"""Durable checkpoints: parts first, the manifest last.

```
checkpoints/step_00000200/shard_0_a1b2c3.npz   blocks of one shard, leaves by path
                          driver_a1b2c3.npz    theta and the optimiser's state
                          manifest.json        written last, by rename
```

A folder without a manifest is no checkpoint. The manifest names every part with its
size and hash, so a part that was cut short or overwritten is refused by name. Older
checkpoints are deleted only once a newer manifest stands.
"""

import dataclasses
import hashlib
import io
import json
import uuid
import zipfile
from typing import Any

import fsspec
import numpy as np

from pes_cluster.cluster.leaves import Arrays

SCHEMA = 1
MANIFEST = "manifest.json"


class CheckpointError(Exception):
    """A checkpoint that cannot be written or must not be read; one line with a file."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of a checkpoint.

    Attributes:
        name: Of the file, within the checkpoint's folder.
        sha256: Of its bytes.
        size: In bytes.
        blocks: Indices of the blocks that it holds; empty for the driver's part.
    """

    name: str
    sha256: str
    size: int
    blocks: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What makes a folder of parts a checkpoint.

    Attributes:
        outer_step: Updates done.
        digest: Of the configuration that determines the result.
        totals: Inner steps, wall seconds and the like, so far.
        driver: Theta and the optimiser's state.
        parts: The blocks.
        schema: Version of this layout.
    """

    outer_step: int
    digest: str
    totals: dict[str, float]
    driver: Part
    parts: tuple[Part, ...]
    schema: int = SCHEMA


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read whole: its manifest, the driver's leaves, the blocks."""

    manifest: Manifest
    driver: Arrays
    blocks: dict[int, Arrays]


def write_part(folder: str, name: str, groups: dict[int, Arrays] | Arrays) -> Part:
    """Writes named arrays, grouped by block or not, into one file of a checkpoint.

    Raises:
        CheckpointError: The file cannot be written.
    """
    flat: Arrays = {}
    blocks = []
    for key, value in groups.items():
        if isinstance(value, dict):
            blocks.append(int(key))
            flat |= {f"{key}/{leaf}": array for leaf, array in value.items()}
        else:
            flat[str(key)] = value
    buffer = io.BytesIO()
    np.savez(buffer, **flat)  # type: ignore[arg-type]
    data = buffer.getvalue()
    # A name of its own for every writing: nobody overwrites another incarnation's file.
    file = f"{name}_{uuid.uuid4().hex[:8]}.npz"
    _write(folder, file, data)
    digest = hashlib.sha256(data).hexdigest()
    return Part(file, digest, len(data), tuple(sorted(blocks)))


class CheckpointStore:
    """The checkpoints of one run, in a path or under any URL that fsspec knows."""

    def __init__(self, url: str, keep: int = 2) -> None:
        self.url, self.keep = url.rstrip("/"), keep

    def folder(self, outer_step: int) -> str:
        """Where the parts of a checkpoint at this step are to be written."""
        return f"{self.url}/step_{outer_step:08d}"

    def commit(self, manifest: Manifest) -> None:
        """Makes the parts a checkpoint, then deletes the ones that are too old.

        Raises:
            CheckpointError: A part is missing or cut short, or the manifest cannot be
                written.
        """
        folder = self.folder(manifest.outer_step)
        for part in (manifest.driver, *manifest.parts):
            _check_size(folder, part)
        text = json.dumps(dataclasses.asdict(manifest), indent=1)
        _write(folder, MANIFEST, text.encode())
        for step in self._steps()[: -self.keep]:
            files, root = _open_url(self.folder(step))
            # Without its manifest first, a half-deleted folder is no checkpoint.
            files.rm_file(f"{root}/{MANIFEST}")
            files.rm(root, recursive=True)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Returns the newest checkpoint that reads whole, and why newer ones do not."""
        refused = []
        for step in reversed(self._steps()):
            try:
                return self.read(step), refused
            except CheckpointError as error:
                refused.append(str(error))
        return None, refused

    def read(self, outer_step: int) -> Checkpoint:
        """Reads a checkpoint whole.

        Raises:
            CheckpointError: Naming the file that is missing, damaged or not understood.
        """
        folder = self.folder(outer_step)
        manifest = _parse_manifest(f"{folder}/{MANIFEST}", _read(folder, MANIFEST))
        blocks: dict[int, Arrays] = {}
        for part in manifest.parts:
            arrays = _read_part(folder, part)
            for index in part.blocks:
                prefix = f"{index}/"
                blocks[index] = {
                    name.removeprefix(prefix): array
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                }
        if not blocks or sorted(blocks) != list(range(len(blocks))):
            raise CheckpointError(f"{folder}/{MANIFEST}: names not every block")
        return Checkpoint(manifest, _read_part(folder, manifest.driver), blocks)

    def _steps(self) -> list[int]:
        """Steps of the folders that have a manifest, oldest first."""
        files, root = _open_url(self.url)
        try:
            names = files.ls(root, detail=False) if files.exists(root) else []
        except OSError as error:
            raise CheckpointError(f"{self.url}: cannot be listed ({error})") from None
        steps = []
        for name in names:
            number = name.rstrip("/").rpartition("/step_")[2]
            if number.isdigit() and files.exists(f"{name}/{MANIFEST}"):
                steps.append(int(number))
        return sorted(steps)


def _open_url(url: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise CheckpointError(f"{url}: {error}") from None


def _write(folder: str, name: str, data: bytes) -> None:
    """Writes a file whole or not at all: under another name first, then renamed."""
    files, root = _open_url(folder)
    try:
        files.makedirs(root, exist_ok=True)
        scratch = f"{root}/.{name}.{uuid.uuid4().hex[:8]}"
        files.pipe_file(scratch, data)
        files.mv(scratch, f"{root}/{name}")
    except OSError as error:
        raise CheckpointError(f"{folder}/{name}: cannot be written ({error})") from None


def _read(folder: str, name: str) -> bytes:
    files, root = _open_url(folder)
    try:
        return files.cat_file(f"{root}/{name}")
    except OSError as error:
        raise CheckpointError(f"{folder}/{name}: cannot be read ({error})") from None


def _check_size(folder: str, part: Part) -> None:
    files, root = _open_url(folder)
    path = f"{folder}/{part.name}"
    try:
        size = files.size(f"{root}/{part.name}")
    except OSError as error:
        raise CheckpointError(
            f"{path}: is not there for the driver ({error}); shards on other hosts "
            "need a run directory that all hosts share"
        ) from None
    if size != part.size:
        raise CheckpointError(f"{path}: has {size} bytes, not {part.size}")


def _read_part(folder: str, part: Part) -> Arrays:
    path = f"{folder}/{part.name}"
    data = _read(folder, part.name)
    if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
        raise CheckpointError(f"{path}: is damaged (size or hash differs)")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{path}: is not a part ({error})") from None


def _parse_manifest(path: str, data: bytes) -> Manifest:
    try:
        fields = json.loads(data)
        if fields.get("schema") != SCHEMA:
            raise CheckpointError(
                f"{path}: has schema {fields.get('schema')!r}; this version reads "
                f"{SCHEMA}"
            )
        parts = tuple(_parse_part(part) for part in fields["parts"])
        return Manifest(
            outer_step=int(fields["outer_step"]),
            digest=str(fields["digest"]),
            totals={str(k): float(v) for k, v in fields["totals"].items()},
            driver=_parse_part(fields["driver"]),
            parts=parts,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is not a manifest ({error})") from None


def _parse_part(fields: dict[str, Any]) -> Part:
    name = str(fields["name"])
    if "/" in name or name.startswith("."):
        raise ValueError(f"part name {name!r}")
    blocks = tuple(int(index) for index in fields["blocks"])
    return Part(name, str(fields["sha256"]), int(fields["size"]), blocks)
