"""Texts for character-level language models, as bytes, with their fixed splits.

`tinyshakespeare` is read from ``<data_dir>/tinyshakespeare/input.txt`` (its last tenth
validates), `ptb` (the Penn Treebank in Mikolov's preprocessing, by characters) from
``<data_dir>/ptb/``; see `data_files`. The Penn Treebank's licence does not allow it to
be passed on: nothing here needs it. `random` (independent uniform symbols) and `repeat`
(one symbol throughout) are generated.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

from pes_cluster.tasks.data_files import DataFile, DatasetError, Place, read

Name = Literal["random", "repeat", "tinyshakespeare", "ptb"]

NUM_GENERATED = 50  # Symbols of the generated texts, as many as the Treebank has.
_GENERATED_SIZE = 100_000
_SEED = 5

_SHAKESPEARE = DataFile("input.txt", "6fb458f1232090904fb40fe944165e91")
_SHAKESPEARE_PLACE = Place(
    "tinyshakespeare",
    ("tinyshakespeare",),
    (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
        "tinyshakespeare/",
    ),
)
_PTB = (
    DataFile("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    DataFile("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
)


class Text(NamedTuple):
    """A text as the numbers of its symbols.

    Attributes:
        train: uint8 [n].
        validation: uint8 [m].
        symbols: The characters by number.
    """

    train: np.ndarray
    validation: np.ndarray
    symbols: str


@functools.lru_cache
def load(name: str, data_dir: str | None = None) -> Text:
    """Returns a text; read once a process.

    Args:
        name: One of `Name`.
        data_dir: Where the files are, "download", or None for PES_DATA_DIR.

    Raises:
        DatasetError: An unknown name, or files that are absent or damaged.
    """
    if name not in _READERS:
        known = ", ".join(get_args(Name))
        raise DatasetError(f"unknown text {name!r}; known are {known}")
    return _READERS[name](data_dir)


def encoded(train: str, validation: str) -> Text:
    """Numbers the characters of the training split in their order.

    Raises:
        DatasetError: The validation split has others.
    """
    symbols = "".join(sorted(set(train)))
    strange = set(validation) - set(symbols)
    if strange:
        raise DatasetError(f"the validation text alone has {sorted(strange)}")
    numbers = np.zeros(256, np.uint8)
    numbers[_bytes(symbols)] = np.arange(len(symbols))
    return Text(numbers[_bytes(train)], numbers[_bytes(validation)], symbols)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("ascii"), np.uint8)


def _random(data_dir: str | None) -> Text:
    del data_dir
    draw = np.random.default_rng(_SEED).integers
    text = draw(0, NUM_GENERATED, _GENERATED_SIZE, dtype=np.uint8)
    train, validation = np.split(text, [_GENERATED_SIZE * 9 // 10])
    return Text(train, validation, "".join(map(chr, range(NUM_GENERATED))))


def _repeat(data_dir: str | None) -> Text:
    text = _random(data_dir)
    first = text.train[0]
    return Text(
        np.full_like(text.train, first),
        np.full_like(text.validation, first),
        text.symbols,
    )


def _tinyshakespeare(data_dir: str | None) -> Text:
    _, content = read(_SHAKESPEARE_PLACE, _SHAKESPEARE, data_dir)
    text = content.decode("ascii")
    cut = len(text) * 9 // 10
    return encoded(text[:cut], text[cut:])


def _ptb(data_dir: str | None) -> Text:
    """Each sentence ends with one newline; the spaces at a line's ends go."""
    place = Place("ptb", ("ptb",))
    contents = [read(place, file, data_dir)[1].decode("ascii") for file in _PTB]
    return encoded(
        *("".join(f"{x.strip()}\n" for x in part.splitlines()) for part in contents)
    )


_READERS: dict[str, Callable[[str | None], Text]] = {
    "random": _random,
    "repeat": _repeat,
    "tinyshakespeare": _tinyshakespeare,
    "ptb": _ptb,
}
