"""Texts as numbers: the generated ones, the real ones, and what is refused."""

import hashlib

import numpy as np
import pytest

from pes_cluster.tasks import texts
from pes_cluster.tasks.data_files import DataFile, DatasetError


def test_random_symbols_are_uniform_and_independent():
    text = texts.load("random")
    assert len(text.symbols) == 50
    count = len(text.train)
    shares = np.bincount(text.train, minlength=50) / count
    five = 5 * np.sqrt(0.02 * 0.98 / count)  # Standard errors of a share of 1 / 50.
    np.testing.assert_allclose(shares, 0.02, atol=five)
    assert np.mean(text.train[1:] == text.train[:-1]) == pytest.approx(0.02, abs=five)


def test_repeat_is_the_first_symbol_throughout():
    text = texts.load("repeat")
    first = texts.load("random").train[0]
    assert set(text.train.tolist()) == set(text.validation.tolist()) == {first}
    assert len(text.symbols) == 50


def test_characters_are_numbered_in_their_order():
    text = texts.encoded("ba\nab", "bb")
    assert text.symbols == "\nab"
    assert text.train.tolist() == [2, 1, 0, 1, 2]
    assert text.validation.tolist() == [2, 2]
    with pytest.raises(DatasetError, match="validation text alone has .'x'"):
        texts.encoded("ab", "ax")


def test_the_treebank_keeps_one_newline_a_sentence(tmp_path, monkeypatch):
    contents = {"train": " aa b \n c N \n", "valid": " b \n"}
    files = []
    (tmp_path / "ptb").mkdir()
    for name, content in contents.items():
        path = tmp_path / "ptb" / f"ptb.{name}.txt"
        path.write_text(content)
        files.append(DataFile(path.name, hashlib.md5(content.encode()).hexdigest()))
    monkeypatch.setattr(texts, "_PTB", tuple(files))
    text = texts._ptb(str(tmp_path))
    assert "".join(text.symbols[x] for x in text.train) == "aa b\nc N\n"
    assert "".join(text.symbols[x] for x in text.validation) == "b\n"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "validation", "symbols"),
    [("ptb", 5017482, 393042, 50), ("tinyshakespeare", 1003854, 111540, 65)],
)
def test_real_texts(data_dir, name, train, validation, symbols):
    if not (data_dir / name).is_dir():
        pytest.skip(f"no {name} in the folder of the data sets")
    text = texts.load(name, str(data_dir))
    assert (len(text.train), len(text.validation)) == (train, validation)
    assert len(text.symbols) == symbols
    assert text.train.max() == symbols - 1


def test_absent_files_are_one_line(tmp_path):
    with pytest.raises(DatasetError, match="set ptb: no ptb.train.txt in") as caught:
        texts.load("ptb", str(tmp_path))
    assert "download" not in str(caught.value)
    with pytest.raises(DatasetError, match="input.txt in .* or data_dir: download"):
        texts.load("tinyshakespeare", str(tmp_path))
    with pytest.raises(DatasetError, match="unknown text 'wiki'; known are random, "):
        texts.load("wiki")
