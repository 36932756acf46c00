"""Labelled images as bytes, split for training and validation, at any smaller size."""

import math
from typing import NamedTuple

import numpy as np

from pes_cluster.tasks.data_files import DatasetError


class Images(NamedTuple):
    """An image classification set, as bytes; 50,000 of MNIST are 39 MB.

    Attributes:
        train_images: uint8 [n, pixels]; colours lie one plane after the other.
        train_labels: uint8 [n].
        validation_images: uint8 [m, pixels].
        validation_labels: uint8 [m].
        offset: Mean of the training pixels, in their own units: a scalar, or [pixels]
            where each colour has its own.
        scale: Standard deviation of the training pixels, likewise;
            (x - offset) / scale is standard.
        channels: Colours of a pixel.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    offset: float | np.ndarray
    scale: float | np.ndarray
    channels: int = 1

    @property
    def side(self) -> int:
        """Rows, and columns, of an image."""
        return math.isqrt(self.train_images.shape[1] // self.channels)


def split(
    images: np.ndarray,
    labels: np.ndarray,
    train_size: int,
    *,
    offset: float | np.ndarray,
    scale: float | np.ndarray,
    channels: int = 1,
) -> Images:
    """Returns the set whose first `train_size` images train; the others validate."""
    head, tail = slice(None, train_size), slice(train_size, None)
    parts = images[head], labels[head], images[tail], labels[tail]
    return Images(*parts, offset, scale, channels)


def resized(data: Images, side: int) -> Images:
    """Averages the images down to `side` x `side` and standardises them anew.

    Each new pixel is the mean of the area it covers, rounded to a byte.

    Raises:
        DatasetError: The images are smaller.
    """
    if side == data.side:
        return data
    if not 1 <= side < data.side:
        raise DatasetError(
            f"image_size must lie between 1 and {data.side}, the images' own, not be "
            f"{side}"
        )
    train, validation = (
        _averaged(images, data.channels, data.side, side)
        for images in (data.train_images, data.validation_images)
    )
    planes = train.reshape(len(train), data.channels, -1)
    means = planes.mean(axis=(0, 2), dtype=np.float64).astype(np.float32)
    deviations = planes.std(axis=(0, 2), dtype=np.float64).astype(np.float32)
    return data._replace(
        train_images=train,
        validation_images=validation,
        offset=np.repeat(means, side * side),
        scale=np.repeat(deviations, side * side),
    )


def _averaged(images: np.ndarray, channels: int, side: int, new: int) -> np.ndarray:
    """Returns uint8 [n, channels new new]; chunked, since floats take 8 times more."""
    weights = _overlaps(side, new)
    chunks = []
    for start in range(0, len(images), 1000):
        chunk = images[start : start + 1000].reshape(-1, channels, side, side)
        # Rounded twice, so that a half rounds alike whatever the order of summing.
        small = np.rint((weights @ chunk @ weights.T).round(6))
        chunks.append(small.astype(np.uint8).reshape(len(chunk), -1))
    return np.concatenate(chunks)


def _overlaps(side: int, new: int) -> np.ndarray:
    """Returns [new, side]: which share of each old row a new one is the mean of."""
    edges = np.arange(new + 1) * (side / new)
    rows = np.arange(side)
    upper = np.minimum(edges[1:, None], rows + 1)
    lower = np.maximum(edges[:-1, None], rows)
    return np.clip(upper - lower, 0, None) * (new / side)
