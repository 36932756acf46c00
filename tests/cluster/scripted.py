"""A method and a task small enough to follow by hand, for tests of everything else."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import CheckpointStore
from pes_cluster.cluster.driver import Driver
from pes_cluster.cluster.engine import Engine, PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.manifest import MANIFEST
from pes_cluster.cluster.plan import Outcome, Plan
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import BlockProgram, Report, ScoredSteps
from pes_cluster.metrics.record import StepRecord

OPTIMIZER = outer.Adam(0.05)


@dataclasses.dataclass(frozen=True)
class Bowl:
    """Loss |theta - state|^2; the state is drawn afresh every step."""

    episode_length: int | None = 3

    def initial_theta(self, key: jax.Array) -> Any:
        return {"w": jax.random.normal(key, (3,)), "b": jnp.float32(0.5)}

    def init(self, theta: Any, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (3,))

    def step(self, theta: Any, state: jax.Array, key: jax.Array) -> Any:
        loss = jnp.sum((theta["w"] + theta["b"] - state) ** 2)
        return jax.random.normal(key, (3,)), loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
    """Leaves of every kind that a checkpoint must carry."""

    index: jax.Array
    memory: jax.Array
    half: jax.Array
    key: jax.Array
    active: jax.Array


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Gradients that depend on theta, on the block's past and on the step.

    Attributes:
        blocks: How many.
        shaped: Whether scores go through the two-step form.
        learner: Whether there is no gradient.
        nan_at: The outer step whose gradient is not finite.
        raise_at: The outer step in which block 1 raises.
    """

    blocks: int = 5
    shaped: bool = False
    learner: bool = False
    nan_at: int | None = None
    raise_at: int | None = None

    def scaled(self, num_particles: int) -> "Scripted":
        if num_particles % 4:
            raise ValueError(f"num_particles: {num_particles} is not in fours")
        return dataclasses.replace(self, blocks=num_particles // 4)

    def build(self, task: Any, seed: int) -> BlockProgram:
        def init(theta: Any, index: Any) -> Block:
            return Block(
                index=jnp.int32(index),
                memory=jnp.zeros(3),
                half=jnp.ones((), jnp.bfloat16),
                key=jax.random.fold_in(jax.random.key(seed), index),
                active=jnp.ones(2, bool),
            )

        def move(theta: Any, block: Block, outer_step: Any) -> tuple[Block, Any]:
            noise = jax.random.normal(jax.random.fold_in(block.key, outer_step), (3,))
            memory = jnp.tanh(0.9 * block.memory + noise + theta["w"])
            half = block.half * jnp.bfloat16(1.01)
            moved = dataclasses.replace(block, memory=memory, half=half)
            return moved, noise

        def report(block: Block, gradient: Any) -> Report:
            return Report(
                gradient=gradient,
                weight=jnp.float32(4),
                sums={"loss": jnp.sum(block.memory**2)},
                counts={"inner_steps": jnp.int32(8)},
            )

        def slope(theta: Any, block: Block, noise: Any) -> Any:
            return {"w": theta["w"] + block.memory * noise, "b": jnp.sum(block.memory)}

        def advance(theta: Any, block: Block, outer_step: Any) -> Any:
            if self.raise_at is not None and (block.index, outer_step) == (
                1,
                self.raise_at,
            ):
                raise ArithmeticError("the simulator\nfell over")
            block, noise = move(theta, block, outer_step)
            gradient = slope(theta, block, noise)
            if self.nan_at is not None:
                bad = jnp.where(outer_step == self.nan_at, jnp.nan, 0.0)
                gradient = jax.tree.map(lambda leaf: leaf + bad, gradient)
            return block, report(block, None if self.learner else gradient)

        def score(theta: Any, block: Block, outer_step: Any) -> Any:
            block, noise = move(theta, block, outer_step)
            return block, jnp.stack([noise[:2], -noise[:2]], 1), report(block, None)

        def weighted_sum(theta: Any, block: Block, weights: Any) -> Any:
            return slope(theta, block, jnp.sum(weights))

        def ranks(scores: np.ndarray, active: np.ndarray) -> np.ndarray:
            order = np.argsort(np.argsort(scores.ravel())).reshape(scores.shape)
            return (order / order.size - 0.5).astype(np.float32) * active[:, None]

        steps = ScoredSteps(score, weighted_sum, ranks) if self.shaped else None
        jittable = self.raise_at is None
        return BlockProgram(
            self.blocks, init, advance, steps, jittable, lambda theta, block: block
        )


def reseal(path: pathlib.Path, **changes: Any) -> None:
    """Changes a manifest so that it is whole: nobody but a reader of it can tell."""
    fields = json.loads(path.read_text()) | changes
    del fields["sha256"]
    text = json.dumps(fields, indent=1)
    seal = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(seal | fields, indent=1))


def replace_part(path: pathlib.Path, content: dict[str, Any] | bytes) -> None:
    """Puts other content in a part's place, and seals the manifest over it."""
    if isinstance(content, dict):
        np.savez(path, **content)
        content = path.read_bytes()
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = path.parent / MANIFEST
    fields = json.loads(manifest.read_text())
    for part in (fields["driver"], *fields["parts"]):
        if part["name"] == path.name:
            part |= {"size": len(content), "sha256": digest}
    reseal(manifest, parts=fields["parts"], driver=fields["driver"])


def work(method: Any = None) -> Work:
    return Work(Bowl(), method or Scripted(), 7)


def local(
    method: Any = None, shards: int = 1, run: RunSettings | None = None
) -> PoolEngine:
    job = work(method)
    return PoolEngine(LocalPool(job, shards), job, OPTIMIZER, run or RunSettings())


def drive(
    engine: Engine,
    folder: Any,
    outer_steps: int = 12,
    every: int = 5,
    stop_after: int | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **more: Any,
) -> tuple[Outcome, list[StepRecord]]:
    """Drives an engine over the scripted work, from the newest checkpoint there is.

    The records are those that stay: what is made again is dropped first.
    """
    records: list[StepRecord] = []

    def rewind(outer_step: int, lines: tuple[str, ...]) -> None:
        records[:] = [record for record in records if record.outer_step <= outer_step]

    plan = Plan(
        outer_steps=outer_steps,
        checkpoint_every=every,
        digest="scripted",
        block=work().block(),
        on_record=records.append,
        on_event=on_event,
        on_rewind=rewind,
        # A chunk of steps may go a little further.
        should_stop=lambda: stop_after is not None and len(records) >= stop_after,
    )
    plan = dataclasses.replace(plan, **more)
    store = CheckpointStore(str(folder))
    driver = Driver(plan, engine, store, OPTIMIZER, work().initial_theta())
    try:
        return driver.run(), records
    finally:
        engine.close()
