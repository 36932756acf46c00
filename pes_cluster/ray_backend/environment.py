"""What every Ray node of a cluster has in its environment, wherever it is started."""

from pes_cluster.ray_backend.health import HEALTH

# For a node that is told to go (SIGTERM): its blocks move, its driver saves. As soon as
# nothing runs there any more it goes; Ray's own 30 s are short for a large checkpoint.
DRAIN_SECONDS = 120

NODE = HEALTH | {
    "RAY_AUTH_MODE": "token",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_SECONDS),
    "RAY_USAGE_STATS_ENABLED": "0",
    # A job may wait so long for room; after 15 minutes Ray would call it failed.
    "RAY_JOB_START_TIMEOUT_SECONDS": str(7 * 24 * 3600),
    "RAY_worker_niceness": "0",  # Ray's workers run at nice 15 otherwise.
}

DRIVER = "driver"  # The custom resource of nodes that may hold a job's driver.
RUNS = "PES_RUNS"  # Names the folder of the run directories of a node's jobs.
JOB = "PES_JOB"  # Names the job, in the environment of its driver.
