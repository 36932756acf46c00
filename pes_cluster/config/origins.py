"""Where a class that a configuration names may come from.

Loading a module runs it, and a configuration may come from anybody. So it names only
modules of the working directory, which travels with a job, and of installed packages.
What else Python's path leads to is refused before any of it runs.
"""

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import site
import sys
import sysconfig
import types
import urllib.parse
import urllib.request
from collections.abc import Iterator


class OriginError(ImportError):
    """A module that lies where no configuration may take it from; one line."""


def load(name: str) -> types.ModuleType:
    """Imports a module by its dotted name, from where that is allowed.

    One that is loaded already is taken as it is: nothing of it runs again.

    Raises:
        OriginError: It, or a package that it is in, lies elsewhere.
        ImportError: It is not there, or cannot be imported.
    """
    here = os.getcwd()
    # A console script does not have the working directory on its path, as python has.
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        # From the outside in: to find a module is to import the package that it is in.
        level = ".".join(parts[:length])
        if level not in sys.modules:
            _check(level, pathlib.Path(here))
            importlib.import_module(level)
    return sys.modules[name]


def _check(name: str, here: pathlib.Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if spec.origin is None or not spec.has_location:
        return  # A folder without code of its own; or a part of Python itself.
    file = pathlib.Path(spec.origin)
    if any(_within(file, root) for root in (here, *_installed())):
        return
    if not any(_within(file, root) for root in _editable()):
        raise OriginError(
            f"lies in {file.parent}, but classes are taken only from the working "
            f"directory ({here}) and from installed packages"
        )


def _within(file: pathlib.Path, root: pathlib.Path) -> bool:
    seen = pathlib.Path(os.path.abspath(file))
    return seen.is_relative_to(root) or file.resolve().is_relative_to(root.resolve())


def _installed() -> Iterator[pathlib.Path]:
    """The folders of installed packages, and this package's own."""
    yield pathlib.Path(__file__).resolve().parents[1]
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    yield from map(pathlib.Path, folders)


def _editable() -> Iterator[pathlib.Path]:
    """The folders of packages that were installed to be edited (PEP 610)."""
    for distribution in importlib.metadata.distributions():
        try:
            told = json.loads(distribution.read_text("direct_url.json") or "{}")
            url = urllib.parse.urlsplit(told["url"])
            editable = told["dir_info"]["editable"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if editable and url.scheme == "file":
            yield pathlib.Path(urllib.request.url2pathname(url.path))
