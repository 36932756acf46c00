"""When diverged pairs end a run, and what is said then."""

from pes_cluster.cluster.divergence import Watch
from pes_cluster.cluster.engine import Measured


def _seen(*diverged: tuple[int, ...]) -> list[Measured]:
    return [
        Measured(0.0, None, None, 8, 0, {}, pairs=4, diverged=pairs)
        for pairs in diverged
    ]


def test_the_first_step_that_fails_is_named_and_the_spell_goes_on() -> None:
    watch, failure = Watch("Bowl").over(10, _seen((), (2,), (2,)))
    assert failure is None and watch.since == 12
    watch, failure = watch.over(13, _seen((2,), (2, 3), (2, 3, 1)))
    assert watch.since == 12 and failure is not None
    assert "at outer step 15, some since outer step 12;" in failure


def test_the_step_since_which_pairs_diverge() -> None:
    watch, since = Watch("Bowl"), []
    for step, diverged in enumerate([(), (3,), (3, 4), (), (1,), (2,)], start=1):
        watch = watch.after(step, diverged)
        since.append(watch.since)
    assert since == [None, 2, 2, None, 5, 5]


def test_a_checkpoint_keeps_since_when() -> None:
    for watch in (Watch("Bowl"), Watch("Bowl").after(7, (1,))):
        assert Watch("Bowl").go_on_from(watch.totals()) == watch
    assert Watch("Bowl").go_on_from({}).since is None


def test_half_of_the_pairs_end_the_run() -> None:
    watch = Watch("Bowl").after(7, (0,)).after(8, (0, 3, 4))
    assert watch.failure(8, (0, 3), 5) is None
    assert watch.failure(8, (0, 3, 4), 6) == (
        "task Bowl: 50% of the pairs (3 of 6) have losses that are not finite at outer "
        "step 8, some since outer step 7; lower estimator.sigma or "
        "outer.optimizer.learning_rate"
    )
    assert watch.failure(8, (), 0) is None


def test_the_policy_fail_names_the_pairs() -> None:
    watch = Watch("Bowl", "fail")
    assert watch.failure(4, (), 100) is None
    assert watch.failure(4, (12,), 100) == (
        "task Bowl: the losses of pair 12 are not finite at outer step 4 "
        "(estimator.divergence: fail)"
    )
    many = watch.failure(4, tuple(range(11)), 100)
    assert many is not None
    assert "pairs 0, 1, 2, 3, 4, 5, 6, 7 and 3 more are not" in many
