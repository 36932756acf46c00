"""A shard refuses what is not its next step, and replays to the same bits."""

import jax
import numpy as np
import pytest

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.leaves import LeavesError, from_arrays, to_arrays
from pes_cluster.cluster.shard import FencedError, Shard

from .scripted import Scripted, work


def fresh(method: Scripted | None = None) -> Shard:
    shard = Shard(work(method))
    shard.adopt({1: None, 3: None}, 0)
    return shard


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_step_out_of_order_is_refused_and_changes_nothing(step: int) -> None:
    shard, theta = fresh(), work().initial_theta()
    shard.advance(0, theta)
    before = to_arrays_of(shard)
    with pytest.raises(FencedError, match=f"next step is 1 .* step {step}"):
        shard.advance(step, theta)
    assert to_arrays_of(shard) == before
    assert sorted(shard.advance(1, theta)) == [1, 3]


@pytest.mark.parametrize("shaped", [False, True])
def test_a_snapshot_and_a_replay_give_the_same_bits(shaped: bool) -> None:
    method = Scripted(shaped=shaped)
    thetas = [
        jax.tree.map(lambda leaf, k=k: np.float32(leaf + k), work().initial_theta())
        for k in range(5)
    ]
    shard = fresh(method)
    shard.replay(list(enumerate(thetas[:2])))
    snapshot = shard.snapshot()
    shard.replay([(step, thetas[step]) for step in (2, 3, 4)])
    other = Shard(work(method))
    other.adopt(snapshot, 2)
    assert to_arrays_of(other) != to_arrays_of(shard)
    other.replay([(step, thetas[step]) for step in (2, 3, 4)])
    assert to_arrays_of(other) == to_arrays_of(shard)


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
        for index, block in shard.snapshot().items()
    }
