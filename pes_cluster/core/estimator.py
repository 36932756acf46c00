"""What an estimator and a learner are: recipes that build a block program."""

from typing import Any, Protocol

from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.task import Task


class Estimator(Protocol):
    """A frozen dataclass of plain fields that estimates the gradient in theta.

    Theta is shared: the driver adds the blocks' reports and updates it. One whose
    number of particles may change also has ``scaled(num_particles)``, the recipe of
    the same run with another number; its programs have `resized`.
    """

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the pure functions of the run.

        Raises:
            TaskError: The task lacks what the estimator needs.
            ValueError: The fields do not fit the task.
        """
        ...


class Learner(Protocol):
    """A frozen dataclass of plain fields that learns online, whole, inside its block.

    Its block holds theta, optimiser state and stream position of several seeds; one
    window is `steps_per_report` updates in one scan, and the driver updates nothing.
    """

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the pure functions of the run; reports carry no gradient."""
        ...
