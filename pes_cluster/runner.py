"""Runs a configuration: puts task, pool, driver and files together."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np

from pes_cluster import blame, plots
from pes_cluster.cluster.checkpoint import CheckpointStore
from pes_cluster.cluster.control import Asked, ControlFolder
from pes_cluster.cluster.divergence import Watch
from pes_cluster.cluster.driver import Driver
from pes_cluster.cluster.engine import Engine, PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.fused import FusedEngine
from pes_cluster.cluster.leaves import from_arrays, to_arrays
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.plan import Outcome, Plan
from pes_cluster.cluster.pool import Pool
from pes_cluster.cluster.work import Work
from pes_cluster.config.decode import ConfigError, one_line
from pes_cluster.config.run_config import RunConfig, digest
from pes_cluster.core import several, trees
from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.task import TaskError, Theta, rehearse
from pes_cluster.listeners import Listener, Shown, check_extras, heard_by, mailbox
from pes_cluster.metrics import jsonl
from pes_cluster.metrics.record import StepRecord
from pes_cluster.outer import SGD, Optimizer
from pes_cluster.run_directory import RunDirectory, RunDirectoryError, fresh

_log = logging.getLogger(__name__)

_ECHO = 1.0  # Seconds in which signals that follow one another are one.
# A learner's theta is empty, so this updates nothing; the driver needs some optimiser.
_NO_OUTER = SGD(learning_rate=1.0)


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended; what `result.json` holds.

    Attributes:
        status: finished, stopped (by a signal; resumable) or failed.
        theta: The meta-parameters, as numpy.
        theta_sha256: Hash of theta's paths, types, shapes and bytes.
        outer_steps: Updates done.
        inner_steps: Inner steps charged, all particles counted.
        wall_seconds: Over all sittings.
        loss: The last window's; None where no step was made.
        eval_loss: The last evaluation's; None where there was none.
        run_dir: Where everything lies.
        error: Why it failed, one line.
        resumable: Of a failure: where it ran is at fault; tried again, it may go on.
        stopped_by: The number of the signal that stopped it.
    """

    status: Literal["finished", "stopped", "failed"]
    theta: Theta
    theta_sha256: str
    outer_steps: int
    inner_steps: int
    wall_seconds: float
    loss: float | None
    eval_loss: float | None
    run_dir: pathlib.Path
    error: str | None = None
    resumable: bool = False
    stopped_by: int | None = None


def run(
    config: RunConfig,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    on_record: Callable[[StepRecord], None] = lambda record: None,
) -> Result:
    """Runs a configuration, or continues it where the directory holds its run.

    SIGTERM and SIGINT end it at the next step boundary, after a checkpoint.

    Args:
        config: What to run.
        run_dir: Where to keep the run; by default a new one under ``runs/``.
        on_record: Called for every outer step, in order.

    Raises:
        ConfigError: The task or the method refuses the configuration.
        RunDirectoryError: The directory holds another run, or cannot be written.
    """
    if config.cluster.pool == "ray":
        # Before any array exists: the GPUs belong to the shards, not to the driver.
        jax.config.update("jax_platforms", "cpu")
    check_extras(config)
    work = Work(config.task, config.method, config.run.seed)
    theta = _checked_theta(work, "learner" if config.estimator is None else "estimator")
    directory = RunDirectory(fresh(config.name) if run_dir is None else run_dir)
    directory.check(config)
    store = directory.store(config)
    directory.check_store(store)
    ended = _already_finished(directory, config, theta)
    if ended is not None:
        _log.info("%s: the run is finished; nothing to do", directory.path)
        return ended
    # The engine comes first: where it is refused, nothing has been written.
    with (
        _asked_to_stop() as asked,
        mailbox(config, directory) as box,
        contextlib.closing(_engine(config, work, directory)) as engine,
        directory.opened(config),
        heard_by(config, directory, box) as hearing,
    ):
        commands = box.take if box else list
        listeners = [Shown(on_record), *hearing]
        outcome = _drive(
            config, directory, store, engine, work, listeners, asked, commands
        )
        return _finish(directory, config, outcome, asked)


def resume(
    run_dir: str | os.PathLike[str],
    *,
    on_record: Callable[[StepRecord], None] = lambda record: None,
) -> Result:
    """Continues the run in a directory from its newest checkpoint; raises as `run`."""
    config = RunDirectory(run_dir).saved_config()
    return run(config, run_dir, on_record=on_record)


def _checked_theta(work: Work, section: str) -> Theta:
    """Returns the first theta, once task and method have accepted each other.

    An error in the user's own code rises as it is.
    """
    try:
        if work.task is not None:
            several.check(work.task)
            rehearse(work.task)
            evaluator(work.task, getattr(work.method, "objective", "sum"))
        program = work.program()
        theta = work.initial_theta()
    except TaskError as error:
        raise ConfigError(one_line(error)) from error
    except ValueError as error:
        if blame.is_theirs(error):
            raise
        line = one_line(error)
        if hasattr(work.method, line.partition(": ")[0]):  # Begins with a field's name.
            line = f"{section}.{line}"
        raise ConfigError(line) from error
    if program.jittable:
        _trace(program, theta)
    return theta


def _trace(program: BlockProgram, theta: Theta) -> None:
    """Traces one window, so that what it lacks is said before anything is written.

    An error in the user's own code keeps its traceback.
    """
    try:
        block = jax.eval_shape(program.init, theta, np.int32(0))
        method = program.scored.score if program.scored else program.advance
        jax.eval_shape(method, theta, block, np.int32(0))
    except TaskError as error:
        raise ConfigError(one_line(error)) from error


def _already_finished(
    directory: RunDirectory, config: RunConfig, example: Theta
) -> Result | None:
    fields = directory.read_result()
    if fields is None or fields["status"] != "finished":
        return None
    if fields["outer_steps"] < config.run.outer_steps:
        return None
    theta = _theta_of(fields.pop("theta"), example, directory)
    return Result(theta=theta, run_dir=directory.path, **fields)


def _theta_fields(theta: Theta) -> dict[str, Any]:
    """Returns theta's leaves by path as lists; a bare array is called theta."""
    return {name or "theta": leaf.tolist() for name, leaf in to_arrays(theta).items()}


def _theta_of(values: Any, example: Theta, directory: RunDirectory) -> Theta:
    """Returns the theta that `_theta_fields` wrote."""
    try:
        arrays = {
            name: np.asarray(values[name or "theta"], leaf.dtype)
            for name, leaf in to_arrays(example).items()
        }
        return from_arrays(example, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{directory.result}: {one_line(error)}") from error


def _optimizer(config: RunConfig) -> Optimizer:
    return _NO_OUTER if config.outer is None else config.outer.optimizer


def _engine(config: RunConfig, work: Work, directory: RunDirectory) -> Engine:
    cluster, optimizer = config.cluster, _optimizer(config)
    try:
        if cluster.fuse > 1:
            return FusedEngine(work, optimizer, config.run, cluster.fuse)
        pool: Pool
        if cluster.pool == "local":
            pool = LocalPool(work, cluster.shards or 1)
        else:
            # Ray is loaded only by the runs that use it.
            from pes_cluster.ray_backend.pool import RayPool

            pool = RayPool(work, cluster, begun=directory.holds_run())
    except ValueError as error:
        raise ConfigError(f"cluster.{one_line(error)}") from error
    return PoolEngine(pool, work, optimizer, config.run)


def _drive(
    config: RunConfig,
    directory: RunDirectory,
    store: CheckpointStore,
    engine: Engine,
    work: Work,
    listeners: list[Listener],
    asked: "_Asked",
    commands: Callable[[], list[Asked]],
) -> Outcome:
    with (
        directory.lines(directory.events) as events,
        directory.lines(directory.metrics) as metrics,
    ):

        def record(step: StepRecord) -> None:
            metrics.append(step.to_json())
            for listener in listeners:
                listener.on_record(step)

        def event(happened: Event) -> None:
            events.append(happened.to_json())
            for listener in listeners:
                listener.on_event(happened)

        folder = ControlFolder(directory.control)
        plan = Plan(
            outer_steps=config.run.outer_steps,
            checkpoint_every=config.checkpoint.every,
            checkpoint_minutes=config.checkpoint.every_minutes,
            digest=digest(config),
            block=work.block(),
            staleness=0 if config.outer is None else config.outer.staleness,
            watch=_watch(config),
            should_stop=asked.is_set,
            commands=lambda: folder.take() + commands(),
            on_record=record,
            on_event=event,
            on_rewind=metrics.rewind,
            settle=metrics.settle,
        )
        theta = work.initial_theta()
        return Driver(plan, engine, store, _optimizer(config), theta).run()


def _watch(config: RunConfig) -> Watch:
    policy: Any = getattr(config.method, "divergence", "cap")
    return Watch(type(config.task).__name__, policy)


def _finish(
    directory: RunDirectory, config: RunConfig, outcome: Outcome, asked: "_Asked"
) -> Result:
    records = jsonl.read(directory.metrics)
    evaluated = [line for line in records if line.get("eval_loss") is not None]
    result = Result(
        status=outcome.status,
        theta=outcome.theta,
        theta_sha256=trees.sha256(outcome.theta),
        outer_steps=outcome.outer_step,
        inner_steps=outcome.inner_steps,
        wall_seconds=round(outcome.wall_seconds, 3),
        loss=records[-1].get("loss") if records else None,
        eval_loss=evaluated[-1]["eval_loss"] if evaluated else None,
        run_dir=directory.path,
        error=outcome.error,
        resumable=outcome.resumable,
        stopped_by=asked.signal if outcome.status == "stopped" else None,
    )
    fields = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(Result)
        if field.name != "run_dir"
    }
    directory.write_result(fields | {"theta": _theta_fields(result.theta)})
    if records:
        _draw(records, config, directory.plots / "loss.png")
    return result


def _draw(records: list[jsonl.Line], config: RunConfig, chart: pathlib.Path) -> None:
    try:
        plots.curves(records, config.name, chart)
    except OSError as error:  # `pes plot` draws it when there is room.
        chart.unlink(missing_ok=True)
        _log.warning("%s: cannot be written (%s)", chart, error.strerror)


class _Asked:
    """Whether a signal has asked the run to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._time, self._said = 0.0, False

    def is_set(self) -> bool:
        if self.signal is not None and not self._said:
            # Not when it comes: a line may be half written just then.
            name = signal.Signals(self.signal).name
            _log.warning("%s: stopping after this step, with a checkpoint", name)
            self._said = True
        return self.signal is not None

    def hear(self, number: int) -> bool:
        """Takes note of a signal; whether it is a second one.

        What ends a job signals all its processes, and its supervisor passes that on:
        several at once are one.
        """
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._time = number, now
        return now - self._time > _ECHO


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[_Asked]:
    """Listens to SIGTERM and SIGINT; a second one has its usual effect."""
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # Python delivers signals to the main thread alone.
        return
    before: dict[int, Any] = {}

    def listen(number: int, frame: Any) -> None:
        del frame
        if asked.hear(number):
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, listen)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
