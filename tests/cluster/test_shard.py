"""A shard refuses what is not its next step, and replays to the same bits."""

import copy
import pathlib

import jax
import numpy as np
import pytest

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.leaves import LeavesError, from_arrays, to_arrays
from pes_cluster.cluster.shard import FencedError, Shard

from .scripted import Scripted, work

BOTH = [1, 3]


def fresh(method: Scripted | None = None) -> Shard:
    shard = Shard(work(method))
    shard.adopt({1: None, 3: None}, BOTH, 0)
    return shard


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_step_out_of_order_is_refused_and_changes_nothing(step: int) -> None:
    shard, theta = fresh(), work().initial_theta()
    shard.advance(0, theta, BOTH)
    before = to_arrays_of(shard)
    with pytest.raises(FencedError, match=f"next window is 1, was .* window {step}"):
        shard.advance(step, theta, BOTH)
    assert to_arrays_of(shard) == before
    assert sorted(shard.advance(1, theta, BOTH)) == BOTH


def test_every_block_is_fenced_by_itself() -> None:
    shard, theta = fresh(), work().initial_theta()
    shard.advance(0, theta, [3])
    with pytest.raises(FencedError, match="block 3"):
        shard.advance(0, theta, BOTH[::-1])
    assert sorted(shard.advance(0, theta, [1])) == [1]
    assert sorted(shard.advance(1, theta, BOTH)) == BOTH


def test_a_block_that_was_released_is_refused() -> None:
    shard = fresh()
    shard.release([1])
    with pytest.raises(FencedError, match="block 1, whose next window is None"):
        shard.advance(0, work().initial_theta(), BOTH)
    assert list(shard.snapshot([3])) == [3]


@pytest.mark.parametrize("shaped", [False, True])
def test_a_snapshot_and_a_replay_give_the_same_bits(shaped: bool) -> None:
    method = Scripted(shaped=shaped)
    thetas = [
        jax.tree.map(lambda leaf, k=k: np.float32(leaf + k), work().initial_theta())
        for k in range(5)
    ]
    shard = fresh(method)
    shard.replay(BOTH, list(enumerate(thetas[:2])))
    snapshot = copy.deepcopy(shard.snapshot(BOTH))
    ring = [(step, thetas[step]) for step in (2, 3, 4)]
    shard.replay(BOTH, ring)
    other = Shard(work(method))
    assert other.adopt(snapshot, BOTH, 2) == {1: 2, 3: 2}
    assert to_arrays_of(other) != to_arrays_of(shard)
    other.replay(BOTH, ring)
    assert to_arrays_of(other) == to_arrays_of(shard)
    third = Shard(work(method))
    assert third.adopt(snapshot, BOTH, 2, ring) == {1: 5, 3: 5}
    assert to_arrays_of(third) == to_arrays_of(shard)


def test_a_probe_reports_and_leaves_the_blocks_as_they_were() -> None:
    shard, theta = fresh(), work().initial_theta()
    other = jax.tree.map(lambda leaf: np.float32(leaf + 1), theta)
    shard.advance(0, theta, BOTH)
    before = to_arrays_of(shard)
    probed = shard.probe(1, other, BOTH)
    assert to_arrays_of(shard) == before
    real = shard.advance(1, other, BOTH)
    assert np.asarray(probed[3].gradient["w"]).tobytes() == (
        np.asarray(real[3].gradient["w"]).tobytes()
    )


def test_two_shards_never_write_the_same_file(tmp_path: pathlib.Path) -> None:
    parts = [fresh().save(str(tmp_path), "blocks_1_3", BOTH) for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 2
    assert [list(part) for part in parts] == [[1], [1]]


def test_evaluation_is_keyed_by_step_and_episode_alone() -> None:
    shard, theta = fresh(), work().initial_theta()
    both = shard.evaluate(theta, 4, [0, 1])
    assert both[0] != both[1]
    assert shard.evaluate(theta, 4, [1]) == {1: both[1]}
    assert shard.evaluate(theta, 5, [1])[1] != both[1]


def test_leaves_that_do_not_fit_are_refused_by_name() -> None:
    example = {"a": np.zeros(3, np.float32), "b": np.int32(0)}
    arrays = to_arrays(example)
    with pytest.raises(LeavesError, match=r"\['a'\]"):
        from_arrays(example, {"['b']": arrays["['b']"]})
    with pytest.raises(LeavesError, match=r"\['a'\] has shape \(2,\)"):
        from_arrays(example, arrays | {"['a']": np.zeros(2, np.float32)})
    with pytest.raises(LeavesError, match="float64, not"):
        from_arrays(example, arrays | {"['a']": np.zeros(3)})


@pytest.mark.parametrize("blocks, shards", [(5, 1), (5, 2), (7, 7), (3, 8), (100, 9)])
def test_every_block_has_one_owner_and_shares_are_even(
    blocks: int, shards: int
) -> None:
    owned = assign(blocks, shards)
    assert [index for part in owned for index in part] == list(range(blocks))
    sizes = [len(part) for part in owned]
    assert len(sizes) == min(blocks, shards) and max(sizes) - min(sizes) <= 1


def to_arrays_of(shard: Shard) -> dict[int, dict[str, bytes]]:
    return {
        index: {name: leaf.tobytes() for name, leaf in block.items()}
        for index, block in shard.snapshot(BOTH).items()
    }
