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
import logging
import re
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pes_cluster.cluster import manifest as manifests
from pes_cluster.cluster import storage
from pes_cluster.cluster.leaves import Arrays, LeavesError, from_arrays
from pes_cluster.cluster.manifest import MANIFEST, Manifest, Part
from pes_cluster.cluster.storage import CheckpointError, StoreError

_log = logging.getLogger(__name__)

# What numpy and zipfile raise for bytes that are no archive of plain arrays.
_NO_ARCHIVE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class OtherRunError(Exception):
    """A store that holds the checkpoints of another run; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read whole.

    Attributes:
        manifest: What it says of itself.
        folder: Where it lies.
        driver: The driver's leaves.
        blocks: The leaves of every block, by index.
    """

    manifest: Manifest
    folder: str
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
    storage.write(folder, file, data)
    digest = hashlib.sha256(data).hexdigest()
    return Part(file, digest, len(data), tuple(sorted(blocks)))


def check_fit(checkpoint: Checkpoint, driver: Any, block: Any) -> None:
    """Refuses leaves of other names, shapes or types than those of two examples.

    Args:
        checkpoint: As it was read.
        driver: An example of the driver's state.
        block: An example of any block; None: blocks are not looked at.

    Raises:
        CheckpointError: Naming the part.
    """
    manifest = checkpoint.manifest
    groups = [(manifest.driver, driver, checkpoint.driver)]
    for part in manifest.parts if block is not None else ():
        groups += [(part, block, checkpoint.blocks[index]) for index in part.blocks]
    for part, example, arrays in groups:
        try:
            from_arrays(example, arrays)
        except LeavesError as error:
            path = f"{checkpoint.folder}/{part.name}"
            raise CheckpointError(f"{path}: cannot be continued: {error}") from None


class CheckpointStore:
    """The checkpoints of one run, in a path or under any URL that fsspec knows.

    Raises:
        CheckpointError: fsspec does not know it.
    """

    def __init__(self, url: str, keep: int = 2) -> None:
        storage.check(url)
        self.url, self.keep = url.rstrip("/"), keep
        self._refused: set[int] = set()

    def folder(self, outer_step: int) -> str:
        """Where the parts of a checkpoint at this step are to be written."""
        return f"{self.url}/step_{outer_step:08d}"

    def probe(self) -> None:
        """Raises CheckpointError where no checkpoint can be written."""
        storage.probe(self.url)

    def commit(self, manifest: Manifest) -> None:
        """Makes the parts a checkpoint, then deletes what it replaces.

        Raises:
            CheckpointError: A part is missing or cut short, or the manifest cannot be
                written.
        """
        step = manifest.outer_step
        for part in (manifest.driver, *manifest.parts):
            _check_size(self.folder(step), part)
        storage.write(self.folder(step), MANIFEST, manifests.to_bytes(manifest))
        self._refused.discard(step)
        try:
            self._delete_old(step)
        except CheckpointError as error:
            _log.warning("an old checkpoint stays: %s", error)  # The new one stands.

    def discard(self, outer_step: int) -> None:
        """Deletes the parts of a checkpoint that came to nothing, as far as it can."""
        try:
            if MANIFEST not in storage.names(self.folder(outer_step)):
                storage.remove(self.folder(outer_step))
        except CheckpointError as error:
            _log.debug("%s", error)

    def latest(
        self, check: Callable[[Checkpoint], None] = lambda checkpoint: None
    ) -> tuple[Checkpoint | None, list[str]]:
        """Returns the newest checkpoint that reads whole, and why newer ones do not.

        Where there is none yet, one can at least be written.

        Args:
            check: Raises CheckpointError for one that is whole but cannot be used.

        Raises:
            CheckpointError: It cannot be known which there are, or none is left to use
                and it may be only the store that failed.
            OtherRunError: Where `check` says so.
        """
        refused: list[CheckpointError] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.read(step)
                check(checkpoint)
            except CheckpointError as error:
                refused.append(error)
                self._refused.add(step)
            else:
                return checkpoint, [str(error) for error in refused]
        for error in refused:
            if isinstance(error, StoreError):
                raise error
        if not refused:
            self.probe()  # Before hours are spent that nothing can save.
        return None, [str(error) for error in refused]

    def read(self, outer_step: int) -> Checkpoint:
        """Reads a checkpoint whole.

        Raises:
            CheckpointError: Naming the file that is missing, damaged or not understood.
        """
        folder = self.folder(outer_step)
        path = f"{folder}/{MANIFEST}"
        manifest = manifests.from_bytes(path, storage.read(folder, MANIFEST))
        if manifest.outer_step != outer_step:
            raise CheckpointError(f"{path}: is of outer step {manifest.outer_step}")
        named = sorted(index for part in manifest.parts for index in part.blocks)
        if not named or named != list(range(len(named))):
            raise CheckpointError(f"{path}: names not every block once")
        blocks: dict[int, Arrays] = {}
        for part in manifest.parts:
            blocks |= _by_block(f"{folder}/{part.name}", part, _read(folder, part))
        return Checkpoint(manifest, folder, _read(folder, manifest.driver), blocks)

    def steps(self) -> list[int]:
        """Steps of the folders that have a manifest, oldest first; raises as `latest`.

        Whether they can be read is not known before they are.
        """
        return [
            step
            for step in self._folders()
            if MANIFEST in storage.names(self.folder(step))
        ]

    def _folders(self) -> list[int]:
        names = storage.names(self.url)
        return sorted(
            int(name.removeprefix("step_"))
            for name in names
            if re.fullmatch("step_([0-9]{8}|[1-9][0-9]{8,17})", name)
        )

    def _delete_old(self, newest: int) -> None:
        """Deletes beyond `keep`, what was refused, and parts that lack a manifest.

        Never a later one: it would belong to a driver that has taken over from us.
        """
        standing = [step for step in self.steps() if step not in self._refused]
        kept = [step for step in standing if step <= newest][-self.keep :]
        for step in self._folders():
            if step in self._refused or (step < newest and step not in kept):
                # Without its manifest first, a half-deleted folder is no checkpoint.
                storage.remove(self.folder(step), MANIFEST)
                storage.remove(self.folder(step))
                self._refused.discard(step)


def _check_size(folder: str, part: Part) -> None:
    try:
        size = storage.size(folder, part.name)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; shards on other hosts need a checkpoint.path that all hosts "
            "share"
        ) from None
    if size != part.size:
        path = f"{folder}/{part.name}"
        raise CheckpointError(f"{path}: has {size} bytes, not {part.size}")


def _read(folder: str, part: Part) -> Arrays:
    path, data = f"{folder}/{part.name}", storage.read(folder, part.name)
    if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
        raise CheckpointError(f"{path}: is damaged (size or hash differs)")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _NO_ARCHIVE as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{path}: is not a part ({line})") from None


def _by_block(path: str, part: Part, arrays: Arrays) -> dict[int, Arrays]:
    """Groups a part's arrays by the block that their names begin with."""
    blocks: dict[int, Arrays] = {index: {} for index in part.blocks}
    for name, array in arrays.items():
        index, slash, leaf = name.partition("/")
        if not (slash and index.isdecimal() and int(index) in blocks):
            raise CheckpointError(f"{path}: is not a part (array {name!r})")
        blocks[int(index)][leaf] = array
    return blocks
