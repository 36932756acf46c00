"""A task that breaks its contract is refused in one line that names it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest

from pes_cluster.core.task import TaskError, check_task


@dataclasses.dataclass(frozen=True)
class Sound:
    episode_length: Any = 4

    def initial_theta(self, key: Any) -> Any:
        return {"rate": jnp.float32(0.1)}

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.zeros(2)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return state + theta["rate"], jnp.sum(state)


class IntegerTheta(Sound):
    def initial_theta(self, key: Any) -> Any:
        return {"rate": jnp.int32(1)}


class EmptyTheta(Sound):
    def initial_theta(self, key: Any) -> Any:
        return {}


class VectorLoss(Sound):
    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return state, state


class GrowingState(Sound):
    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return jnp.concatenate([state, state]), jnp.sum(state)


class OtherDtype(Sound):
    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return state.astype(jnp.int32), jnp.sum(state)


class Forgetful(Sound):
    terminates = True


class Talkative(Sound):
    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return state, jnp.sum(state), False


class NoStep(Sound):
    step: Any = None


def test_a_sound_task_is_accepted() -> None:
    check_task(Sound())
    check_task(Sound(episode_length=None))


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (IntegerTheta(), r"theta\['rate'\] is int32"),
        (EmptyTheta(), "pytree without arrays"),
        (VectorLoss(), "must be a scalar"),
        (GrowingState(), "must return a state of the structure"),
        (OtherDtype(), "must return a state of the structure"),
        (Forgetful(), "must return 3 values"),
        (Talkative(), "must return 2 values"),
        (NoStep(), "no method step"),
        (Sound(episode_length=0), "positive integer or None"),
        (Sound(episode_length=2.5), "positive integer or None"),
    ],
)
def test_a_broken_task_is_refused_in_one_line(task: Any, told: str) -> None:
    with pytest.raises(TaskError, match=told) as refusal:
        check_task(task)
    assert "\n" not in str(refusal.value)
    assert type(task).__name__ in str(refusal.value)
