"""The manifest: what makes a folder of parts a checkpoint.

It is read as strictly as it is written: its bytes must be exactly those that this
version would write for what they say, and they hold a hash of themselves. So no bit of
it can change unseen.
"""

import dataclasses
import hashlib
import json
from typing import Any

from pes_cluster.cluster.storage import CheckpointError

MANIFEST = "manifest.json"
SCHEMA = 2


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
        num_particles: Where the run has been scaled; None: the configuration's.
        records: Lines of metrics up to here that the disk had refused so far.
    """

    outer_step: int
    digest: str
    totals: dict[str, float]
    driver: Part
    parts: tuple[Part, ...]
    num_particles: int | None = None
    records: tuple[str, ...] = ()


def to_bytes(manifest: Manifest) -> bytes:
    """Returns the file, with the hash of all the rest of it at its head."""
    fields = {"schema": SCHEMA} | dataclasses.asdict(manifest)
    sealed = {"sha256": hashlib.sha256(_json(fields)).hexdigest()} | fields
    return _json(sealed)


def from_bytes(path: str, data: bytes) -> Manifest:
    """Returns what the file says; `path` is named where it is refused.

    Raises:
        CheckpointError: It is damaged, of another version, or no manifest at all.
    """
    try:
        fields = json.loads(data)
        if fields["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: has schema {fields['schema']!r}; this version reads {SCHEMA}"
            )
        manifest = _decoded(fields)
        if to_bytes(manifest) != data:
            raise ValueError("its hash differs")
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{path}: is damaged or no manifest ({line})") from None
    return manifest


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, indent=1, allow_nan=False).encode()


def _decoded(fields: dict[str, Any]) -> Manifest:
    particles = fields["num_particles"]
    return Manifest(
        outer_step=_count(fields["outer_step"]),
        digest=str(fields["digest"]),
        totals={str(name): float(n) for name, n in dict(fields["totals"]).items()},
        driver=_part(fields["driver"]),
        parts=tuple(_part(part) for part in fields["parts"]),
        num_particles=None if particles is None else _count(particles),
        records=tuple(str(line) for line in fields["records"]),
    )


def _part(fields: dict[str, Any]) -> Part:
    name = str(fields["name"])
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"part name {name!r}")
    blocks = tuple(_count(index) for index in fields["blocks"])
    return Part(name, str(fields["sha256"]), _count(fields["size"]), blocks)


def _count(value: Any) -> int:
    count = int(value)
    if count < 0:
        raise ValueError(f"{count} is negative")
    return count
