"""The rules of the source tree that no other tool checks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pes_cluster"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def sources(*folders: Path) -> list[Path]:
    found = sorted(path for folder in folders for path in folder.rglob("*.py"))
    assert found
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a Git working tree")
    for file in filter(None, listed.stdout.decode().split("\0")):
        if not (ROOT / file).is_file():
            continue
        try:
            yield file, (ROOT / file).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue


def test_layers_hold():
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_ray_backend_imports_ray():
    importers = {
        name(path)
        for path in sources(PACKAGE)
        if any(module.split(".")[0] == "ray" for module in imported(path))
    }
    assert not [
        file for file in importers if not file.startswith("pes_cluster/ray_backend/")
    ]


def test_package_and_numerics_import_neither_ray_nor_matplotlib():
    layers = ("core", "models", "estimators", "learners", "tasks", "cluster")
    numerics = [name(path) for path in sources(*(PACKAGE / layer for layer in layers))]
    modules = [file.removesuffix(".py").replace("/", ".") for file in numerics]
    program = (
        f"import importlib, sys\n"
        f"for module in {['pes_cluster', *modules]}:\n"
        f"    importlib.import_module(module)\n"
        f"print(*sorted({{'ray', 'matplotlib'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_what_asks_a_driver_loads_nothing_that_computes():
    heavy = ("jax", "optax", "matplotlib", "numpy", "fsspec", "pydantic", "rich")
    program = (
        "import sys\n"
        "import pes_cluster.ray_backend.inquiry\n"
        f"print(*sorted({set(heavy)} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_commands_that_only_ask_load_nothing_that_computes_or_draws():
    heavy = ("jax", "optax", "ray", "matplotlib")
    program = (
        "import sys\n"
        "from pes_cluster.cli import main\n"
        "assert main(['status', '--help']) == 0\n"
        "main(['status', '--address', 'http://127.0.0.1:1'])\n"
        f"print('loaded', *sorted({set(heavy)} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no cluster answers there" in done.stderr
    assert done.stdout.splitlines()[-1].split() == ["loaded"]


UNPICKLERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def test_nothing_is_unpickled():
    """What lies in storage may be anybody's, and to unpickle it is to run it."""
    assert not [
        (name(path), module)
        for path in sources(PACKAGE)
        for module in imported(path)
        if module.split(".")[0] in UNPICKLERS
    ]


def test_arrays_are_read_without_what_is_pickled_in_them():
    asked = [
        {word.arg: ast.unparse(word.value) for word in call.keywords}
        for path in sources(PACKAGE)
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("np.load", "numpy.load", "jnp.load")
    ]
    assert len(asked) == 2
    assert all(words.get("allow_pickle") == "False" for words in asked)


def test_files_are_short():
    lines = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(PACKAGE, ROOT / "tests")
    }
    assert {file: n for file, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short():
    lines = {
        f"{name(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources(PACKAGE, ROOT / "tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {item: n for item, n in lines.items() if n > MAX_FUNCTION_LINES} == {}


def test_modules_are_named_after_what_they_hold():
    paths = sources(PACKAGE)
    stems = {path.stem for path in paths} | {path.parent.name for path in paths}
    assert not VAGUE_NAMES & stems


def test_inits_of_subpackages_are_empty():
    inits = [path for path in sources(PACKAGE) if path.name == "__init__.py"]
    assert not [
        name(path)
        for path in inits
        if path.parent != PACKAGE and path.read_text(encoding="utf-8").strip()
    ]


def test_nothing_is_left_to_do():
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
    assert not [file for file, text in tracked_texts() if words.search(text)]


def test_no_path_of_one_machine():
    folders = "|".join(("work", "root", "home"))
    path = re.compile(rf"(?<![\w.~}}*/-])/({folders})/\w")
    found = {
        file: match.group()
        for file, text in tracked_texts()
        if (match := path.search(text))
    }
    assert found == {}
