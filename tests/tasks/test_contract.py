"""What every registered task owes the service: one result, whatever the cluster.

That a window is compiled once, and that its state survives as plain arrays, is tested
with every estimator in tests/estimators.
"""

import dataclasses
import math
from pathlib import Path

import pytest

import pes_cluster as pes
from pes_cluster.core.several import check
from pes_cluster.tasks.registry import TASKS
from tests.estimators.test_contract import SMALL

pytestmark = pytest.mark.nightly  # Quick ones, of estimators: tests/estimators.


@pytest.mark.parametrize("name", TASKS)
def test_the_same_result_on_any_shards_and_after_a_resumption(
    name: str, tmp_path: Path
) -> None:
    """Six steps on one shard; and three on three shards, then three on one."""
    check(SMALL[name])
    config = pes.RunConfig(
        task=SMALL[name],
        estimator=pes.PES(
            num_particles=10, truncation_length=3, sigma=0.01, pairs_per_block=2
        ),
        outer=pes.OuterSettings(pes.Adam(learning_rate=0.01)),
        run=pes.RunSettings(outer_steps=6, eval_every=3),
        cluster=pes.ClusterSettings(pool="local"),
    )
    calm = pes.run(config, tmp_path / "calm")
    assert calm.status == "finished", calm.error
    assert calm.eval_loss is not None
    assert math.isfinite(calm.eval_loss)
    half = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, outer_steps=3),
        cluster=pes.ClusterSettings(pool="local", shards=3),
    )
    pes.run(half, tmp_path / "half")
    again = pes.run(config, tmp_path / "half")
    assert again.outer_steps == 6
    assert again.theta_sha256 == calm.theta_sha256
    assert again.eval_loss == calm.eval_loss
