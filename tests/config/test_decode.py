"""Strict decoding: what is taken, what is refused, and in which words."""

import dataclasses
from typing import Any, Literal

import pytest

from pes_cluster.config.decode import ConfigError, decode, encode


@dataclasses.dataclass(frozen=True)
class Constant:
    value: float
    type: Literal["constant"] = "constant"


@dataclasses.dataclass(frozen=True)
class Decay:
    rate: float
    every: int = 1
    type: Literal["decay"] = "decay"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every: {self.every} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Recipe:
    count: int
    rate: float | Constant | Decay = 0.5
    name: str | None = None
    on: bool = False
    mode: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    corner: tuple[float, float] = (0.0, 0.0)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


def test_takes_what_the_hints_say() -> None:
    value = {
        "count": 3,
        "rate": {"type": "decay", "rate": 1, "every": 2},
        "name": "x",
        "on": True,
        "mode": "b",
        "sizes": [1, 2],
        "corner": [1, 2.5],
        "labels": {"zone": "a"},
    }
    recipe = decode(Recipe, value, "recipe")
    assert recipe == Recipe(
        3, Decay(1.0, 2), "x", True, "b", (1, 2), (1.0, 2.5), {"zone": "a"}
    )
    assert isinstance(recipe.rate.rate, float)  # An int is taken for a float.
    assert decode(Recipe, encode(recipe), "recipe") == recipe


def test_fills_in_defaults() -> None:
    assert decode(Recipe, {"count": 1}, "recipe") == Recipe(1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, ["recipe.count: missing"]),
        ({"count": 1.0}, ["recipe.count: found 1.0", "valid integer"]),
        ({"count": True}, ["recipe.count: found true", "valid integer"]),
        ({"count": "1"}, ['recipe.count: found "1"', "valid integer"]),
        ({"count": None}, ["recipe.count: found null"]),
        ({"count": 1, "cuont": 1}, ["recipe.cuont: unknown key", "mean count?"]),
        ({"count": 1, "on": 1}, ["recipe.on: found 1", "boolean"]),
        ({"count": 1, "name": 1}, ["recipe.name: found 1", "string"]),
        ({"count": 1, "mode": "c"}, ["recipe.mode", "'a' or 'b'"]),
        ({"count": 1, "sizes": [1, "b"]}, ["recipe.sizes", "item 1", "integer"]),
        ({"count": 1, "sizes": 1}, ["recipe.sizes: found 1"]),
        ({"count": 1, "corner": [1.0]}, ["recipe.corner"]),
        ({"count": 1, "corner": [1, 2, 3]}, ["recipe.corner", "at most 2"]),
        ({"count": 1, "labels": {"a": 1}}, ["recipe.labels", "string"]),
        ({"count": 1, "rate": "x"}, ["recipe.rate", "number", "keys"]),
        ({"count": 1, "rate": {"type": "x"}}, ["recipe.rate.type", "constant, decay"]),
        ({"count": 1, "rate": {"rate": 1}}, ["recipe.rate.type: found null"]),
        ({"count": 1, "rate": {"type": "decay"}}, ["recipe.rate.rate: missing"]),
        (
            {"count": 1, "rate": {"type": "decay", "rate": 1, "every": 0}},
            ["recipe.rate.every: 0 must be at least 1"],
        ),
        (3, ["recipe: found 3", "count"]),
        ([], ["recipe: found []"]),
    ],
)
def test_refuses_in_one_line(value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(Recipe, value, "recipe")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("recipe")
    for word in words:
        assert word in message


def test_a_type_that_yaml_cannot_hold_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Bad:
        thing: "object | pytest.Config"

    with pytest.raises(ConfigError, match="^bad"):
        decode(Bad, {"thing": 1}, "bad")
