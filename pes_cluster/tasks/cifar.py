"""CIFAR-10's binary version: records of a label byte and three planes of 32 x 32."""

from pathlib import Path

import numpy as np

from pes_cluster.tasks.data_files import DatasetError

CHANNELS = 3
PIXELS = CHANNELS * 32 * 32


def parse(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [n, 3072] (red, green and blue planes) and labels [n], uint8.

    Args:
        path: Only named in errors.
        content: A whole unpacked batch.

    Raises:
        DatasetError: Not a whole number of records, or a label above 9.
    """
    record = 1 + PIXELS
    if not content or len(content) % record:
        raise DatasetError(
            f"{path}: {len(content)} bytes are not a whole number of records of "
            f"{record} bytes"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = rows[:, 0]
    if labels.max() > 9:
        raise DatasetError(f"{path}: label {labels.max()}, expected 0 to 9")
    return rows[:, 1:], labels
