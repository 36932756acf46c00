"""YAML as it is read, and overrides of its keys."""

import pathlib

import pytest

from pes_cluster.config import document
from pes_cluster.config.decode import ConfigError


@pytest.mark.parametrize("text", ["1e-3", "1.e-3", "0.001", "1.0e-3", ".1e-2"])
def test_numbers_with_an_exponent_are_numbers(
    text: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"rate: {text}\n")
    assert document.read(path) == {"rate": 0.001}


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: [1", "- 1\n", "", "3", "a: !!python/object:os.x {}"]
)
def test_refuses_what_is_no_mapping(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        document.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_leave_the_original_alone() -> None:
    original = {"run": {"seed": 0}, "task": {"type": "a"}}
    changed = document.override(
        original, ["run.seed=3", "outer.optimizer={type: sgd, learning_rate: 1e-2}"]
    )
    assert changed["run"] == {"seed": 3}
    assert changed["outer"] == {"optimizer": {"type": "sgd", "learning_rate": 0.01}}
    assert original == {"run": {"seed": 0}, "task": {"type": "a"}}


@pytest.mark.parametrize("text", ["run.seed", "=3", "run..seed=3", "run.seed.x=1"])
def test_refuses_odd_overrides(text: str) -> None:
    with pytest.raises(ConfigError):
        document.override({"run": {"seed": 0}}, [text])
