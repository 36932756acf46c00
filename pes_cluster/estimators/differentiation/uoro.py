"""Unbiased online recurrent optimization: RTRL's Jacobian as a random rank-one product.

Tallec and Ollivier, *Unbiased Online Recurrent Optimization*, 2017. The Jacobian
G = ds/dtheta is replaced by s~ th~^T whose expectation it is. Over a window F of K
steps, with nu of independent signs::

    a = (dF/ds) s~,     b = nu^T dF/dtheta
    g = dL/dtheta + (dL/ds . s~) th~        over the window, the state s that enters it
    s~ <- r0 a + r1 nu,     th~ <- th~ / r0 + b / r1
    r0 = sqrt(|th~| / |a|),  r1 = sqrt(|b| / |nu|)

K = 1 is Algorithm 1; a longer window is its memory-K variant: exact inside, where the
gradient is TBPTT's, and estimated beyond. a is a forward derivative, never a finite
difference, whose step vanishes in float32. Both factors are zero where an episode
begins.

Letters: K `truncation_length`; N `num_particles` unperturbed trajectories, each with
its own nu.

Bias: none at fixed theta. Variance: grows with the length of the influences, and by
1/N. Cost per step: N K steps with one forward and two reverse derivatives; memory N K
|s| within a window, N (|s| + |theta|) between.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core import keys, trees
from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.core.task import Task, TaskError, Theta
from pes_cluster.estimators.differentiation.replicas import (
    Floats,
    OnlineGradient,
    Replicas,
    ReplicaWindows,
    floating,
    replica_windows,
)

_TINY = 1e-7  # As in the published code: keeps the ratios of norms finite.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RankOne:
    """Two factors whose product has the Jacobian as its expectation.

    Attributes:
        state: s~, the floating leaves of the state, [R, 1, ...].
        theta: th~, leaves [R, 1, ...].
    """

    state: Floats
    theta: Theta


@dataclasses.dataclass(frozen=True)
class UORO(OnlineGradient):
    """Unbiased online recurrent optimization. Fields: see `OnlineGradient`."""

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        windows = replica_windows(self, task, seed, self.truncation_length)
        return _RankOneWindows(windows, seed).program()


@dataclasses.dataclass(frozen=True)
class _RankOneWindows:
    windows: ReplicaWindows
    seed: int

    def program(self) -> BlockProgram:
        return self.windows.program(self.init, self.advance)

    def init(self, theta: Theta, block: Any) -> Replicas:
        replicas = self.windows.begin(theta, block)
        states = floating(replicas.trajectories.state)
        if not states:
            name = type(self.windows.task).__name__
            raise TaskError(f"task {name} has no floating state, so uoro carries none")
        nothing = trees.zeros(jax.tree.map(jnp.asarray, theta), self.windows.size, 1)
        memory = RankOne([jnp.zeros_like(leaf) for leaf in states], nothing)
        return dataclasses.replace(replicas, memory=memory)

    def advance(
        self, theta: Theta, replicas: Replicas, outer_step: Any
    ) -> tuple[Replicas, Report]:
        thetas = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (self.windows.size, 1, *leaf.shape)),
            jax.tree.map(jnp.asarray, theta),
        )
        states, old = floating(replicas.trajectories.state), replicas.memory

        def window(thetas: Theta, states: Floats) -> Any:
            return self.windows.unrolled(replicas, outer_step, thetas, states)

        (losses, _), push, after = jax.linearize(window, thetas, states, has_aux=True)
        pull = jax.linear_transpose(push, thetas, states)
        direct, into = pull(
            (jnp.ones_like(losses), jax.tree.map(jnp.zeros_like, states))
        )
        credit = _inner(into, old.state)
        each = jax.tree.map(
            lambda here, before: here + _scaled(credit, before), direct, old.theta
        )
        gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=(0, 1)), each)
        signs = self._signs(replicas, outer_step, states)
        forward = push(jax.tree.map(jnp.zeros_like, thetas), old.state)[1]
        backward, _ = pull((jnp.zeros_like(losses), signs))
        memory = _next(old, forward, backward, signs)
        replicas = dataclasses.replace(replicas, trajectories=after, memory=memory)
        return replicas, self.windows.report(replicas, losses, gradient)

    def _signs(self, replicas: Replicas, outer_step: Any, states: Floats) -> Floats:
        """nu, shaped like the floating leaves of the states."""
        step = jnp.asarray(outer_step, jnp.int32)
        root = keys.stream(self.seed, keys.NOISE)
        names = keys.folded(root, replicas.replica_id, step)

        def draw(key: jax.Array, index: int, leaf: jax.Array) -> jax.Array:
            named = jax.random.fold_in(key, index)
            return jax.random.rademacher(named, leaf.shape[1:], leaf.dtype)

        return [
            jax.vmap(lambda key, i=i, leaf=leaf: draw(key, i, leaf))(names)
            for i, leaf in enumerate(states)
        ]


def _next(old: RankOne, forward: Floats, backward: Theta, signs: Floats) -> RankOne:
    """The factors after a window: a and b are `forward` and `backward`."""
    reach = trees.norms(forward, 2)
    # What entered the window reaches nothing beyond it: an episode has begun inside.
    theta = trees.select(reach == 0, jax.tree.map(jnp.zeros_like, old.theta), old.theta)
    r0 = _ratio(trees.norms(theta, 2), reach)
    r1 = _ratio(trees.norms(backward, 2), trees.norms(signs, 2))
    return RankOne(
        [
            _scaled(r0, a) + _scaled(r1, nu)
            for a, nu in zip(forward, signs, strict=True)
        ],
        jax.tree.map(
            lambda th, b: _scaled(1 / r0, th) + _scaled(1 / r1, b), theta, backward
        ),
    )


def _ratio(over: jax.Array, under: jax.Array) -> jax.Array:
    return jnp.sqrt((over + _TINY) / (under + _TINY))


def _scaled(factor: jax.Array, leaf: jax.Array) -> jax.Array:
    """One factor for each replica, [R, 1]."""
    shape = factor.shape + (1,) * (leaf.ndim - factor.ndim)
    return factor.astype(leaf.dtype).reshape(shape) * leaf


def _inner(one: Floats, other: Floats) -> jax.Array:
    """The inner product of each replica, [R, 1]."""
    products = [
        jnp.sum(a * b, axis=tuple(range(2, a.ndim)))
        for a, b in zip(one, other, strict=True)
    ]
    return sum(products[1:], products[0])
