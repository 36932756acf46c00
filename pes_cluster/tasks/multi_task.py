"""Several tasks at once: one theta, the mean of their losses and of their gradients.

As google/learned_optimization trains one learned optimiser on several tasks: each has
an estimator, states and noise of its own, and the estimates are averaged
(`core.several`). An update costs what the tasks cost together. Their episodes may
differ in length; their theta must have the same shapes.
"""

import dataclasses
from typing import Any

import jax

from pes_cluster.core.metadata import RECIPES
from pes_cluster.core.task import Task, Theta


@dataclasses.dataclass(frozen=True)
class MultiTask:
    """The mean of several tasks.

    Attributes:
        tasks: In a configuration, each as under `task`: ``{type: ..., ...}``.
    """

    tasks: tuple[Task[Any], ...] = dataclasses.field(metadata={RECIPES: True})

    @property
    def parts(self) -> tuple[Task[Any], ...]:
        """The tasks, which take this one's place in a run."""
        return self.tasks

    def initial_theta(self, key: jax.Array) -> Theta:
        """Returns that of the first task; the key is consumed."""
        return self.tasks[0].initial_theta(key)
