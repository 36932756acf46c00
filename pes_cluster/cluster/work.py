"""What any shard needs to do its part: a few bytes, the same for all of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pes_cluster.core import keys
from pes_cluster.core.blocks import BlockProgram, BlockState
from pes_cluster.core.compile import compiled
from pes_cluster.core.estimator import Estimator, Learner
from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.several import program_of
from pes_cluster.core.task import Task, Theta, traits


@dataclasses.dataclass(frozen=True)
class Work:
    """A run's recipes; every process builds the same functions from them.

    Attributes:
        task: The inner problem; None where a learner brings its own stream.
        method: The estimator, or the learner.
        seed: The run's seed.
    """

    task: Task[Any] | None
    method: Estimator | Learner
    seed: int

    def program(self) -> BlockProgram:
        """Builds the block program.

        Raises:
            TaskError: The task breaks its contract, or lacks what the method needs.
            ValueError: The method's fields do not fit the task.
        """
        return program_of(self.method, self.task, self.seed)

    def initial_theta(self) -> Theta:
        """Theta before the first update, as numpy; empty for a learner without task."""
        if self.task is None:
            return ()
        theta = self.task.initial_theta(keys.theta_key(self.seed))
        return jax.tree.map(np.asarray, theta)

    def block(self) -> BlockState:
        """An example of a block: structure, shapes and types, without values."""
        program, theta = self.program(), self.initial_theta()
        return jax.eval_shape(lambda theta: program.init(theta, 0), theta)

    def episode(self) -> Callable[[Theta, Any], Any]:
        """Returns ``(theta, key) -> loss`` of one full episode, by the objective."""
        assert self.task is not None
        objective: Any = getattr(self.method, "objective", "sum")
        return evaluator(self.task, objective)

    def evaluation(self) -> Callable[[Theta, Any, Any], Any] | None:
        """Returns ``(theta, outer_step, index) -> loss`` of one full episode, compiled.

        None where there is no task to evaluate.
        """
        if self.task is None:
            return None
        episode = self.episode()

        def one(theta: Theta, outer_step: Any, index: Any) -> Any:
            key = keys.evaluation_key(self.seed, outer_step, index)
            return episode(theta, key)

        if traits(self.task).host:
            return one
        return compiled(one, self.initial_theta(), np.int32(0), np.int32(0))
