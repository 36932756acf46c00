"""Checkpoints: what a damaged one says, which one is used, what is deleted when."""

import io
import json
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pes_cluster.cluster import checkpoint
from pes_cluster.cluster.checkpoint import (
    MANIFEST,
    CheckpointError,
    CheckpointStore,
    Manifest,
    write_part,
)
from pes_cluster.core.trees import sha256

from .scripted import drive, local


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


DAMAGE = {
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "other bytes": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize(
    "file, damage",
    [(file, damage) for file in ("blocks_0", "driver") for damage in sorted(DAMAGE)]
    # One bit of a manifest may be white space.
    + [("manifest", damage) for damage in ("cut short", "empty", "other bytes")],
)
def test_a_damaged_file_is_refused_by_name_and_the_one_before_is_used(
    copy: pathlib.Path, file: str, damage: str
) -> None:
    (path,) = (copy / "step_00000010").glob(f"{file}*")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    store = CheckpointStore(str(copy))
    with pytest.raises(CheckpointError, match=path.name) as raised:
        store.read(10)
    assert "\n" not in str(raised.value)
    found, refused = store.latest()
    assert found is not None and found.manifest.outer_step == 5
    assert len(refused) == 1 and path.name in refused[0]


def test_a_missing_part_is_refused_by_name(copy: pathlib.Path) -> None:
    (path,) = (copy / "step_00000010").glob("blocks_2*")
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
    resumed, rest = drive(local(), copy, resume=True)
    assert rest[0].outer_step == 6 and sha256(resumed.theta) == sha256(whole.theta)


def test_no_pickle_is_read(copy: pathlib.Path) -> None:
    """A part of objects, in a manifest that is consistent with it."""
    folder = copy / "step_00000010"
    buffer = io.BytesIO()
    np.savez(buffer, **{"0/.memory": np.array([print], dtype=object)})
    (path,) = folder.glob("blocks_0*")
    path.write_bytes(buffer.getvalue())
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["parts"][0] |= {
        "size": len(buffer.getvalue()),
        "sha256": checkpoint.hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=f"{path.name}.*not a part"):
        CheckpointStore(str(copy)).read(10)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"schema": 2}, "schema 2"),
        ({"parts": []}, "names not every block"),
        ({"outer_step": "many"}, "not a manifest"),
        ({"driver": {"name": "../../etc/passwd"}}, "not a manifest"),
        ({"totals": None}, "not a manifest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    copy: pathlib.Path, change: dict[str, object], said: str
) -> None:
    path = copy / "step_00000010" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    store = CheckpointStore(str(copy))
    with pytest.raises(CheckpointError, match=f"{MANIFEST}.*{said}"):
        store.read(10)


def test_a_manifest_that_leaves_out_a_part_is_refused(copy: pathlib.Path) -> None:
    path = copy / "step_00000010" / MANIFEST
    fields = json.loads(path.read_text())
    del fields["parts"][0]
    path.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="names not every block"):
        CheckpointStore(str(copy)).read(10)


def test_a_manifest_without_the_last_part_does_not_fit_the_run(
    copy: pathlib.Path,
) -> None:
    path = copy / "step_00000010" / MANIFEST
    fields = json.loads(path.read_text())
    del fields["parts"][1]
    path.write_text(json.dumps(fields))
    outcome, _ = drive(local(), copy, resume=True)
    assert outcome.status == "failed" and outcome.error is not None
    assert "step_00000010" in outcome.error and "2 blocks, not" in outcome.error


@hypothesis.settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_generated_damage_is_refused_and_never_crashes(
    written: pathlib.Path, tmp_path: pathlib.Path, data: st.DataObject
) -> None:
    source = written / "step_00000010"
    folder = tmp_path / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder / source.name)
    names = sorted(path.name for path in source.glob("*.npz"))
    path = folder / source.name / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=8)))
    hypothesis.assume(path.read_bytes() != whole)
    with pytest.raises(CheckpointError, match=path.name):
        CheckpointStore(str(folder)).read(10)


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
