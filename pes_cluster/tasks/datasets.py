"""Image sets for inner problems: where their files are found, and their fixed splits.

`digits` is shipped with the package. MNIST and Fashion-MNIST are read in their original
idx files, packed (.gz) or not, from ``<data_dir>/<name>/`` or ``<data_dir>/``;
`data_dir` falls back to the environment variable PES_DATA_DIR. Nothing is downloaded
unless `data_dir` says "download". Every file's md5 is checked.
"""

import functools
import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pes_cluster.tasks.idx import DatasetError, parse, unpacked

DOWNLOAD = "download"
ENVIRONMENT_VARIABLE = "PES_DATA_DIR"


class Images(NamedTuple):
    """An image classification set, as bytes; 50,000 of MNIST are 39 MB.

    Attributes:
        train_images: uint8 [n, pixels].
        train_labels: uint8 [n].
        validation_images: uint8 [m, pixels].
        validation_labels: uint8 [m].
        offset: Mean of the training pixels, in their own units.
        scale: Standard deviation of the training pixels; (x - offset) / scale is
            standard.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    offset: float
    scale: float


class _File(NamedTuple):
    name: str
    md5_packed: str
    md5: str


class _Source(NamedTuple):
    """The idx files of a set: training images and labels, and public copies."""

    images: _File
    labels: _File
    mirrors: tuple[str, ...]
    offset: float
    scale: float


_TRAIN_SIZE = 50_000  # Of the original 60,000; the last 10,000 validate.

_SOURCES = {
    "mnist": _Source(
        images=_File(
            "train-images-idx3-ubyte",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        labels=_File(
            "train-labels-idx1-ubyte",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        offset=0.13066 * 255,
        scale=0.30811 * 255,
    ),
    "fashion_mnist": _Source(
        images=_File(
            "train-images-idx3-ubyte",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        ),
        labels=_File(
            "train-labels-idx1-ubyte",
            "25c81989df183df01b3e8a0aad5dffbe",
            "9018921c3c673c538a1fc5bad174d6f9",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        offset=0.28604 * 255,
        scale=0.35302 * 255,
    ),
}

NAMES = ("digits", *_SOURCES)


def load(name: str, data_dir: str | None = None) -> Images:
    """Returns a data set; read once a process.

    Args:
        name: One of `NAMES`.
        data_dir: Where the idx files are, "download", or None for PES_DATA_DIR.

    Raises:
        DatasetError: An unknown name, or files that are absent or damaged.
    """
    if name not in NAMES:
        raise DatasetError(f"unknown data set {name!r}; known are {', '.join(NAMES)}")
    if name == "digits":
        return _digits()
    return _idx_set(name, data_dir or os.environ.get(ENVIRONMENT_VARIABLE))


@functools.lru_cache
def _digits() -> Images:
    folder = importlib.resources.files("pes_cluster.tasks") / "data"
    with (folder / "digits.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    return _split(images, labels, 1500, offset=0.30511 * 16, scale=0.37503 * 16)


@functools.lru_cache
def _idx_set(name: str, data_dir: str | None) -> Images:
    source = _SOURCES[name]
    images, labels = (
        parse(path, _checked(path, file), dimensions)
        for file, dimensions in ((source.images, 3), (source.labels, 1))
        for path in (_locate(name, file, data_dir),)
    )
    flat = images.reshape(len(images), -1)
    return _split(flat, labels, _TRAIN_SIZE, offset=source.offset, scale=source.scale)


def _split(
    images: np.ndarray, labels: np.ndarray, size: int, *, offset: float, scale: float
) -> Images:
    return Images(
        images[:size], labels[:size], images[size:], labels[size:], offset, scale
    )


def _locate(name: str, file: _File, data_dir: str | None) -> Path:
    """Returns the path of a file, packed or not."""
    if data_dir == DOWNLOAD:
        return _download(name, file)
    advice = (
        f"set data_dir (or {ENVIRONMENT_VARIABLE}) to the folder that holds it, "
        f"or data_dir: {DOWNLOAD}"
    )
    if data_dir is None:
        raise DatasetError(f"data set {name} is not shipped; {advice}")
    root = Path(data_dir).expanduser().absolute()
    for folder in (root / name, root):
        for path in (folder / f"{file.name}.gz", folder / file.name):
            if path.is_file():
                return path
    raise DatasetError(
        f"data set {name}: no {file.name}[.gz] in {root / name} or {root}; {advice}"
    )


def _checked(path: Path, file: _File) -> bytes:
    """Returns the unpacked content of a file whose md5 is the published one."""
    raw = path.read_bytes()
    expected = file.md5_packed if path.suffix == ".gz" else file.md5
    # The archive may have been packed again; what counts is the content.
    content = unpacked(path, raw)
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() != expected:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != file.md5:
            raise DatasetError(
                f"{path}: md5 of the content is {found}, published is {file.md5}; "
                "the file is damaged or of another data set"
            )
    return content


def _download(name: str, file: _File) -> Path:
    try:
        import pooch  # An optional extra, needed by this path alone.
    except ImportError as error:
        raise DatasetError(
            f'downloading {name} needs pooch: pip install "pes-cluster[data]"'
        ) from error
    folder = Path(pooch.os_cache("pes_cluster")) / name
    failures = []
    for mirror in _SOURCES[name].mirrors:
        url = f"{mirror}{file.name}.gz"
        try:
            known_hash = f"md5:{file.md5_packed}"
            path = pooch.retrieve(url, known_hash, f"{file.name}.gz", folder)
        # requests' errors are OSErrors; pooch reports a wrong checksum by a ValueError.
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {type(error).__name__}")
        else:
            return Path(path)
    raise DatasetError(f"data set {name} could not be fetched ({'; '.join(failures)})")
