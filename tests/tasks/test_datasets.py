"""Image sets: what they hold, and one clear line for absent or damaged files."""

import gzip
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from pes_cluster.tasks import datasets
from pes_cluster.tasks.idx import DatasetError, parse, unpacked

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    magic = 2048 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()


def refused(message: str):
    return pytest.raises(DatasetError, match=message)


def test_digits_are_the_real_scans():
    data = datasets.load("digits")
    assert data.train_images.shape == (1500, 64)
    assert data.validation_images.shape == (297, 64)
    labels = np.concatenate([data.train_labels, data.validation_labels])
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(labels).tolist() == counts
    assert data.train_images[0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert labels[:10].tolist() == list(range(10))


def test_digits_scaling_makes_the_training_split_standard():
    data = datasets.load("digits")
    standard = (data.train_images - data.offset) / data.scale
    assert standard.mean() == pytest.approx(0, abs=1e-4)
    assert standard.std() == pytest.approx(1, abs=1e-4)


def test_a_set_is_read_once_a_process():
    assert datasets.load("digits") is datasets.load("digits")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion_mnist", [6000] * 10),
    ],
)
def test_real_idx_files(name, counts, data_dir):
    data = datasets.load(name, str(data_dir))
    assert data.train_images.shape == (50000, 784)
    assert data.validation_images.shape == (10000, 784)
    labels = np.concatenate([data.train_labels, data.validation_labels])
    assert np.bincount(labels).tolist() == counts
    assert data.train_images.mean() == pytest.approx(data.offset, rel=5e-3)


def test_idx_round_trip():
    assert (parse(Path("f"), idx(IMAGES), 3) == IMAGES).all()
    assert parse(Path("f"), idx(IMAGES[0, 0]), 1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES, magic=2049), "folder/f: idx magic number 2049, expected 2051"),
        (idx(IMAGES)[:-1], "folder/f: holds 23 bytes of data.* 2 x 3 x 4"),
        (idx(IMAGES) + b"x", "folder/f: holds 25 bytes of data.* 2 x 3 x 4"),
        (idx(IMAGES)[:7], "folder/f: 7 bytes, too short"),
    ],
)
def test_a_damaged_idx_file_is_named(content, message):
    with refused(message):
        parse(Path("folder/f"), content, 3)


@pytest.mark.parametrize("raw", [gzip.compress(b"x" * 99)[:-9], b"not gzip at all"])
def test_a_damaged_gzip_file_is_named(raw):
    with refused("folder/f.gz: not a whole gzip file") as caught:
        unpacked(Path("folder/f.gz"), raw)
    assert "\n" not in str(caught.value)


@pytest.fixture
def tiny(monkeypatch):
    """A set of 5 generated images, of which 3 train, in place of Fashion-MNIST."""
    images = np.arange(5 * 2 * 2, dtype=np.uint8).reshape(5, 2, 2)
    contents = {
        "train-images-idx3-ubyte": idx(images),
        "train-labels-idx1-ubyte": idx(np.array([4, 3, 2, 1, 0], np.uint8)),
    }

    def described(name: str):
        packed = gzip.compress(contents[name], mtime=0)
        digests = [hashlib.md5(raw).hexdigest() for raw in (packed, contents[name])]
        return datasets._File(name, *digests)

    files = [described(name) for name in contents]
    source = datasets._Source(*files, ("http://a.invalid/", "http://b.invalid/"), 0, 1)
    monkeypatch.setitem(datasets._SOURCES, "fashion_mnist", source)
    monkeypatch.setattr(datasets, "_TRAIN_SIZE", 3)
    monkeypatch.delenv("PES_DATA_DIR", raising=False)
    yield contents
    datasets._idx_set.cache_clear()


def write(folder: Path, contents: dict[str, bytes], packed: bool) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("subfolder", ["fashion_mnist", "."])
@pytest.mark.parametrize("by_environment", [True, False])
def test_files_are_found(
    tiny, tmp_path, monkeypatch, packed, subfolder, by_environment
):
    write(tmp_path / subfolder, tiny, packed)
    if by_environment:
        monkeypatch.setenv("PES_DATA_DIR", str(tmp_path))
    data = datasets.load("fashion_mnist", None if by_environment else str(tmp_path))
    assert data.train_images.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert data.train_labels.tolist() == [4, 3, 2]
    assert data.validation_images.shape == (2, 4)
    assert data.validation_labels.tolist() == [1, 0]


def test_a_wrong_md5_names_the_file(tiny, tmp_path):
    other = {name: content[:-1] + b"\xff" for name, content in tiny.items()}
    write(tmp_path, other, packed=True)
    with refused(f"{tmp_path}/train-images-idx3-ubyte.gz: md5 of the content is"):
        datasets.load("fashion_mnist", str(tmp_path))


def test_absent_files_say_where_was_looked_and_what_to_set(tiny, tmp_path):
    message = (
        f"data set fashion_mnist: no train-images-idx3-ubyte.* in {tmp_path}"
        "/fashion_mnist or .*set data_dir"
    )
    with refused(message) as caught:
        datasets.load("fashion_mnist", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_no_data_dir_at_all(tiny):
    with refused("fashion_mnist is not shipped; set data_dir .or PES_DATA_DIR."):
        datasets.load("fashion_mnist")


def test_an_unknown_name():
    with refused("unknown data set 'cifar'; known are digits, mnist, fashion_mnist"):
        datasets.load("cifar")


class FakePooch:
    """Serves `contents` from the second mirror only, as pooch.retrieve does."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder, self.contents, self.asked = folder, contents, []

    def os_cache(self, project: str) -> str:
        return str(self.folder / project)

    def retrieve(self, url: str, known_hash: str, fname: str, path: Path) -> str:
        self.asked.append((url, known_hash))
        if url.startswith("http://a."):
            raise ConnectionError("no route")
        packed = gzip.compress(self.contents[fname.removesuffix(".gz")], mtime=0)
        if known_hash != f"md5:{hashlib.md5(packed).hexdigest()}":
            raise ValueError("hash of downloaded file does not match")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(packed)
        return str(path / fname)


def test_download_tries_the_mirrors_with_the_published_md5(tiny, tmp_path, monkeypatch):
    fake = FakePooch(tmp_path, tiny)
    monkeypatch.setitem(sys.modules, "pooch", fake)
    data = datasets.load("fashion_mnist", "download")
    assert data.train_labels.tolist() == [4, 3, 2]
    assert [url for url, _ in fake.asked] == [
        f"http://{host}.invalid/train-{kind}-ubyte.gz"
        for kind in ("images-idx3", "labels-idx1")
        for host in "ab"
    ]


def test_a_download_that_fails_everywhere_is_one_line(tiny, tmp_path, monkeypatch):
    damaged = {name: b"other" for name in tiny}
    monkeypatch.setitem(sys.modules, "pooch", FakePooch(tmp_path, damaged))
    with refused("could not be fetched .*a.invalid.*ConnectionError; .*ValueError"):
        datasets.load("fashion_mnist", "download")


def test_download_without_pooch_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with refused(r'needs pooch: pip install "pes-cluster\[data\]"'):
        datasets.load("fashion_mnist", "download")


def test_files_at_hand_need_no_pooch(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    write(tmp_path, tiny, packed=True)
    assert len(datasets.load("fashion_mnist", str(tmp_path)).train_labels) == 3
