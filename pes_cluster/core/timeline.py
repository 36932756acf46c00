"""When perturbations change and episodes begin, as seen from a pair's clock.

The same rule serves every estimator of the family, inside the unroll and afterwards in
the credit, for JAX and for host tasks.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

NoisePeriod = Literal["window", "episode"] | int


@dataclasses.dataclass(frozen=True)
class Window:
    """The static shape of one window.

    Attributes:
        length: K, inner steps of the window.
        episode_length: T, or None where an episode never ends by the clock.
        noise_period: A perturbation lasts one window (PES), one episode (NRES), or this
            many inner steps of the episode (GPES).
        terminates: Episodes may end by themselves, so the members of a pair may end
            apart.
        staggered: First episodes are cut short, to spread the pairs' phases.
        single_episode: Every window is one episode from its begin (full ES): what
            follows its end inside the window is masked.
        objective: ``sum`` of the step losses, or the ``final`` loss by telescoping.
        joined: Pairs may have joined the run while it was under way; they begin with an
            episode -1 that is cut short, to spread their phases.
    """

    length: int
    episode_length: int | None
    noise_period: NoisePeriod
    terminates: bool = False
    staggered: bool = False
    single_episode: bool = False
    objective: Literal["sum", "final"] = "sum"
    joined: bool = False

    @property
    def begins_inside(self) -> bool:
        """Whether an episode can begin after the first step of a window."""
        if self.single_episode or self.episode_length is None:
            return self.terminates and not self.single_episode
        return self.terminates or self.episode_length % self.length != 0

    @property
    def changes_inside(self) -> bool:
        """Whether a perturbation can change after the first step of a window."""
        if self.noise_period == "window":
            return False
        if self.begins_inside:
            return True
        return self.noise_period != "episode" and self.noise_period % self.length != 0

    @property
    def one_segment(self) -> bool:
        """Whether one direction credits the whole window."""
        return not (self.begins_inside or self.changes_inside)

    @property
    def draws(self) -> int | None:
        """The most perturbations that an episode can have; None where it has no end.

        An episode that begins inside a window has part of that one's.
        """
        if self.episode_length is None:
            return None
        if self.noise_period == "episode":
            return 1
        if self.noise_period == "window":
            inside = self.begins_inside
            return -(-(self.episode_length - inside) // self.length) + inside
        return -(-self.episode_length // self.noise_period)

    def lengths(self, pair_id: jax.Array) -> "EpisodeLengths | None":
        """How long the pairs' episodes last by the clock; None if unlimited."""
        if self.episode_length is None:
            return None
        full = jnp.full(pair_id.shape, self.episode_length, jnp.int32)
        return EpisodeLengths(
            full=self.episode_length,
            first=full - self._cut(pair_id) if self.staggered else full,
            joining=full - self._cut(pair_id) if self.joined else None,
        )

    def _cut(self, pair_id: jax.Array) -> jax.Array:
        """By how much a pair's first episode is cut short, to spread the phases, [P].

        They are spread evenly for any number of pairs: multiples of K by the fractional
        parts of pair_id times the golden ratio.
        """
        windows = -(-(self.episode_length or 0) // self.length)
        phase = jnp.mod(pair_id.astype(jnp.float32) * 0.6180339887, 1.0)
        return self.length * jnp.floor(windows * phase).astype(jnp.int32)

    def changes(self, inner_step: jax.Array, position: jax.Array) -> jax.Array:
        """Whether a new perturbation is drawn before the step at this position."""
        if self.noise_period == "window":
            return jnp.broadcast_to(position == 0, inner_step.shape)
        if self.noise_period == "episode":
            return inner_step == 0
        return inner_step % self.noise_period == 0


@dataclasses.dataclass(frozen=True)
class EpisodeLengths:
    """After how many steps the clock ends an episode.

    Attributes:
        full: Of all episodes but these:
        first: Of episode 0, [P].
        joining: Of episode -1, with which a pair joins a run under way, [P]; None where
            none can have joined.
    """

    full: int
    first: jax.Array
    joining: jax.Array | None

    def of(self, episode: jax.Array) -> jax.Array:
        """By the episodes' ordinals, [P, M]."""
        length = jnp.where(episode == 0, self.first[:, None], jnp.int32(self.full))
        if self.joining is None:
            return length
        return jnp.where(episode < 0, self.joining[:, None], length)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timeline:
    """What happened before each step of a window; all arrays are [P, M, K].

    Attributes:
        begins: An episode begins with this step.
        changes: A perturbation is drawn for this step.
        ordinal: Ordinal of the last draw made in this window, -1 before the first.
        segment: Steps of one segment are credited with one direction.
    """

    begins: jax.Array
    changes: jax.Array
    ordinal: jax.Array
    segment: jax.Array


def timeline(window: Window, inner_step: jax.Array, ended: jax.Array) -> Timeline:
    """Replays the clocks of a window from its start and its ends.

    Args:
        window: The window's static shape.
        inner_step: Clocks at the window's start, [P, M].
        ended: Whether the episode ended with each step, [P, M, K].
    """

    def tick(clock: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        position, end = x
        seen = (clock == 0, window.changes(clock, position))
        return jnp.where(end, 0, clock + 1), seen

    positions = jnp.arange(window.length)
    ends = jnp.moveaxis(ended, -1, 0)
    _, (begins, changes) = jax.lax.scan(tick, inner_step, (positions, ends))
    begins, changes = jnp.moveaxis(begins, 0, -1), jnp.moveaxis(changes, 0, -1)
    borders = (begins | changes).at[..., 0].set(False)
    segment = jnp.cumsum(borders, axis=-1)
    if window.noise_period == "window":
        # All episodes begun inside the window are credited with the same eps (rule
        # 3.4).
        segment = jnp.minimum(segment, 1)
    return Timeline(begins, changes, jnp.cumsum(changes, axis=-1) - 1, segment)
