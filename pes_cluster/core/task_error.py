"""The refusal of a task; known to those who report it and load no JAX."""


class TaskError(ValueError):
    """A task that breaks its contract; the message is one line that names the task."""
