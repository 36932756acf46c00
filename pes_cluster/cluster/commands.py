"""Carries out, between two steps, what a live run is asked for."""

from collections.abc import Callable

from pes_cluster.cluster.control import Answer, Asked, CommandError, Scale, Stop
from pes_cluster.cluster.engine import Engine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.pool import Lost


class Commands:
    """Obeys or refuses; says so once what was done can no longer be undone.

    Attributes:
        particles: How many the run was last scaled to; None: the configuration's.
        stop: Whether the run has been asked to stop.
    """

    def __init__(
        self,
        take: Callable[[], list[Asked]],
        engine: Engine,
        on_event: Callable[[Event], None],
    ) -> None:
        self._take, self._engine, self._on_event = take, engine, on_event
        self._promised: list[tuple[Asked, str]] = []
        self.particles: int | None = None
        self.stop = False

    @property
    def unsaved(self) -> bool:
        """Whether something was done that only a checkpoint makes lasting."""
        return bool(self._promised)

    def obey(self, outer_step: int) -> Lost | None:
        """Does what has been asked for since the last boundary."""
        for asked in self._take():
            match asked.command:
                case CommandError() as error:
                    self._refuse(asked, outer_step, str(error))
                case Stop():
                    self.stop = True
                    line = f"stopped after outer step {outer_step}"
                    self._promised.append((asked, line))
                case Scale() as scale:
                    lost = self._scale(asked, scale, outer_step)
                    if lost is not None:
                        return lost
        return None

    def keep(self, remark: str = "") -> None:
        """Answers: what was done is durable, or will be (`remark` says what is not)."""
        for asked, line in self._promised:
            asked.answer(Answer(True, line + remark))
        self._promised = []

    def end(self, outer_step: int, reason: str) -> None:
        """Refuses what is left: the run does not go on."""
        for asked, line in self._promised:
            asked.answer(Answer(False, f"{line}, but that is lost: {reason}"))
        self._promised = []
        for asked in self._take():
            self._refuse(asked, outer_step, reason)

    def _scale(self, asked: Asked, scale: Scale, outer_step: int) -> Lost | None:
        try:
            lost = self._engine.scale(
                particles=scale.particles, shards=scale.shards, outer_step=outer_step
            )
        except ValueError as error:
            self._refuse(asked, outer_step, str(error))
            return None
        if lost is not None:
            self._refuse(asked, outer_step, f"lost shard {lost.shard}: {lost.reason}")
            return lost
        fields = {"particles": scale.particles, "shards": scale.shards}
        said = {name: value for name, value in fields.items() if value is not None}
        self._on_event(Event("scaled", outer_step, {**said}))
        line = f"{scale} after outer step {outer_step}".replace("scale", "scaled", 1)
        if scale.particles is None:
            asked.answer(Answer(True, line))  # The result does not depend on it.
        else:
            self.particles = scale.particles
            self._promised.append((asked, line))
        return None

    def _refuse(self, asked: Asked, outer_step: int, reason: str) -> None:
        reason = " ".join(reason.split())
        fields = {"command": str(asked.command), "reason": reason}
        if isinstance(asked.command, CommandError):
            fields = {"command": "?", "reason": reason}
        self._on_event(Event("refused", outer_step, {**fields}))
        asked.answer(Answer(False, reason))
