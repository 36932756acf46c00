"""What a run is, in a few words."""

import importlib
import re

import pytest

from pes_cluster.estimators import registry as estimators
from pes_cluster.learners import registry as learners
from pes_cluster.report.facts import differing, facts
from tests.report.samples import history

CLASSES = estimators.ESTIMATORS | learners.LEARNERS
REFERENCES = estimators.REFERENCES | learners.REFERENCES


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_reference_is_the_one_that_its_module_gives(name: str) -> None:
    module = importlib.import_module(CLASSES[name].partition(":")[0])
    assert module.__doc__ is not None
    words = re.findall(r"[A-Z][a-z]+\b|\d{4}", REFERENCES[name])
    said = [word for word in words if word not in ("Dickstein", "Sohl", "Algorithm")]
    # GPES sends to NRES for its paper; truncated ES to PES.
    assert said[0] in module.__doc__ and re.findall(r"\d{4}", REFERENCES[name])[0] in (
        module.__doc__
    )


def test_facts_name_the_paper_and_the_sizes() -> None:
    told = facts(history())
    assert told["Estimator"] == "pes" and told["Proposed by"].startswith("Vicol")
    assert (told["sigma"], told["Seed"]) == ("0.3", "3")
    assert told["N, particles at start"] == "100"


def test_a_sigma_that_decays_is_told_in_full() -> None:
    text = "estimator: {type: pes, sigma: {type: exponential_decay, rate: 0.5}}\n"
    told = facts(history(config=text))["sigma"]
    assert told == "type exponential_decay, rate 0.5"


def test_what_is_of_the_users_own_has_no_paper() -> None:
    told = facts(history(config="learner: {type: 'mine:Learner'}\n"))
    assert told == {"Learner": "mine:Learner"}


def test_what_differs() -> None:
    found = differing([history("a"), history("b", estimator="nres")])
    assert found == {"estimator.type": ["pes", "nres"]}
    assert differing([history("a"), history("b")]) == {}
