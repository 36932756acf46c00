"""Image sets for inner problems, with their fixed splits.

`digits` is shipped with the package. MNIST and Fashion-MNIST are read in their original
idx files from ``<data_dir>/<name>/`` or ``<data_dir>/``, CIFAR-10 in its binary batches
from ``<data_dir>/cifar10/cifar-10-batches-bin/`` or above; see `data_files`. Of each
set's training images the last validate; its test images are not used.
`cifar10_batch_1` is CIFAR-10's first batch alone, for where the other four are not at
hand.
"""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

from pes_cluster.tasks import cifar, idx
from pes_cluster.tasks.data_files import DataFile, DatasetError, Place, read
from pes_cluster.tasks.images import Images, resized, split

Name = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar10_batch_1"]

_IDX_TRAIN_SIZE = 50_000  # Of the original 60,000; the last 10,000 validate.


class _IdxSet(NamedTuple):
    """Training images and labels of a set in the idx format."""

    images: DataFile
    labels: DataFile
    mirrors: tuple[str, ...]
    offset: float
    scale: float


_IDX_SETS = {
    "mnist": _IdxSet(
        images=DataFile(
            "train-images-idx3-ubyte",
            "6bbc9ace898e44ae57da46a324031adb",
            ".gz",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        labels=DataFile(
            "train-labels-idx1-ubyte",
            "a25bea736e30d166cdddb491f175f624",
            ".gz",
            "d53e105ee54ea40749a09fcbcd1e9432",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        offset=0.13066 * 255,
        scale=0.30811 * 255,
    ),
    "fashion_mnist": _IdxSet(
        images=DataFile(
            "train-images-idx3-ubyte",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            ".gz",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        labels=DataFile(
            "train-labels-idx1-ubyte",
            "9018921c3c673c538a1fc5bad174d6f9",
            ".gz",
            "25c81989df183df01b3e8a0aad5dffbe",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        offset=0.28604 * 255,
        scale=0.35302 * 255,
    ),
}

_CIFAR10_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
)
_CIFAR10_BATCHES = tuple(
    DataFile(f"data_batch_{number}.bin", md5, ".xz")
    for number, md5 in enumerate(_CIFAR10_MD5, 1)
)


def load(name: str, data_dir: str | None = None, size: int | None = None) -> Images:
    """Returns a data set; read once a process.

    Args:
        name: One of `Name`.
        data_dir: Where the files are, "download", or None for PES_DATA_DIR.
        size: Rows and columns to average the images down to; None keeps theirs.

    Raises:
        DatasetError: An unknown name, files that are absent or damaged, or images
            smaller than `size`.
    """
    if name not in _READERS:
        known = ", ".join(get_args(Name))
        raise DatasetError(f"unknown data set {name!r}; known are {known}")
    return _load(name, data_dir, size)


@functools.lru_cache
def _load(name: str, data_dir: str | None, size: int | None) -> Images:
    if size is None:
        return _READERS[name](data_dir)
    return resized(_load(name, data_dir, None), size)


def _digits(data_dir: str | None) -> Images:
    del data_dir
    folder = importlib.resources.files("pes_cluster.tasks") / "data"
    with (folder / "digits.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    return split(images, labels, 1500, offset=0.30511 * 16, scale=0.37503 * 16)


def _idx(name: str, data_dir: str | None) -> Images:
    source = _IDX_SETS[name]
    place = Place(name, (name,), source.mirrors)
    images, labels = (
        idx.parse(*read(place, file, data_dir), dimensions)
        for file, dimensions in ((source.images, 3), (source.labels, 1))
    )
    flat, size = images.reshape(len(images), -1), _IDX_TRAIN_SIZE
    return split(flat, labels, size, offset=source.offset, scale=source.scale)


def _cifar10(name: str, batches: int, data_dir: str | None) -> Images:
    place = Place(name, ("cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"))
    parts = [
        cifar.parse(*read(place, file, data_dir)) for file in _CIFAR10_BATCHES[:batches]
    ]
    images, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    means = np.array([0.4914, 0.4822, 0.4465], np.float32) * 255
    deviations = np.array([0.2470, 0.2435, 0.2616], np.float32) * 255
    pixels = cifar.PIXELS // cifar.CHANNELS
    return split(
        images,
        labels,
        len(images) * 4 // 5,
        offset=np.repeat(means, pixels),
        scale=np.repeat(deviations, pixels),
        channels=cifar.CHANNELS,
    )


_READERS: dict[str, Callable[[str | None], Images]] = {
    "digits": _digits,
    "mnist": functools.partial(_idx, "mnist"),
    "fashion_mnist": functools.partial(_idx, "fashion_mnist"),
    "cifar10": functools.partial(_cifar10, "cifar10", len(_CIFAR10_BATCHES)),
    "cifar10_batch_1": functools.partial(_cifar10, "cifar10_batch_1", 1),
}
