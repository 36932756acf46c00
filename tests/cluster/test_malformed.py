"""A thousand malformed checkpoints: each refused by file name, none loaded."""

import collections
import io
import json
import pathlib
import random
import shutil
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import Checkpoint, CheckpointStore, check_fit
from pes_cluster.cluster.manifest import MANIFEST
from pes_cluster.cluster.storage import CheckpointError

from .scripted import OPTIMIZER, drive, local, replace_part, reseal, work

COUNT = 1000
Damage = Callable[[random.Random, pathlib.Path, pathlib.Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Checkpoints at 5 and 10 of a run over two shards."""
    folder = tmp_path_factory.mktemp("checkpoints")
    assert drive(local(shards=2), folder, outer_steps=10)[0].status == "finished"
    return folder


@pytest.fixture(scope="module")
def check() -> Callable[[Checkpoint], None]:
    """What the driver asks of a checkpoint that is whole."""
    driver = outer.start(OPTIMIZER, work().initial_theta())
    block = work().block()
    return lambda checkpoint: check_fit(checkpoint, driver, block)


# Damage to any file, which no hash can match; `other` is the checkpoint before.


def cut_short(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def empty(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    path.write_bytes(b"")


def longer(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 99)))


def bits_flipped(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    for place in rng.sample(range(len(data)), rng.randint(1, 8)):
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def a_hole(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    """Zeros where a crashed host had not written yet."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) - 1)
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)


def noise(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    path.write_bytes(rng.randbytes(len(path.read_bytes())))


def a_directory(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "file").write_bytes(b"")


def a_loop(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def of_before(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    """The file of the same kind of the checkpoint before."""
    kind = path.name.rpartition("_")[0] or path.name
    shutil.copyfile(next(other.glob(f"{kind}*")), path)


def swapped(rng: random.Random, path: pathlib.Path, other: pathlib.Path) -> None:
    """Another file of the same checkpoint in this one's place."""
    names = [p for p in sorted(path.parent.iterdir()) if p != path]
    shutil.copyfile(rng.choice(names), path)


# Damage to a manifest that is whole by its own hash: another program wrote it.


def another_version(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    reseal(path, schema=rng.choice([0, 1, 3, 99, "2", None, [], True]))


def odd_values(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    names = ["outer_step", "totals", "driver", "parts", "num_particles", "records"]
    odd: list[Any] = [-1, 1.5, "x", [], {}, [1], [{}], True, 1e300, {"name": "x"}]
    name, value = rng.choice(names), rng.choice(odd)
    legal = {"totals": {}, "records": []}
    reseal(path, **{name: "x" if legal.get(name, 0) == value else value})


def not_json(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    deep = "[" * 100_000
    texts = [deep, "null", "[]", "{}", '"', "NaN", "\ufeff{}", "1" * 5000, "{" * 99]
    path.write_text(rng.choice(texts))


def without_a_key(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    fields = json.loads(path.read_text())
    del fields[rng.choice(list(fields))]
    path.write_text(json.dumps(fields, indent=1))


def odd_parts(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    parts = json.loads(path.read_text())["parts"]
    key = rng.choice(["name", "sha256", "size", "blocks"])
    odd: list[Any] = ["../x", "", ".x", -5, 2**70, None, "0" * 64, [0, 0], [-1], [7]]
    rng.choice(parts)[key] = rng.choice(odd)
    reseal(path, parts=parts)


def reindented(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    """The same values; but not the bytes that were written."""
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields, indent=rng.choice([None, 0, 2, 4])))


# Damage to a part that the manifest's hash agrees with.


def other_leaves(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    arrays = dict(np.load(path))
    name = rng.choice(sorted(arrays))
    leaf = arrays[name]
    change: Callable[[], Any] = rng.choice(
        [
            lambda: arrays.pop(name),
            lambda: arrays.update({f"{name}x": leaf}),
            lambda: arrays.update({"9/.index": leaf}),
            lambda: arrays.update({name: np.zeros(leaf.shape, complex)}),
            lambda: arrays.update({name: leaf[None]}),
            lambda: arrays.update({name: np.array("text")}),
            lambda: arrays.update({name: np.array([{}], dtype=object)}),
            lambda: arrays.clear(),
        ]
    )
    change()
    replace_part(path, arrays)


def odd_archive(rng: random.Random, path: pathlib.Path, _: pathlib.Path) -> None:
    headers = [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00v\x00",
        b"not an array",
        _array("{'descr': '<f4', 'fortran_order': False, 'shape': (10**15,), }"),
        _array("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        _array("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        _array("{'descr': 'nothing', 'fortran_order': False, 'shape': (1,), }"),
        _array("{'descr': " + "(" * 2000),
        _array("__import__('os').abort()"),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("0/.memory.npy", "noise"):
            archive.writestr(name, rng.choice(headers))
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.3:  # Said to be encrypted, or packed in an unknown way.
        central = data.rindex(b"PK\x01\x02")
        data[central + rng.choice([8, 10])] = rng.choice([1, 77])
    replace_part(path, bytes(data))


def _array(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


ANY: list[Damage] = [
    cut_short,
    empty,
    longer,
    bits_flipped,
    a_hole,
    noise,
    a_directory,
    a_loop,
    of_before,
    swapped,
]
OF_MANIFESTS: list[Damage] = [
    another_version,
    odd_values,
    not_json,
    without_a_key,
    odd_parts,
    reindented,
]
OF_PARTS: list[Damage] = [other_leaves, odd_archive]


def damaged(
    rng: random.Random, folder: pathlib.Path
) -> tuple[pathlib.Path, str, list[str]]:
    """Damages one file; returns it, how, and what files may be named."""
    path = rng.choice(sorted((folder / "step_00000010").iterdir()))
    own = OF_MANIFESTS if path.name == MANIFEST else OF_PARTS
    damage = rng.choice(ANY + own + own)
    names = [path.name]
    if damage in (of_before, odd_parts) and path.name == MANIFEST:
        # It may name parts that are not there, or not what it says of them.
        names += [p.name for p in path.parent.iterdir()] + ["cannot be read", MANIFEST]
    before = path.read_bytes()
    damage(rng, path, folder / "step_00000005")
    if path.is_file() and path.read_bytes() == before:
        bits_flipped(rng, path, path)
        return path, "bits_flipped", [path.name]
    return path, damage.__name__, names


def test_a_thousand_malformed_checkpoints_are_refused(
    whole: pathlib.Path, tmp_path: pathlib.Path, check: Callable[[Checkpoint], None]
) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for number in range(COUNT):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        path, how, names = damaged(random.Random(number), folder)
        found, refused = CheckpointStore(str(folder)).latest(check)
        case = f"{number}: {path.name} {how}: {refused}"
        assert found is not None and found.manifest.outer_step == 5, case
        (line,) = refused
        assert "\n" not in line and len(line) < 600, case
        assert any(name in line for name in names), case
        assert str(folder / "step_00000010") in line, case
        seen[how] += 1
        shutil.rmtree(folder)
    assert set(seen) == {damage.__name__ for damage in ANY + OF_MANIFESTS + OF_PARTS}


def test_a_part_that_its_hash_agrees_with_never_crashes_the_loader(
    whole: pathlib.Path, tmp_path: pathlib.Path, check: Callable[[Checkpoint], None]
) -> None:
    """Refused where it cannot be read; what can be read has the run's shapes."""
    for number in range(300):
        rng = random.Random(number)
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        path = rng.choice(sorted((folder / "step_00000010").glob("*.npz")))
        rng.choice([cut_short, bits_flipped, a_hole, longer])(rng, path, path)
        replace_part(path, path.read_bytes())
        store = CheckpointStore(str(folder))
        try:
            check(store.read(10))
        except CheckpointError as error:
            assert path.name in str(error) and "\n" not in str(error)
        shutil.rmtree(folder)
