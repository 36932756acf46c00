"""Strict decoding of plain values (what YAML holds) into frozen dataclasses, and back.

The type hints of a dataclass are its schema; pydantic judges the plain fields. A field
may be a dataclass, or a union with some: those are told apart by the value of a field
``type: Literal[...]``. Every refusal is one line that begins with the dotted path.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pydantic

from pes_cluster.core.metadata import RECIPES

_FORBID_EXTRA = pydantic.ConfigDict(extra="forbid")


class ConfigError(ValueError):
    """A configuration that is refused; one line: path, what was found, what may be."""


def decode(kind: Any, value: Any, path: str) -> Any:
    """Returns `value` as an instance of the type `kind`.

    Args:
        kind: A plain type (int, float, str, bool, None, Literal, tuple, dict), a
            dataclass of such, or a union.
        value: As YAML or JSON give it. An int is taken for a float, nothing else is
            converted.
        path: Dotted, for the error.

    Raises:
        ConfigError: The value does not fit.
    """
    item = _item(kind)
    if item is not None and isinstance(value, list):
        items = enumerate(value)
        return tuple(decode(item, one, f"{path}[{index}]") for index, one in items)
    members = _members(kind)
    records = [member for member in members if dataclasses.is_dataclass(member)]
    if records and isinstance(value, dict):
        return decode_record(_chosen(records, value, path), value, path)
    plain = tuple(member for member in members if member not in records)
    if not plain:
        allowed = " | ".join(_shape(record) for record in records)
        raise ConfigError(f"{path}: found {shown(value)}; expected keys: {allowed}")
    return _plain(typing.Union[plain], value, path, records)  # noqa: UP007


def decode_record(
    kind: type[Any],
    value: Any,
    path: str,
    recipe: Callable[[Any, str], Any] | None = None,
) -> Any:
    """Returns a mapping as an instance of the dataclass `kind`.

    Args:
        kind: The dataclass.
        value: As YAML or JSON give it.
        path: Dotted, for the error.
        recipe: ``(value, path) -> recipe``, for the items of the fields whose metadata
            has `RECIPES`.

    Raises:
        ConfigError: A key is unknown or missing, a value has the wrong type, or the
            dataclass itself refuses with a ValueError.
    """
    hints = _hints(kind, path)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: found {shown(value)}; expected keys: {', '.join(fields)}"
        )
    check_keys(value, fields, path)
    missing = [
        name
        for name, field in fields.items()
        if name not in value
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(
            f"{joined(path, missing[0])}: missing; {_shape(kind)} are required"
        )
    decoded = {}
    for name, item in value.items():
        place = joined(path, name)
        if recipe is not None and RECIPES in fields[name].metadata:
            decoded[name] = _recipes(recipe, item, place)
        else:
            decoded[name] = decode(hints[name], item, place)
    try:
        return kind(**decoded)
    except ValueError as error:
        raise ConfigError(_refusal(path, fields, one_line(error))) from error


def encode(value: Any, recipe: Callable[[Any], Any] | None = None) -> Any:
    """Returns plain values that `decode` takes back: dataclasses become mappings.

    `recipe` encodes the items of the fields whose metadata has `RECIPES`.
    """
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if field.init]
        fields.sort(
            key=lambda field: field.kw_only is True
        )  # As the constructor takes them.
        return {
            field.name: [recipe(item) for item in getattr(value, field.name)]
            if recipe is not None and RECIPES in field.metadata
            else encode(getattr(value, field.name))
            for field in fields
        }
    if isinstance(value, dict):
        return {name: encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def check_keys(value: dict[Any, Any], allowed: Iterable[str], path: str) -> None:
    """Refuses a mapping with a key that is not allowed.

    Raises:
        ConfigError: Naming the key, the nearest allowed one, and all of them.
    """
    allowed = list(allowed)
    for key in value:
        if key not in allowed:
            raise ConfigError(
                f"{joined(path, str(key))}: unknown key; "
                f"{suggestion(str(key), allowed)}(allowed: {', '.join(allowed)})"
            )


def suggestion(found: str, allowed: Collection[str]) -> str:
    """Returns ``"did you mean x? "``, or nothing where no allowed name is near."""
    near = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {near[0]}? " if near else ""


def joined(path: str, name: str) -> str:
    """Returns the dotted path of a member."""
    return f"{path}.{name}" if path else name


def one_line(error: BaseException) -> str:
    """Returns an error's message without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(value: Any) -> str:
    """Returns a value as JSON, cut to a readable length."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _members(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _recipes(recipe: Callable[[Any, str], Any], value: Any, path: str) -> Any:
    if not isinstance(value, list):
        raise ConfigError(f"{path}: found {shown(value)}; must be a list")
    return tuple(recipe(one, f"{path}[{index}]") for index, one in enumerate(value))


def _item(kind: Any) -> type[Any] | None:
    """Returns the dataclass of which `kind` is a tuple of any length, or None."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and arguments[1:] == (...,):
        item = arguments[0]
        return (
            item if dataclasses.is_dataclass(item) and isinstance(item, type) else None
        )
    return None


def _hints(kind: type[Any], path: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"{path}: a type in {kind.__name__} cannot be resolved ({error})"
        ) from error


def _plain(kind: Any, value: Any, path: str, records: list[Any]) -> Any:
    try:
        adapter = pydantic.TypeAdapter(kind, config=_FORBID_EXTRA)
    except pydantic.errors.PydanticUserError as error:
        raise ConfigError(f"{path}: {kind} is not a type of plain values") from error
    try:
        # Strict JSON, unlike strict Python, takes a list where a tuple is asked for.
        return adapter.validate_json(json.dumps(value, default=str), strict=True)
    except pydantic.ValidationError as error:
        expected = _expected(error, isinstance(value, list | dict))
        sections = [f"keys {_shape(record)}" for record in records]
        allowed = " or ".join([*expected, *sections])
        raise ConfigError(f"{path}: found {shown(value)}; {allowed}") from error


def _expected(error: pydantic.ValidationError, nested: bool) -> list[str]:
    """Returns what pydantic asks for, each once, with the place inside a container."""
    messages: list[str] = []
    for detail in error.errors(include_url=False):
        message = detail["msg"].replace("Input should be", "must be")
        place = [str(part) for part in detail["loc"] if isinstance(part, int)]
        if nested and place:
            message = f"item {'.'.join(place)} {message}"
        if messages:
            message = message.removeprefix("must be ")
        if message not in messages:
            messages.append(message)
    return messages


def _chosen(records: list[Any], value: dict[Any, Any], path: str) -> type[Any]:
    if len(records) == 1:
        return records[0]
    by_tag = {tag: record for record in records for tag in _tags(record)}
    tag = value.get("type")
    if tag not in by_tag:
        raise ConfigError(
            f"{joined(path, 'type')}: found {shown(tag)}; must be one of "
            f"{', '.join(sorted(by_tag))}"
        )
    return by_tag[tag]


def _tags(record: Any) -> tuple[Any, ...]:
    return typing.get_args(typing.get_type_hints(record).get("type"))


def _shape(record: Any) -> str:
    """Returns a dataclass' required keys, or all of them where none is required."""
    fields = [field for field in dataclasses.fields(record) if field.init]
    required = [
        field
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    return ", ".join(field.name for field in required or fields)


def _refusal(path: str, fields: Collection[str], message: str) -> str:
    """Joins a dataclass' own message, which may begin with one of its fields."""
    first, _, rest = message.partition(": ")
    if path and first in fields:
        return f"{path}.{message}"
    own = path.rpartition(".")[2]
    return f"{path}: {rest if first == own and rest else message}"
