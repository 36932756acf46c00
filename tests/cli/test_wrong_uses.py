"""Wrong uses: status 2, one line on stderr, nothing written."""

import json
import pathlib

import pytest

from pes_cluster.cli import main

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TOY = str(CONFIGS / "toy_regression" / "pes.yaml")
DIGITS = str(CONFIGS / "digits" / "tbptt.yaml")
LEARNER = str(CONFIGS / "least_mean_squares.yaml")

FILES = {
    "broken.yaml": "task: [1",
    "twice.yaml": "run: {seed: 0}\nrun: {seed: 1}\n",
    "list.yaml": "- task\n",
    "empty.yaml": "",
    "no_task.yaml": "estimator: {type: pes}\n",
    "bare.yaml": "run: {seed: 1}\n",
    "a_file": "",
    "full/notes.txt": "mine",
    "records/metrics.jsonl": "",
    "done/metrics.jsonl": '{"outer_step": 1, "inner_steps": 10, "loss": 1.0}\n',
    "odd/metrics.jsonl": '{"outer_step": 1}\n',
    "odd/result.json": "{",
    "garbled/config.yaml": "task: 3\n",
    "tasks_of_mine.py": """
import dataclasses
import jax.numpy as jnp

@dataclasses.dataclass(frozen=True)
class Shape:
    episode_length: int = 10
    def initial_theta(self, key): return jnp.zeros(2)
    def init(self, theta, key): return theta
    def step(self, theta, state, key): return state, state

@dataclasses.dataclass(frozen=True)
class Integers(Shape):
    def initial_theta(self, key): return jnp.zeros(2, int)

class Plain: pass

@dataclasses.dataclass(frozen=True)
class NoTask: pass
""",
    "does_not_parse.py": "def (",
    "imports_nothing.py": "import no_such_module_at_all\n",
}

USES = {
    "unknown command": (["foo"], "foo"),
    "no configuration": (["run"], "CONFIG"),
    "unknown option": (["run", TOY, "--fo"], "--fo"),
    "no such file": (["run", "nothing.yaml"], "nothing.yaml: cannot be read"),
    "a folder": (["run", "full"], "full: cannot be read"),
    "broken YAML": (["run", "broken.yaml"], "broken.yaml: is not YAML"),
    "a key twice": (["run", "twice.yaml"], "'run' appears twice"),
    "a list": (["run", "list.yaml"], "list.yaml: must hold sections"),
    "empty": (["run", "empty.yaml"], "empty.yaml: must hold sections"),
    "no task": (["run", "no_task.yaml"], "estimator.num_particles: missing"),
    "no method": (["run", "bare.yaml"], "estimator and learner"),
    "unknown section": (["run", TOY, "tsk.type=x"], "tsk: unknown key; did you"),
    "unknown key": (
        ["run", TOY, "estimator.num_particels=2"],
        "estimator.num_particels: unknown key; did you mean num_particles?",
    ),
    "unknown estimator": (["run", TOY, "estimator.type=psa"], "did you mean pes?"),
    "unknown task": (["run", TOY, "task.type=toy"], 'unknown task "toy"'),
    "unknown optimiser": (["run", TOY, "outer.optimizer.type=adm"], "mean adam?"),
    "odd N": (["run", TOY, "estimator.num_particles=3"], "must be even"),
    "negative N": (["run", TOY, "estimator.num_particles=-2"], "num_particles: -2"),
    "text for a number": (["run", TOY, "estimator.sigma=big"], 'found "big"'),
    "boolean for a number": (["run", TOY, "run.seed=true"], "run.seed: found true"),
    "fraction of a step": (["run", TOY, "run.outer_steps=1.5"], "outer_steps"),
    "no steps": (["run", TOY, "run.outer_steps=0"], "run.outer_steps: 0"),
    "negative rate": (
        ["run", TOY, "outer.optimizer.learning_rate=-1"],
        "outer.optimizer.learning_rate: -1.0 must be positive",
    ),
    "unknown store": (["run", TOY, "checkpoint.path=no://x"], "checkpoint.path: no://"),
    "unknown store, supervised": (
        ["supervise", TOY, "checkpoint.path=no://x"],
        "checkpoint.path: no://x: cannot be opened",
    ),
    "empty store": (["run", TOY, "checkpoint.path=''"], "checkpoint.path: empty"),
    "no minutes": (["run", TOY, "checkpoint.every_minutes=0"], "every_minutes: 0"),
    "unknown pool": (["run", TOY, "cluster.pool=rya"], "'ray' or 'local'"),
    "fused on Ray": (["run", TOY, "cluster.pool=ray"], "cluster.fuse"),
    "fused shapes": (
        ["run", TOY, "estimator.shaping.type=centered_ranks"],
        "cluster.fuse: host tasks and shaped scores",
    ),
    "final loss missing": (["run", TOY, "estimator.objective=final"], "final_loss"),
    "a learner with outer": (
        ["run", LEARNER, "outer.optimizer={type: sgd, learning_rate: 1}"],
        "outer: not allowed",
    ),
    "not an override": (["run", TOY, "run.seed"], "run.seed: not an override"),
    "override of no section": (
        ["run", TOY, "run.outer_steps.x=1"],
        "run.outer_steps.x: 20000 has no keys",
    ),
    "module missing": (["run", TOY, "task={type: 'no_mod:T'}"], "'no_mod' does not"),
    "module broken": (["run", TOY, "task={type: 'does_not_parse:T'}"], "SyntaxError"),
    "import broken": (
        ["run", TOY, "task={type: 'imports_nothing:T'}"],
        "no_such_module_at_all",
    ),
    "class missing": (["run", TOY, "task={type: 'tasks_of_mine:T'}"], "'T'"),
    "not a dataclass": (["run", TOY, "task={type: 'tasks_of_mine:Plain'}"], "'Plain'"),
    "not a task": (
        ["run", TOY, "task={type: 'tasks_of_mine:NoTask'}"],
        "no method step",
    ),
    "loss of a shape": (
        ["run", TOY, "task={type: 'tasks_of_mine:Shape'}"],
        "must be a scalar",
    ),
    "theta of integers": (
        ["run", TOY, "task={type: 'tasks_of_mine:Integers'}"],
        "floating point",
    ),
    "data missing": (
        [
            "run",
            DIGITS,
            "task.dataset=mnist",
            "task.data_dir=full",
            "cluster.pool=local",
        ],
        "mnist",
    ),
    "run dir is a file": (["run", TOY, "--run-dir", "a_file"], "not a directory"),
    "run dir below a file": (["run", TOY, "--run-dir", "a_file/x"], "a_file/x"),
    "run dir of others": (["run", TOY, "--run-dir", "full"], "other files"),
    "resume nothing": (["resume", "nowhere"], "nowhere: holds no run"),
    "resume garbled": (["resume", "garbled"], "garbled/config.yaml: task"),
    "plot nothing": (["plot", "nowhere"], "nowhere: holds no run"),
    "compare empty": (["compare", "records"], "holds no records yet"),
    "compare into a folder": (["compare", "done", "--out", "full"], "full: cannot be"),
    "report nothing": (["report", "done", "nowhere"], "nowhere: holds no run to show"),
    "report no run": (["report", "full"], "full: holds no run to show"),
    "report empty": (["report", "records"], "holds no records yet"),
    "report garbled": (["report", "odd"], "odd/result.json: cannot be read"),
    "report into nowhere": (
        ["report", "done", "--out", "no_folder/a.html"],
        "no_folder/a.html: cannot be written (No such file or directory)",
    ),
    "report into a folder": (["report", "done", "--out", "full"], "full: cannot be"),
    "report below a file": (["report", "done", "--out", "a_file/x"], "a_file/x"),
    "show a wrong one": (["config", "show", TOY, "run.sed=1"], "did you mean seed?"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PES_DATA_DIR", raising=False)
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("use", USES)
def test_one_line_and_nothing_written(
    use: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = USES[use]
    before = _tree(tmp_path)
    assert main(arguments) == 2
    written = capsys.readouterr()
    (line,) = written.err.splitlines()
    assert line.startswith("pes: ")
    assert words in line
    assert written.out == ""
    assert _tree(tmp_path) == before


def test_another_run_in_the_directory(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["run.outer_steps=2", "cluster.fuse=1", "--run-dir", "run"]
    assert main(["run", TOY, *short]) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert main(["run", TOY, "run.seed=1", "estimator.sigma=1", *short]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "estimator.sigma was 0.3, is 1.0" in line
    assert "run.seed was 0, is 1" in line
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished"


def _tree(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
