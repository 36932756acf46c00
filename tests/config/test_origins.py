"""Classes that a configuration names: from where they are taken, and from where not."""

import importlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from pes_cluster.config import origins
from pes_cluster.config.decode import ConfigError
from pes_cluster.config.origins import OriginError
from pes_cluster.config.run_config import load

TOY = pathlib.Path(__file__).parents[2] / "configs" / "toy_regression" / "pes.yaml"
RAN = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def elsewhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pathlib.Path]:
    """A folder on Python's path beside the working directory."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path / "elsewhere"
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def write(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RAN)
    importlib.invalidate_caches()
    return path


@pytest.mark.parametrize("file", ["my_a.py", "my_a/b.py", "my_a/__init__.py"])
def test_what_lies_elsewhere_on_the_path_is_refused_and_never_run(
    elsewhere: pathlib.Path, file: str
) -> None:
    written = write(elsewhere / file)
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    with pytest.raises(OriginError, match=f"lies in {written.parent}, but"):
        origins.load(name)
    assert not written.with_suffix(".ran").exists()
    with pytest.raises(ConfigError, match=f"^task.type: module '{name}' lies in"):
        load(TOY, [f"task={{type: '{name}:T'}}"])


def test_so_it_is_by_way_of_two_dots(
    elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(elsewhere.parent / "my_a.py")
    monkeypatch.setattr(sys, "path", ["..", *sys.path])
    with pytest.raises(OriginError):
        origins.load("my_a")
    for name in ("..my_a", ".my_a", "../my_a", "my_a.", "", "my a"):
        with pytest.raises(ConfigError, match=r"is not the name of a module"):
            load(TOY, [f"task={{type: '{name}:T'}}"])


def test_a_package_whose_parts_lie_apart_gives_only_the_near_ones(
    elsewhere: pathlib.Path,
) -> None:
    """Folders of one name without an `__init__.py` are one package to Python."""
    near = write(pathlib.Path("my_a/near.py").absolute())
    far = write(elsewhere / "my_a" / "far.py")
    origins.load("my_a.near")
    with pytest.raises(OriginError):
        origins.load("my_a.far")
    assert near.with_suffix(".ran").exists() and not far.with_suffix(".ran").exists()


def test_a_package_that_reaches_elsewhere_does_not_take_us_there(
    elsewhere: pathlib.Path,
) -> None:
    write(elsewhere / "b.py")
    write(pathlib.Path("my_a/__init__.py").absolute())
    pathlib.Path("my_a/__init__.py").write_text(f"__path__ = [{str(elsewhere)!r}]")
    with pytest.raises(OriginError):
        origins.load("my_a.b")


@pytest.mark.parametrize("name", ["antigravity", "this", "idlelib.idle"])
def test_python_itself_is_no_installed_package(name: str) -> None:
    with pytest.raises(OriginError):
        origins.load(name)


@pytest.mark.parametrize("file", ["my_a.py", "my_a/b.py", "src/my_a.py"])
def test_the_working_directory_is_taken(elsewhere: pathlib.Path, file: str) -> None:
    write(pathlib.Path(file).absolute())
    sys.path.insert(0, os.path.abspath("src"))
    name = file.removeprefix("src/").removesuffix(".py").replace("/", ".")
    assert origins.load(name).__name__ == name


def test_by_another_name_it_is_the_working_directory_too(
    elsewhere: pathlib.Path,
) -> None:
    link = elsewhere.parent / "link"
    link.symlink_to(pathlib.Path.cwd())
    sys.path.insert(0, str(link))
    write(pathlib.Path("my_a.py").absolute())
    assert origins.load("my_a").__name__ == "my_a"


def test_installed_packages_are_taken_and_those_installed_to_be_edited(
    elsewhere: pathlib.Path,
) -> None:
    assert origins.load("optax.contrib").__name__ == "optax.contrib"
    write(elsewhere / "src" / "my_a.py")
    sys.path.insert(0, str(elsewhere / "src"))
    with pytest.raises(OriginError):
        origins.load("my_a")
    told = {"url": elsewhere.as_uri(), "dir_info": {"editable": True}}
    record = elsewhere / "my_a-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Name: my_a\nVersion: 1.0\n")
    (record / "direct_url.json").write_text(json.dumps(told))
    assert origins.load("my_a").__name__ == "my_a"


def test_what_is_loaded_already_is_taken_as_it_is(elsewhere: pathlib.Path) -> None:
    written = write(elsewhere / "my_a.py")
    module = importlib.import_module("my_a")
    written.with_suffix(".ran").unlink()
    assert origins.load("my_a") is module
    assert not written.with_suffix(".ran").exists()
