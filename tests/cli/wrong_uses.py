"""Wrong uses on this machine alone: what is given, and what must be said."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pes_cluster.config.run_config import load, to_yaml

if TYPE_CHECKING:
    from .scene import Scene

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TOY = str(CONFIGS / "toy_regression" / "pes.yaml")
DIGITS = str(CONFIGS / "digits" / "tbptt.yaml")
LEARNER = str(CONFIGS / "least_mean_squares.yaml")
TOY_IN_FULL = to_yaml(load(TOY))


@dataclasses.dataclass(frozen=True)
class Use:
    """A command line, and what must come of it.

    Attributes:
        arguments: Of `pes`.
        words: That are in the one line.
        status: What it exits with.
        before: Sets the scene.
    """

    arguments: list[str]
    words: str
    status: int = 2
    before: Callable[["Scene"], None] = lambda scene: None


def run(*overrides: str) -> list[str]:
    return ["run", TOY, *overrides]


def task(name: str) -> list[str]:
    return run(f"task={{type: '{name}'}}")


def mine(name: str) -> list[str]:
    return task(f"tasks_of_mine:{name}")


def mnist(*overrides: str) -> list[str]:
    return ["run", DIGITS, "cluster.pool=local", "task.dataset=mnist", *overrides]


def on_ray(*overrides: str) -> list[str]:
    return run("cluster.fuse=1", "cluster.pool=ray", *overrides)


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

    terminates = False

task = dataclasses.dataclass(frozen=True)

class Sound(Shape):
    def step(self, theta, state, key): return state, jnp.sum(theta)

@task
class Integers(Shape):
    def initial_theta(self, key): return jnp.zeros(2, int)

@task
class Empty(Shape):
    def initial_theta(self, key): return {}

@task
class Words(Shape):
    def initial_theta(self, key): return "theta"

@task
class Signature(Shape):
    def init(self, key): return jnp.zeros(2)

@task
class Counts(Shape):
    def step(self, theta, state, key): return state, 1

@task
class One(Shape):
    def step(self, theta, state, key): return jnp.sum(theta)

@task
class Raises(Shape):
    def step(self, theta, state, key): raise RuntimeError("broken\\nin two")

@task
class Branches(Sound):
    def init(self, theta, key): return theta if theta[0] > 0 else -theta

@task
class Fussy(Sound):
    rate: float = 1.0
    def __post_init__(self): raise TypeError("a rate of what?")

@task
class Simulator(Shape):
    host = True
    def init(self, theta, key): return "no numbers"

class Plain: pass

@task
class NoTask: pass
""",
    "does_not_parse.py": "def (",
    "imports_nothing.py": "import no_such_module_at_all\n",
    "raises.py": "import math\nmath.sqrt(-1)\n",
    "mnist/train-images-idx3-ubyte": "damaged",
    "packed/mnist/train-images-idx3-ubyte.gz": "not packed at all",
    "made/config.yaml": TOY_IN_FULL,
    "newer/config.yaml": f"{TOY_IN_FULL}wizard: {{spells: 3}}\n",
    "no_text.yaml": "\udcff\udcfe",
    "mine.yaml": TOY_IN_FULL.replace("toy_regression", "my_own:Task"),
    "my_own.py": "raise AssertionError\n",
    "tabs.yaml": "task:\n\t- x\n",
    "a_token": "word",
    "empty_token": "",
    "two_lines_token": "one\ntwo\n",
    "two_words_token": "one two",
    "accented_token": "jeton_caché",
    "odd_token": "\udcff\udcfe",
    "folder_token/notes.txt": "",
}

USES = {
    # --- Reading a configuration ---
    "unknown command": Use(["foo"], "foo"),
    "no configuration": Use(["run"], "CONFIG"),
    "unknown option": Use(run("--fo"), "--fo"),
    "no such file": Use(["run", "nothing.yaml"], "nothing.yaml: cannot be read"),
    "a folder": Use(["run", "full"], "full: cannot be read"),
    "broken YAML": Use(["run", "broken.yaml"], "broken.yaml: is not YAML"),
    "a key twice": Use(["run", "twice.yaml"], "'run' appears twice"),
    "a list": Use(["run", "list.yaml"], "list.yaml: must hold sections"),
    "empty": Use(["run", "empty.yaml"], "empty.yaml: must hold sections"),
    "no task": Use(["run", "no_task.yaml"], "estimator.num_particles: missing"),
    "no method": Use(["run", "bare.yaml"], "estimator and learner"),
    "unknown section": Use(run("tsk.type=x"), "tsk: unknown key; did you"),
    "unknown key": Use(
        run("estimator.num_particels=2"),
        "estimator.num_particels: unknown key; did you mean num_particles?",
    ),
    "unknown estimator": Use(run("estimator.type=psa"), "did you mean pes?"),
    "unknown task": Use(run("task.type=toy"), 'unknown task "toy"'),
    "unknown optimiser": Use(run("outer.optimizer.type=adm"), "mean adam?"),
    "odd N": Use(run("estimator.num_particles=3"), "must be even"),
    "negative N": Use(run("estimator.num_particles=-2"), "num_particles: -2"),
    "text for a number": Use(run("estimator.sigma=big"), 'found "big"'),
    "boolean for a number": Use(run("run.seed=true"), "run.seed: found true"),
    "fraction of a step": Use(run("run.outer_steps=1.5"), "outer_steps"),
    "no steps": Use(run("run.outer_steps=0"), "run.outer_steps: 0"),
    "negative rate": Use(
        run("outer.optimizer.learning_rate=-1"),
        "outer.optimizer.learning_rate: -1.0 must be positive",
    ),
    "unknown store": Use(run("checkpoint.path=no://x"), "checkpoint.path: no://"),
    "unknown store, supervised": Use(
        ["supervise", TOY, "checkpoint.path=no://x"],
        "checkpoint.path: no://x: cannot be opened",
    ),
    "empty store": Use(run("checkpoint.path=''"), "checkpoint.path: empty"),
    "no minutes": Use(run("checkpoint.every_minutes=0"), "every_minutes: 0"),
    "unknown pool": Use(run("cluster.pool=rya"), "'ray' or 'local'"),
    "fused on Ray": Use(run("cluster.pool=ray"), "cluster.fuse"),
    "fused shapes": Use(
        run("estimator.shaping.type=centered_ranks"),
        "cluster.fuse: host tasks and shaped scores",
    ),
    "final loss missing": Use(run("estimator.objective=final"), "final_loss"),
    "a learner with outer": Use(
        ["run", LEARNER, "outer.optimizer={type: sgd, learning_rate: 1}"],
        "outer: not allowed",
    ),
    "not an override": Use(run("run.seed"), "run.seed: not an override"),
    "override of no section": Use(
        run("run.outer_steps.x=1"), "run.outer_steps.x: 20000 has no keys"
    ),
    "module missing": Use(task("no_mod:T"), "'no_mod' does not"),
    "module broken": Use(task("does_not_parse:T"), "SyntaxError"),
    "import broken": Use(task("imports_nothing:T"), "no_such_module_at_all"),
    "class missing": Use(mine("T"), "'T'"),
    "not a dataclass": Use(mine("Plain"), "'Plain'"),
    "not a task": Use(mine("NoTask"), "no method initial_theta"),
    "loss of a shape": Use(mine("Shape"), "must be a scalar"),
    "theta of integers": Use(mine("Integers"), "floating point"),
    "data missing": Use(mnist("task.data_dir=full"), "mnist"),
    "run dir is a file": Use(run("--run-dir", "a_file"), "not a directory"),
    "run dir below a file": Use(run("--run-dir", "a_file/x"), "a_file/x"),
    "run dir of others": Use(run("--run-dir", "full"), "other files"),
    "resume nothing": Use(["resume", "nowhere"], "nowhere: holds no run"),
    "resume garbled": Use(["resume", "garbled"], "garbled/config.yaml: task"),
    "plot nothing": Use(["plot", "nowhere"], "nowhere: holds no run"),
    "compare empty": Use(["compare", "records"], "holds no records yet"),
    "show a wrong one": Use(["config", "show", TOY, "run.sed=1"], "did you mean seed?"),
    # --- Numbers that cannot be meant ---
    "no noise": Use(run("estimator.sigma=0"), "estimator.sigma: 0.0 must be greater"),
    "negative noise": Use(run("estimator.sigma=-1"), "estimator.sigma: -1.0"),
    "noise that is no number": Use(run("estimator.sigma=.nan"), "sigma: nan"),
    "endless noise": Use(run("estimator.sigma=.inf"), "sigma: inf"),
    "no window": Use(run("estimator.truncation_length=0"), "must be at least 1"),
    "K above T": Use(
        run("estimator.truncation_length=101"),
        "estimator.truncation_length: 101 is longer than the task's episode_length 100",
    ),
    "N beyond all numbers": Use(
        run("estimator.num_particles=100000000000000"), "must be at most 2147483646"
    ),
    "blocks of nothing": Use(run("estimator.pairs_per_block=0"), "pairs_per_block: 0"),
    "a seed of 33 bits": Use(run("run.seed=4294967296"), "must be below 4294967296"),
    "a negative seed": Use(run("run.seed=-1"), "run.seed: -1"),
    "a rate without end": Use(
        run("outer.optimizer.learning_rate=.inf"), "must be positive and finite"
    ),
    "momentum above 1": Use(
        run("outer.optimizer.b1=2"), "outer.optimizer.b1: 2.0 must be at least 0 and"
    ),
    "two updates late": Use(run("outer.staleness=2"), "outer.staleness: found 2"),
    "no episode": Use(run("task.episode_length=0"), "must be a positive integer"),
    "no shards": Use(run("cluster.shards=0"), "cluster.shards: 0"),
    "no deadline": Use(run("cluster.step_deadline=0"), "cluster.step_deadline: 0.0"),
    "a cap below": Use(run("estimator.loss_cap=-1"), "estimator.loss_cap: -1.0"),
    "more CPUs than there are": Use(
        on_ray("cluster.per_shard.num_cpus=4000"),
        "cluster.shards: 1 with 4000 CPU each need 4000 CPU, the cluster has",
    ),
    "a GPU where there is none": Use(
        on_ray("cluster.per_shard.num_gpus=9"),
        "cluster.shards: 1 with 9 GPU each need 9 GPU, the cluster has",
    ),
    # --- Types, deep in the sections ---
    "text deep inside": Use(
        run("cluster.per_shard.num_cpus=many"),
        'cluster.per_shard.num_cpus: found "many"',
    ),
    "a number for a section": Use(
        run("cluster.per_shard=3"), "expected keys: num_cpus"
    ),
    "a list for a mapping": Use(run("cluster.per_shard.env=[1]"), "must be an object"),
    "an unknown key deep inside": Use(
        run("cluster.budgets={bgs: 1}"),
        "cluster.budgets.bgs: unknown key; did you mean",
    ),
    "text in a list": Use(run("task.initial=[1, x]"), "item 1 must be a valid number"),
    "a number for a recipe": Use(run("task=3"), "task: found 3; expected {type:"),
    "a schedule of another kind": Use(
        run("estimator.sigma={type: linear}"), "estimator.sigma.initial: missing"
    ),
    "a tag that would run code": Use(
        run("run.seed=!!python/object/apply:os.getpid []"), "run.seed: is not YAML"
    ),
    "overrides before the file": Use(
        ["run", "run.seed=1", TOY], "run.seed=1: cannot be"
    ),
    "two files": Use(["run", TOY, DIGITS], "not an override"),
    "no text": Use(["run", "no_text.yaml"], "no_text.yaml: is not a text file"),
    "tabs": Use(["run", "tabs.yaml"], "tabs.yaml: is not YAML"),
    # --- Tasks of the user's own ---
    "no theta": Use(mine("Empty"), "initial_theta returned a pytree without arrays"),
    "theta of words": Use(mine("Words"), "initial_theta must return arrays"),
    "another signature": Use(mine("Signature"), "init must take (theta, key)"),
    "a loss that counts": Use(mine("Counts"), "the loss of a step is int32"),
    "a step of one value": Use(mine("One"), "step must return 2 values"),
    "a simulator of words": Use(
        mine("Simulator"), "init must return arrays of numbers"
    ),
    "a task that raises": Use(
        mine("Raises"), "RuntimeError: broken in two (tasks_of_mine.py, line ", 1
    ),
    "a task that branches": Use(
        mine("Branches"), "Attempted boolean conversion of traced array", 1
    ),
    "fields that raise": Use(mine("Fussy"), "TypeError: a rate of what? (tasks_of", 1),
    "a module that raises": Use(
        task("raises:T"), "(raises.py, line 2, in <module>)", 1
    ),
    "no name of a module": Use(
        task("../tasks_of_mine:T"), "is not the name of a module"
    ),
    "no name of a class": Use(task("tasks_of_mine:"), "no frozen dataclass ''"),
    "a module of elsewhere": Use(
        task("this:T"), "classes are taken only from the working directory"
    ),
    "a list for a type": Use(run("task.type=[x]"), 'unknown task ["x"]'),
    # --- Data ---
    "data named nowhere": Use(mnist(), "set data_dir (or PES_DATA_DIR) to the folder"),
    "data folder missing": Use(mnist("task.data_dir=nowhere"), "no train-images-idx3"),
    "data damaged": Use(mnist("task.data_dir=."), "the file is damaged or of another"),
    "data not packed": Use(mnist("task.data_dir=packed"), "not a whole gzip file"),
    "data unknown": Use(
        mnist("task.dataset=imagenet"), 'task.dataset: found "imagenet"'
    ),
    # --- Where a run lies ---
    "run dir unnamed": Use([*run(), "--run-dir", ""], "holds other files"),
    "run dir too long": Use([*run(), "--run-dir", "x" * 300], "name too long"),
    "run dir read-only": Use(
        [*run(), "--run-dir", "disk/a"],
        "disk/a: cannot be written (Read-only file system)",
        before=lambda scene: scene.mount("ro"),
    ),
    "disk full": Use(
        [*run(), "--run-dir", "disk/a"],
        "disk/a: cannot be written (No space left on device)",
        75,
        lambda scene: scene.fill(),
    ),
    "checkpoints read-only": Use(
        run("checkpoint.path=HERE/disk/a"),
        "cannot be written (Read-only file system)",
        before=lambda scene: scene.mount("ro"),
    ),
    "checkpoints on a full disk": Use(
        run("checkpoint.path=HERE/disk/a"),
        "cannot be written (No space left on device)",
        before=lambda scene: scene.fill(),
    ),
    "checkpoints below a file": Use(
        run("checkpoint.path=HERE/a_file/x"), "checkpoint.path: "
    ),
    "a store that is not installed": Use(
        run("checkpoint.path=s3://bucket/x"),
        "checkpoint.path: s3://bucket/x: cannot be",
    ),
    "another seed in the directory": Use(
        [*run("run.seed=1"), "--run-dir", "made"], "run.seed was 0, is 1"
    ),
    "resume of a newer version": Use(
        ["resume", "newer"], "newer/config.yaml: wizard: unknown key"
    ),
    "resume a file": Use(["resume", "a_file"], "a_file: holds no run"),
    "resume too long a name": Use(["resume", "x" * 300], "name too long"),
    # --- Commands to live runs ---
    "stop nowhere": Use(["stop", "nowhere"], "nowhere: holds no run"),
    "stop what nobody runs": Use(
        ["stop", "made", "--wait", "0"], "made: no process is running it now"
    ),
    "scale what nobody runs": Use(
        ["scale", "made", "--shards", "2", "--wait", "0"],
        "no process is running it now",
    ),
    "scale nothing": Use(["scale", "made"], "neither particles nor shards"),
    "scale below": Use(["scale", "made", "--particles", "-4"], "particles: -4"),
    "scale by words": Use(["scale", "made", "--particles", "many"], "--particles"),
    "negative patience": Use(["stop", "made", "--wait", "-1"], "--wait"),
    "negative restarts": Use(["supervise", TOY, "--restarts", "-1"], "--restarts"),
    "supervise no file": Use(["supervise", "nothing.yaml"], "cannot be read"),
    # --- Showing ---
    "plot a file": Use(["plot", "a_file"], "a_file: holds no run to show"),
    "plot without steps": Use(["plot", "made"], "made: holds no run to show"),
    "compare nothing": Use(["compare"], "RUN_DIR"),
    "compare nowhere": Use(["compare", "made", "nowhere"], "holds no run to show"),
    "compare into a folder": Use(
        ["compare", "done", "--out", "full"], "full: cannot be"
    ),
    "report nothing": Use(["report", "done", "nowhere"], "nowhere: holds no run"),
    "report no run": Use(["report", "full"], "full: holds no run to show"),
    "report empty": Use(["report", "records"], "holds no records yet"),
    "report garbled": Use(["report", "odd"], "odd/result.json: cannot be read"),
    "report into nowhere": Use(
        ["report", "done", "--out", "no_folder/a.html"],
        "no_folder/a.html: cannot be written (No such file or directory)",
    ),
    "report into a folder": Use(["report", "done", "--out", "full"], "full: cannot be"),
    "report below a file": Use(["report", "done", "--out", "a_file/x"], "a_file/x"),
    "show no file": Use(["config", "show", "nothing.yaml"], "nothing.yaml: cannot be"),
    "show a folder": Use(["config", "show", "full"], "full: cannot be read"),
    "unknown command of config": Use(["config", "shw"], "shw"),
}
