"""Checkpoints: what a damaged one says, which one is used, what is deleted when."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from pes_cluster.cluster.checkpoint import CheckpointStore, write_part
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.manifest import MANIFEST, Manifest
from pes_cluster.cluster.storage import CheckpointError
from pes_cluster.core.trees import sha256

from .scripted import drive, local, replace_part, reseal


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Checkpoints at 5 and 10 of a run over two shards."""
    folder = tmp_path_factory.mktemp("checkpoints")
    outcome, _ = drive(local(shards=2), folder, outer_steps=10)
    assert outcome.status == "finished"
    return folder


@pytest.fixture
def copy(written: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(written, tmp_path / "copy"))


def test_a_checkpoint_holds_every_block_by_path(written: pathlib.Path) -> None:
    found, refused = CheckpointStore(str(written)).latest()
    assert found is not None and refused == []
    assert found.manifest.outer_step == 10 and found.manifest.digest == "scripted"
    assert [part.blocks for part in found.manifest.parts] == [(0, 1), (2, 3, 4)]
    assert sorted(found.blocks) == [0, 1, 2, 3, 4]
    assert found.blocks[3][".memory"].shape == (3,)
    assert found.blocks[3][".key"].dtype == np.uint32
    assert ".theta['w']" in found.driver


FILES = ("first part", "driver", "manifest")


def named(folder: pathlib.Path, file: str) -> pathlib.Path:
    """The path of a file of a checkpoint, whatever it is called."""
    fields = json.loads((folder / MANIFEST).read_text())
    parts = {"first part": fields["parts"][0], "last part": fields["parts"][-1]}
    known = parts | {"driver": fields["driver"], "manifest": {"name": MANIFEST}}
    return folder / known[file]["name"]


DAMAGE = {
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "other bytes": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize(
    "file, damage",
    [(file, damage) for file in FILES for damage in sorted(DAMAGE)],
)
def test_a_damaged_file_is_refused_by_name_and_the_one_before_is_used(
    copy: pathlib.Path, file: str, damage: str
) -> None:
    path = named(copy / "step_00000010", file)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    store = CheckpointStore(str(copy))
    with pytest.raises(CheckpointError, match=path.name) as raised:
        store.read(10)
    assert "\n" not in str(raised.value)
    found, refused = store.latest()
    assert found is not None and found.manifest.outer_step == 5
    assert len(refused) == 1 and path.name in refused[0]


def test_a_missing_part_is_refused_by_name(copy: pathlib.Path) -> None:
    path = named(copy / "step_00000010", "last part")
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        CheckpointStore(str(copy)).read(10)


def test_a_folder_without_a_manifest_is_no_checkpoint(copy: pathlib.Path) -> None:
    (copy / "step_00000010" / MANIFEST).unlink()
    found, refused = CheckpointStore(str(copy)).latest()
    assert found is not None and found.manifest.outer_step == 5 and refused == []


def test_the_run_goes_on_from_the_older_one_to_the_same_bits(
    copy: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    whole, _ = drive(local(), tmp_path / "whole")
    (path,) = (copy / "step_00000010").glob("driver*")
    path.write_bytes(b"")
    resumed, rest = drive(local(), copy)
    assert rest[0].outer_step == 6 and sha256(resumed.theta) == sha256(whole.theta)


class Opened:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.path,)


def test_no_pickle_is_read(copy: pathlib.Path) -> None:
    """A part of objects, in a manifest that is consistent with it."""
    trace = copy / "trace"
    folder = copy / "step_00000010"
    path = named(folder, "first part")
    replace_part(path, {"0/.memory": np.array([Opened(trace)], dtype=object)})
    with pytest.raises(CheckpointError, match=f"{path.name}.*not a part"):
        CheckpointStore(str(copy)).read(10)
    assert not trace.exists()
    with np.load(path, allow_pickle=True) as file:
        file["0/.memory"]
    assert trace.exists()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"schema": 1}, "has schema 1; this version reads 2"),
        ({"parts": []}, "names not every block"),
        ({"outer_step": "many"}, "no manifest"),
        ({"outer_step": 5}, "is of outer step 5"),
        ({"outer_step": 10.0}, "no manifest"),
        ({"driver": {"name": "../../etc/passwd"}}, "no manifest"),
        ({"totals": None}, "no manifest"),
        ({"more": 1}, "no manifest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    copy: pathlib.Path, change: dict[str, Any], said: str
) -> None:
    reseal(copy / "step_00000010" / MANIFEST, **change)
    store = CheckpointStore(str(copy))
    with pytest.raises(CheckpointError, match=f"{MANIFEST}.*{said}"):
        store.read(10)


def test_a_manifest_that_leaves_out_a_part_is_refused(copy: pathlib.Path) -> None:
    path = copy / "step_00000010" / MANIFEST
    first, second = json.loads(path.read_text())["parts"]
    for parts in ([second], [first, first, second]):
        reseal(path, parts=parts)
        with pytest.raises(CheckpointError, match="names not every block once"):
            CheckpointStore(str(copy)).read(10)


def test_a_manifest_without_the_last_part_does_not_fit_the_run(
    copy: pathlib.Path,
) -> None:
    path = copy / "step_00000010" / MANIFEST
    reseal(path, parts=json.loads(path.read_text())["parts"][:1])
    outcome, _ = drive(local(), copy)
    assert outcome.status == "failed" and outcome.error is not None
    assert str(path) in outcome.error and "2 blocks, not" in outcome.error


LEAVES = {
    "shape": lambda leaf: leaf[:2],
    "type": lambda leaf: leaf.astype(np.float64),
}


@pytest.mark.parametrize("file, leaf", [("last part", "3/.memory"), ("driver", None)])
@pytest.mark.parametrize("change", LEAVES)
def test_leaves_of_another_shape_or_type_are_refused_by_file(
    copy: pathlib.Path, file: str, leaf: str | None, change: str
) -> None:
    """Whole, but not this configuration's: the checkpoint before it is used."""
    path = named(copy / "step_00000010", file)
    arrays = dict(np.load(path))
    name = leaf or next(name for name in arrays if arrays[name].ndim == 1)
    replace_part(path, arrays | {name: LEAVES[change](arrays[name])})
    events: list[Event] = []
    outcome, records = drive(local(), copy, on_event=events.append)
    assert outcome.status == "finished" and records[0].outer_step == 6
    found = CheckpointStore(str(copy)).read(12)
    assert found.manifest.outer_step == 12


def test_another_runs_checkpoints_are_neither_used_nor_deleted(
    copy: pathlib.Path,
) -> None:
    outcome, _ = drive(local(), copy, digest="another")
    assert (outcome.status, outcome.resumable) == ("failed", False)
    assert outcome.error is not None and "step_00000010: is of another" in outcome.error
    assert CheckpointStore(str(copy)).steps() == [5, 10]


def test_older_checkpoints_go_once_a_newer_one_stands(tmp_path: pathlib.Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=2)
    for step in (3, 6, 9, 12):
        folder = store.folder(step)
        part = write_part(folder, "shard_0", {0: {".a": np.arange(step)}})
        driver = write_part(folder, "driver", {"theta": np.float32(step)})
        before = sorted(path.name for path in tmp_path.glob("*/" + MANIFEST))
        store.commit(Manifest(step, "d", {"inner_steps": 1.0}, driver, (part,)))
        assert len(before) <= 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step_00000009", "step_00000012"]
    # Nothing half-written is left lying about.
    assert not list(tmp_path.glob("*/.*"))


def test_a_part_that_did_not_arrive_is_not_committed(tmp_path: pathlib.Path) -> None:
    store = CheckpointStore(str(tmp_path))
    part = write_part(store.folder(3), "shard_0", {0: {".a": np.arange(3)}})
    driver = write_part(store.folder(3), "driver", {"theta": np.float32(1)})
    (tmp_path / "step_00000003" / part.name).unlink()
    with pytest.raises(CheckpointError, match=part.name):
        store.commit(Manifest(3, "d", {}, driver, (part,)))
    assert store.latest() == (None, [])


def test_nobody_overwrites_anothers_part(tmp_path: pathlib.Path) -> None:
    first = write_part(str(tmp_path), "shard_0", {0: {".a": np.arange(3)}})
    second = write_part(str(tmp_path), "shard_0", {0: {".a": np.arange(3)}})
    assert first.name != second.name and first.sha256 == second.sha256


def test_any_url_that_fsspec_knows_will_do() -> None:
    store = CheckpointStore("memory://run/checkpoints")
    part = write_part(store.folder(1), "shard_0", {0: {".a": np.arange(3)}})
    driver = write_part(store.folder(1), "driver", {"theta": np.float32(1)})
    store.commit(Manifest(1, "d", {}, driver, (part,)))
    found, _ = store.latest()
    assert found is not None
    np.testing.assert_array_equal(found.blocks[0][".a"], np.arange(3))


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="nowhere://"):
        CheckpointStore("nowhere://run").latest()


def test_a_path_that_cannot_be_written_ends_the_run(tmp_path: pathlib.Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    outcome, _ = drive(local(), blocked / "checkpoints", outer_steps=2)
    assert outcome.status == "failed" and outcome.error is not None
    assert str(blocked) in outcome.error and "\n" not in outcome.error
