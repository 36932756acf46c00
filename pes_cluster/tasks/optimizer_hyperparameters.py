"""The hyperparameters of any optax optimiser as theta, while it trains an MLP.

Section 5.2 of Vicol et al., ICML 2021, beyond its two meta-parameters: any numeric
argument of any optimiser that optax has, constant or on a schedule, shared by the
network or one for each layer or tensor. With ``optimizer: sgd``, a learning rate on an
``inverse_time`` schedule and ``per: network`` it is the problem of
`mlp_learning_rate_schedule`.

    h_t = constrained(schedule(theta_h, t)),    weights += optimizer(**h_t)(gradient)

The loss of a step is measured after it, on a fresh minibatch.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pes_cluster.models import mlp
from pes_cluster.tasks.image_classification import ImageClassification
from pes_cluster.tasks.schedules import Entry, Hyperparameter

Theta = dict[str, Entry]  # By the hyperparameter's name; each of shape [groups] or [].


class Training(NamedTuple):
    """The inner state: the network, the optimiser's state of each group, the clock."""

    layers: list[mlp.Layer]
    memory: tuple[Any, ...]
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class OptimizerHyperparameters(ImageClassification):
    """Hyperparameters of an optimiser from optax; in float32.

    Fields of the network and its data: see `ImageClassification`.

    Attributes:
        optimizer: A function of optax that makes an optimiser: sgd, adam, rmsprop, ...
        learn: The arguments that theta holds.
        fixed: Its other arguments that are not at their defaults.
        per: Who has numbers of their own: the whole network, each layer, or each tensor
            (weights and biases apart). An optimiser that looks at all parameters
            together (lamb, clipping by norm) then looks at a layer's or a tensor's.
    """

    optimizer: str = "sgd"
    learn: tuple[Hyperparameter, ...] = (Hyperparameter("learning_rate", 0.003),)
    fixed: dict[str, float | bool] = dataclasses.field(default_factory=dict)
    per: Literal["network", "layer", "tensor"] = "network"

    name: ClassVar[str] = "optimizer_hyperparameters"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_arguments()
        try:
            built = self._transformation({h.name: h.initial for h in self.learn})
        except (TypeError, ValueError) as error:
            self.refuse("optimizer", f"built by learn and fixed alone ({error})")
        if not isinstance(built, optax.GradientTransformation):
            self.refuse("optimizer", "a function of optax that makes an optimiser")

    def initial_theta(self, key: jax.Array) -> Theta:
        """Returns the initial values, unconstrained; the key is ignored."""
        del key
        groups = {"network": None, "layer": 1, "tensor": 2}[self.per]
        shape = () if groups is None else (groups * (len(self.hidden) + 1),)
        return {h.name: h.initial_entry(shape) for h in self.learn}

    def init(self, theta: Theta, key: jax.Array) -> Training:
        """Initialises the network from the key."""
        layers = self.network(key)
        memory = tuple(
            self._transformation(values).init(group)
            for values, group in zip(
                self._by_group(theta, jnp.int32(0)), self._groups(layers), strict=True
            )
        )
        return Training(layers, memory, jnp.int32(0))

    def step(
        self, theta: Theta, state: Training, key: jax.Array
    ) -> tuple[Training, jax.Array]:
        """Trains on one minibatch and returns the objective on another."""
        train_key, objective_key = jax.random.split(key)
        gradient = self.gradient(state.layers, train_key)
        groups, memories = [], []
        for values, group, g, memory in zip(
            self._by_group(theta, state.step),
            self._groups(state.layers),
            self._groups(gradient),
            state.memory,
            strict=True,
        ):
            optimizer = self._transformation(values)
            updates, memory = optimizer.update(g, memory, group)
            groups.append(optax.apply_updates(group, updates))
            memories.append(memory)
        layers = jax.tree.unflatten(
            jax.tree.structure(state.layers), jax.tree.leaves(groups)
        )
        loss = self.judged(layers, objective_key)
        return Training(layers, tuple(memories), state.step + 1), loss

    def hyperparameters(self, theta: Theta, step: jax.Array) -> dict[str, jax.Array]:
        """The constrained values at a step, by name, of shape [groups] or []."""
        length = self.episode_length
        return {h.name: h.at(theta[h.name], step, length) for h in self.learn}

    def _by_group(self, theta: Theta, step: jax.Array) -> list[dict[str, jax.Array]]:
        values = self.hyperparameters(theta, step)
        if self.per == "network":
            return [values]
        count = (len(self.hidden) + 1) * (2 if self.per == "tensor" else 1)
        return [
            {name: x[index] for name, x in values.items()} for index in range(count)
        ]

    def _groups(self, layers: list[mlp.Layer]) -> list[Any]:
        """The network's parts, in the order of theta's groups."""
        if self.per == "network":
            return [layers]
        return layers if self.per == "layer" else jax.tree.leaves(layers)

    def _transformation(self, values: dict[str, Any]) -> optax.GradientTransformation:
        """The optimiser at these values, which may be traced.

        This is what `optax.inject_hyperparams` does in each update, without its copy of
        the values in the state: theta has them.
        """
        return self._factory()(**self.fixed, **values)

    def _factory(self) -> Callable[..., optax.GradientTransformation]:
        found = getattr(optax, self.optimizer, None)
        if not inspect.isfunction(found):
            self.refuse("optimizer", "the name of a function of optax")
        return found

    def _check_arguments(self) -> None:
        allowed = inspect.signature(self._factory()).parameters
        names = [h.name for h in self.learn]
        for name in (*names, *self.fixed):
            if name not in allowed:
                self.refuse(
                    "learn" if name in names else "fixed",
                    f"of arguments of optax.{self.optimizer} ({', '.join(allowed)})",
                )
        if not names or len({*names, *self.fixed}) < len(names) + len(self.fixed):
            self.refuse("learn", "at least one argument, each once and not in fixed")
