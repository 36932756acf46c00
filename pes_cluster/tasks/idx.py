"""The idx format of MNIST: a big-endian header (magic number, sizes), then bytes."""

import math
import struct
from pathlib import Path

import numpy as np

from pes_cluster.tasks.data_files import DatasetError

_UNSIGNED_BYTE = 0x08  # Third byte of the magic number; the fourth counts dimensions.


def parse(path: Path, content: bytes, dimensions: int) -> np.ndarray:
    """Returns the uint8 array in an unpacked idx file.

    Args:
        path: Only named in errors.
        content: The whole unpacked file.
        dimensions: How many the array must have: 3 for images, 1 for labels.

    Raises:
        DatasetError: A wrong magic number, or another size than announced.
    """
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DatasetError(f"{path}: {len(content)} bytes, too short for an idx header")
    magic, *shape = struct.unpack(f">{1 + dimensions}i", content[:header])
    expected = (_UNSIGNED_BYTE << 8) | dimensions
    if magic != expected:
        raise DatasetError(f"{path}: idx magic number {magic}, expected {expected}")
    if min(shape) < 0 or len(content) - header != math.prod(shape):
        raise DatasetError(
            f"{path}: holds {len(content) - header} bytes of data, "
            f"its header announces {' x '.join(map(str, shape))}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
