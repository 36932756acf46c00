"""The sections of a run, their digest, and every file in configs/."""

import pathlib

import pytest

import pes_cluster as pes
from pes_cluster.config.run_config import (
    RunConfig,
    differences,
    digest,
    from_dict,
    load,
    to_dict,
    to_yaml,
)

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
TOY = CONFIGS / "toy_regression" / "pes.yaml"
SMALL = {
    "estimator.num_particles": 4,
    "estimator.top_directions": 1,
    "learner.num_seeds": 2,
    "task.hidden": [4],
    "task.episode_length": 20,
    "task.batch_size": 4,
    "task.optimizer_hidden": [4],
    "task.evaluation_steps": 20,
}


@pytest.fixture(autouse=True)
def _beside_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of one's own is imported from the folder in which its file is run."""
    monkeypatch.syspath_prepend(str(CONFIGS / "your_own_task"))


def _small(path: pathlib.Path) -> RunConfig:
    """A file's configuration, two steps long and as small as its keys allow."""
    sections = to_dict(load(path))
    settings = ["cluster.pool=local", "run.outer_steps=2", "run.eval_every=1"]
    for key, value in SMALL.items():
        section, name = key.split(".")
        if name in sections.get(section, {}):
            settings.append(f"{key}={value}")
    if "dataset" in sections.get("task", {}):
        # The others are not in the tree.
        settings += ["task.dataset=digits", "task.image_size=null"]
    if sections.get("estimator", {}).get("truncation_length", 0) > 10:
        settings.append("estimator.truncation_length=10")
    return load(path, settings)


def test_there_are_configurations() -> None:
    assert len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_each_file_round_trips(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(config))
    assert load(copy) == config
    assert digest(load(copy)) == digest(config)
    text = path.read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) < 25


QUICK = {
    *("influence_balancing", "toy_regression", "digits/pes", "digits/tbptt"),
    "configs/least_mean_squares",
}  # The others ask for what these ask for, and compile for long; so do, in there:
SLOW = (
    "influence_balancing/pes_analytic",
    "influence_balancing/uoro",
    "toy_regression/forward_gradient",
    "toy_regression/openai_es",
    "toy_regression/uoro",
)


def _marks(path: pathlib.Path) -> list[pytest.MarkDecorator]:
    name = f"{path.parent.name}/{path.stem}"
    quick = QUICK & {name, path.parent.name} and name not in SLOW
    if quick:
        return []
    older = path.parent.name in ("digits", "mnist")
    return [pytest.mark.slow if older else pytest.mark.nightly]


RUNS = [
    pytest.param(
        path,
        id=f"{path.parent.name}/{path.stem}",
        marks=_marks(path),
    )
    for path in FILES
]


@pytest.mark.parametrize("path", RUNS)
def test_each_file_runs_two_steps(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    seen = []
    result = pes.run(_small(path), tmp_path, on_record=seen.append)
    assert result.status == "finished", result.error
    assert [record.outer_step for record in seen] == [1, 2]
    learns = _small(path).learner is not None
    assert (result.eval_loss is None) == learns
    assert (tmp_path / "plots" / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "setting",
    [
        "run.outer_steps=7",
        "run.eval_every=3",
        "cluster.shards=3",
        "cluster.fuse=50",
        "checkpoint.every=7",
        "estimator.pairs_per_block=7",  # The default for 50 pairs, written out.
    ],
)
def test_digest_ignores_what_cannot_change_the_result(setting: str) -> None:
    assert digest(load(TOY, [setting])) == digest(load(TOY))
    assert differences(load(TOY), load(TOY, [setting])) == []


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("run.seed=1", "run.seed was 0, is 1"),
        ("estimator.sigma=0.4", "estimator.sigma was 0.3, is 0.4"),
        ("task.initial=[-4, -3]", "task.initial was [-4.0, -4.0], is [-4.0, -3.0]"),
        ("estimator.pairs_per_block=5", "estimator.pairs_per_block was 7, is 5"),
        ("outer.optimizer.b1=0.9", "outer.optimizer.b1 was 0.99, is 0.9"),
        ("cluster.fuse=1", "cluster.fused was true, is absent"),
    ],
)
def test_digest_sees_what_changes_the_result(setting: str, line: str) -> None:
    assert digest(load(TOY, [setting])) != digest(load(TOY))
    assert differences(load(TOY), load(TOY, [setting])) == [line]


def test_digest_is_stable() -> None:
    """It stands in checkpoints: a new value orphans every run that there is."""
    config = from_dict(
        {
            "learner": {"type": "least_mean_squares"},
            "run": {"seed": 5},
        }
    )
    expected = "450f27ac38904720ba690c37b9b0a74ac7e9681e9fb9c72c772441af80498d2f"
    assert digest(config) == expected


def test_from_python_equals_from_yaml() -> None:
    config = pes.RunConfig(
        task=pes.ToyRegression(),
        estimator=pes.PES(num_particles=100, truncation_length=10, sigma=0.3),
        outer=pes.OuterSettings(pes.Adam(learning_rate=0.01, b1=0.99)),
        run=pes.RunSettings(outer_steps=20000, eval_every=10),
        cluster=pes.ClusterSettings(pool="local", fuse=1000),
        checkpoint=pes.CheckpointSettings(every=1000),
    )
    assert config == load(TOY)


def test_a_class_of_the_users_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_decay.py").write_text(
        "import dataclasses, optax\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine:\n"
        "    learning_rate: float\n"
        "    def transformation(self):\n"
        "        return optax.sgd(self.learning_rate)\n"
    )
    monkeypatch.chdir(tmp_path)
    mine = "outer.optimizer={type: 'my_decay:Mine', learning_rate: 1}"
    config = load(TOY, [mine])
    assert config.outer is not None
    assert type(config.outer.optimizer).__name__ == "Mine"
    assert to_dict(config)["outer"]["optimizer"] == {
        "type": "my_decay:Mine",
        "learning_rate": 1.0,
    }
    with pytest.raises(pes.ConfigError, match="outer.optimizer.rate: unknown key"):
        load(TOY, [mine, "outer.optimizer.rate=1"])
