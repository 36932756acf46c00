"""YAML documents: reading strictly, and overriding keys from a command line."""

import pathlib
import re
from typing import Any

import yaml

from pes_cluster.config.decode import ConfigError, one_line


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (1e-3 is one), and no key twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} appears twice", node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns a file's mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> dict[str, Any]:
    """Returns a text's mapping; raises as `read`, naming the source."""
    value = _parse(text, source)
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: must hold sections such as task and estimator")
    return value


def write(document: dict[str, Any]) -> str:
    """Returns a mapping as YAML, in its own order."""
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted path."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{path}.{name}" if path else name)
    return found


def override(document: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Returns a copy with every ``key.path=value`` set; values are YAML.

    Raises:
        ConfigError: An assignment has no ``=``, no key, or a value that is not YAML; or
            it goes below a value that is no section.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise ConfigError(
                f"{assignment}: not an override; write key.path=value, such as "
                "run.seed=1"
            )
        document = _with(document, names, _parse(text, path), path)
    return document


def _with(section: Any, names: list[str], value: Any, path: str) -> dict[str, Any]:
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {section!r} has no keys to override")
    name, *rest = names
    inner = _with(section.get(name), rest, value, path) if rest else value
    return {**section, name: inner}


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: is not YAML ({one_line(error)})") from error
