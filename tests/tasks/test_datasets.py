"""Image sets: what they hold, and one clear line for absent or damaged files."""

import gzip
import hashlib
import lzma
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from pes_cluster.tasks import cifar, datasets
from pes_cluster.tasks.data_files import DataFile, DatasetError, Place, read, unpacked
from pes_cluster.tasks.idx import parse
from pes_cluster.tasks.images import Images, resized

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


CUT_OR_OTHER = ["cut short", "another format"]


@pytest.mark.parametrize(
    "raw", [gzip.compress(b"x" * 99)[:-9], b"not gzip at all"], ids=CUT_OR_OTHER
)
def test_a_damaged_gzip_file_is_named(raw):
    with refused("folder/f.gz: not a whole gzip file") as caught:
        unpacked(Path("folder/f.gz"), raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [lzma.compress(b"x" * 99)[:-9], b"not xz at all"], ids=CUT_OR_OTHER
)
def test_a_damaged_xz_file_is_named(raw):
    with refused("folder/f.xz: not a whole xz file"):
        unpacked(Path("folder/f.xz"), raw)


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
        whole, archive = (hashlib.md5(x).hexdigest() for x in (contents[name], packed))
        return DataFile(name, whole, ".gz", archive)

    files = [described(name) for name in contents]
    source = datasets._IdxSet(*files, ("http://a.invalid/", "http://b.invalid/"), 0, 1)
    monkeypatch.setitem(datasets._IDX_SETS, "fashion_mnist", source)
    monkeypatch.setattr(datasets, "_IDX_TRAIN_SIZE", 3)
    monkeypatch.delenv("PES_DATA_DIR", raising=False)
    datasets._load.cache_clear()
    yield contents
    datasets._load.cache_clear()


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
    with refused("unknown data set 'cifar'; known are digits, mnist, fashion_mnist, "):
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


def cifar_batch(images: int) -> bytes:
    """Records whose label is their number and whose pixels are 0, 1, .. 255, 0, .."""
    pixels = np.arange(cifar.PIXELS).astype(np.uint8).tobytes()
    return b"".join(bytes([label]) + pixels for label in range(images))


def test_cifar_batches_are_labels_and_planes():
    images, labels = cifar.parse(Path("f"), cifar_batch(3))
    assert labels.tolist() == [0, 1, 2]
    assert images.shape == (3, 3072)
    assert images[1, :3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            cifar_batch(2)[:-1],
            "f: 6145 bytes are not a whole number of records of 3073",
        ),
        (b"", "f: 0 bytes are not"),
        (b"\x0a" + cifar_batch(1)[1:], "f: label 10, expected 0 to 9"),
    ],
    ids=["cut short", "empty", "another label"],
)
def test_a_damaged_cifar_batch_is_named(content, message):
    with refused(message):
        cifar.parse(Path("f"), content)


@pytest.mark.parametrize("folder", ["cifar10/cifar-10-batches-bin", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_is_read_from_the_batches_that_are_asked_for(
    tmp_path, monkeypatch, folder, packed
):
    content = cifar_batch(10)
    file = DataFile("data_batch_1.bin", hashlib.md5(content).hexdigest(), ".xz")
    absent = file._replace(name="data_batch_2.bin")
    monkeypatch.setattr(datasets, "_CIFAR10_BATCHES", (file, absent))
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    path = tmp_path / folder / (f"{file.name}.xz" if packed else file.name)
    path.write_bytes(lzma.compress(content) if packed else content)
    data = datasets._cifar10("cifar10", 1, str(tmp_path))
    assert data.train_labels.tolist() == list(range(8))
    assert data.validation_labels.tolist() == [8, 9]
    assert (data.channels, data.side) == (3, 32)
    with refused("data set cifar10: no data_batch_2.bin.* in "):
        datasets._cifar10("cifar10", 2, str(tmp_path))


def test_a_set_without_a_public_copy_cannot_be_fetched():
    with refused("data set secret cannot be fetched; set data_dir .* that holds f"):
        read(Place("secret", ()), DataFile("f", ""), "download")


@pytest.mark.data
def test_real_cifar_batch(data_dir):
    data = datasets.load("cifar10_batch_1", str(data_dir))
    assert data.train_images.shape == (8000, 3072)
    assert data.validation_images.shape == (2000, 3072)
    planes = data.train_images[:2000].reshape(-1, 3, 1024)
    offset, scale = (x.reshape(3, 1024)[:, 0] for x in (data.offset, data.scale))
    # An image's mean has a standard deviation of about half the pixels'.
    np.testing.assert_allclose((planes.mean((0, 2)) - offset) / scale, 0, atol=0.05)
    np.testing.assert_allclose(planes.std((0, 2)) / scale, 1, atol=0.05)


def blank(images: np.ndarray, channels: int) -> Images:
    labels = np.zeros(len(images), np.uint8)
    return Images(images, labels, images[:1], labels[:1], 0.0, 1.0, channels)


def test_halving_the_size_takes_the_mean_of_four_pixels_of_each_plane():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 6)).astype(np.uint8)
    small = resized(blank(images.reshape(5, -1), 3), 3)
    expected = images.reshape(5, 3, 3, 2, 3, 2).mean((3, 5))
    assert small.train_images.shape == (5, 27)
    difference = small.train_images.reshape(5, 3, 3, 3) - expected
    assert np.abs(difference).max() <= 0.5
    standard = (small.train_images - small.offset) / small.scale
    np.testing.assert_allclose(standard.reshape(5, 3, 9).mean((0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(standard.reshape(5, 3, 9).std((0, 2)), 1, atol=1e-6)


def test_any_smaller_size_keeps_the_mean_brightness():
    images = np.random.default_rng(1).integers(0, 256, (4, 49)).astype(np.uint8)
    small = resized(blank(images, 1), 3)
    np.testing.assert_allclose(small.train_images.mean(1), images.mean(1), atol=0.5)


@pytest.mark.parametrize("size", [0, 9])
def test_a_size_that_the_images_do_not_have_is_refused(size):
    with refused(f"image_size must lie between 1 and 8, .* not be {size}"):
        datasets.load("digits", size=size)


def test_their_own_size_is_the_set_itself():
    assert datasets.load("digits", size=8) is datasets.load("digits")
