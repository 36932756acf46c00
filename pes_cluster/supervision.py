"""A run under its supervisor: what `pes supervise` and a cluster's job start."""

import sys
from collections.abc import Sequence

from pes_cluster.cluster.storage import CheckpointError
from pes_cluster.config.run_config import RunConfig
from pes_cluster.run_directory import RunDirectory
from pes_cluster.supervisor import supervise

RESTARTS = 10  # Allowed without a newer checkpoint.


def supervise_run(
    arguments: Sequence[str],
    config: RunConfig,
    directory: RunDirectory,
    restarts: int = RESTARTS,
) -> int:
    """Runs `pes` with these arguments until its run has ended; returns the exit status.

    Args:
        arguments: Of a run of this configuration in this directory.
        config: The configuration.
        directory: The run's.
        restarts: How many are allowed without a newer checkpoint between them.
    """
    store = directory.store(config)

    def newest() -> int | None:
        try:
            return max(store.steps(), default=None)
        except CheckpointError:
            return None  # Not known now; a driver that needs it will say so.

    def explained() -> bool:
        result = directory.read_result() or {}
        return result.get("status") == "failed" and not result.get("resumable")

    command = [sys.executable, "-m", "pes_cluster", *arguments]
    return supervise(command, restarts, newest, explained)
