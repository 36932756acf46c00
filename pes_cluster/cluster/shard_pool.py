"""Shards in processes of their own: what is lost is rebuilt to the same bits.

The pool knows who owns which block, keeps copies of all blocks and the thetas since,
and answers each loss by the same act: somebody else adopts the copy and goes through
the thetas again. Hosts that join or leave are the same act without a loss.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.calls import Arguments, Asked, Calls, Pending
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.copying import Blocks, Copies, with_buddies
from pes_cluster.cluster.events import Event, Field
from pes_cluster.cluster.failure import Losses, judge
from pes_cluster.cluster.leaves import Arrays, check_blocks
from pes_cluster.cluster.local_pool import in_order
from pes_cluster.cluster.members import (
    Member,
    Recovery,
    dealt,
    owners,
    spread,
)
from pes_cluster.cluster.pool import Lost, Scored
from pes_cluster.cluster.roster import Roster
from pes_cluster.cluster.scaling import change, target_shards, wanted_shards
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.transport import Failure, Transport
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta

logger = logging.getLogger(__name__)


class ShardPool:
    """A pool of shard processes behind a transport.

    Attributes:
        num_blocks: How many blocks they own together.
    """

    def __init__(
        self,
        work: Work,
        transport: Transport,
        settings: ClusterSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._settings, self._clock = transport, settings, clock
        self._roster = Roster(
            transport, work, settings.step_deadline, clock, settings.autoscaling
        )
        self._calls = Calls(transport, settings.step_deadline, clock)
        buddies = with_buddies(work, settings.snapshots)
        self._copies = Copies(transport, self._calls, buddies, clock)
        program = work.program()
        self.num_blocks, self._shaped = program.num_blocks, program.scored is not None
        self._asked_shards, self._losses = settings.shards, Losses()
        self._next_step = 0
        self._ahead: tuple[int, Pending] | None = None
        self._step_seconds = 0.0
        self._events: list[Event] = []
        for _ in range(self._wanted(now=1)):
            self._roster.add()

    @property
    def shards(self) -> int:
        """How many shards own blocks now."""
        return len(self._members)

    @property
    def shards_target(self) -> int:
        """How many are aimed at, the lost ones included."""
        return target_shards(
            self._asked_shards, self._roster.nodes, self.num_blocks, self.shards
        )

    # --- What a pool does -------------------------------------------------------------

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Pool`."""
        check_blocks(blocks, self.num_blocks)
        indices = range(self.num_blocks)
        given = {index: blocks[index] if blocks else None for index in indices}
        return self._hand_out(given, next_step)

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        seen = self._window("advance", outer_step, theta)
        return seen if isinstance(seen, Lost) else in_order([seen])

    def submit(self, outer_step: int, theta: Theta) -> None:
        """See `Pool`."""
        self._tend()
        self._ahead = (outer_step, self._send("advance", outer_step, theta))

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """See `Pool`."""
        seen = self._window("score", outer_step, theta)
        if isinstance(seen, Lost):
            return seen
        return [Scored(*one) for one in in_order([seen])]

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)
        return _listed(
            self._read(
                "weighted_sum", lambda items: (sent, {i: weights[i] for i in items})
            )
        )

    def probe(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)
        return _listed(self._read("probe", lambda items: (outer_step, sent, items)))

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)

        def ask(items: Sequence[int]) -> Pending:
            shares = dealt(self._members, items)
            return self._calls.ask(
                "evaluate", shares, lambda items: (sent, outer_step, items)
            )

        seen = self._gather(ask(range(episodes)), lambda asked: ask(asked.items))
        return _listed(seen)

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Pool`."""
        return _listed(
            self._read(
                "save",
                lambda items: (folder, f"blocks_{min(items)}_{max(items)}", items),
            )
        )

    def saved(self) -> None:
        """See `Pool`."""
        self._losses = Losses()  # A durable checkpoint is progress.

    def resize(self, shards: int | None) -> None:
        """See `Pool`."""
        self._asked_shards = shards
        self._roster.no_rest()

    def rescale(self, work: Work) -> Lost | None:
        """See `Pool`."""
        count = work.program().num_blocks
        kept: dict[int, Any] | Lost = {}
        begun = any(member.blocks for member in self._members)
        if begun:
            # While the shards still are of the work before: one that is lost meanwhile
            # has to be rebuilt as it was.
            indices = range(min(self.num_blocks, count))
            kept = self._read("resized", lambda items: (work, items), indices)
        if isinstance(kept, Lost):
            return kept
        self._roster.work, self.num_blocks = work, count
        for member in [*self._members, *self._roster.joining]:
            self._transport.call(member.actor, "retool", work)
        if not begun:
            return None
        blocks = {index: kept.get(index) for index in range(count)}
        return self._hand_out(blocks, self._next_step)

    def events(self) -> list[Event]:
        """See `Pool`."""
        events, self._events = self._events, []
        return events

    def notice(self) -> str | None:
        """See `Pool`."""
        if self._roster.nodes.here in self._roster.nodes.leaving:
            return "the driver's own node is about to be taken away"
        return None

    def close(self) -> None:
        """See `Pool`."""
        self._transport.close()

    # --- Windows and reads ------------------------------------------------------------

    def _hand_out(self, blocks: Blocks, step: int) -> Lost | None:
        """Gives every block to a shard, as the state that everything starts from."""
        self._ahead, self._next_step = None, step
        self._copies.begin(blocks, step)
        if not self._members:
            self._roster.add()
        shares = assign(len(blocks), len(self._members))
        for member in self._members[len(shares) :]:
            self._transport.kill(member.actor)
        self._roster.settle(self._members[: len(shares)], [])
        for member, owned in zip(self._members, shares, strict=True):
            self._transport.call(member.actor, "release", member.blocks)
            member.blocks, member.late = owned, None
            member.recovering, member.adopting = [], []
        done = self._read(
            "adopt", lambda items: ({i: blocks[i] for i in items}, items, step)
        )
        return done if isinstance(done, Lost) else None

    def _window(
        self, method: str, outer_step: int, theta: Theta
    ) -> dict[int, Any] | Lost:
        """Advances every block; then remembers theta, and copies where it is due."""
        began, losses = self._clock(), self._losses
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == outer_step:
            pending = ahead[1]
        else:
            self._tend()
            pending = self._send(method, outer_step, theta)
        # Who was asked last for a block; if that shard is lost, the block has to be
        # asked for again, also where it had answered: its answer is then the same.
        last = {i: asked.member for asked in pending.values() for i in asked.items}

        def again(asked: Asked) -> Pending:
            blocks = {*asked.items, *asked.member.blocks}
            return more([i for i in blocks if i not in last or last[i].lost])

        def more(blocks: Sequence[int]) -> Pending:
            on_time = [member for member in self._members if member.late is None]
            shares = owners(on_time, blocks)
            last.update({i: member for member, items in shares for i in items})
            sent = self._transport.shared(theta)
            return self._calls.ask(
                method, shares, lambda items: (outer_step, sent, items)
            )

        seen = self._gather(pending, again)
        while seen == {}:  # All are late: there is nothing to go on with.
            self._catch_up(wait=True)
            seen = self._gather(more(range(self.num_blocks)), again)
        if isinstance(seen, Lost):
            return seen
        self._next_step = outer_step + 1
        self._copies.remember(outer_step, theta)
        if losses == self._losses:  # A step in which nothing was lost tells.
            self._step_seconds = self._clock() - began
            self._calls.slowest = max(self._calls.slowest, self._step_seconds)
        if self._copies.due(self._step_seconds, theta):
            self._copies.make(self._members, self._next_step, self._roster.avoided)
        return seen

    def _send(self, method: str, outer_step: int, theta: Theta) -> Pending:
        sent = self._transport.shared(theta)
        shares = [(m, m.blocks) for m in self._members if m.blocks and m.late is None]
        return self._calls.ask(method, shares, lambda items: (outer_step, sent, items))

    def _read(
        self, method: str, arguments: Arguments, indices: Sequence[int] | None = None
    ) -> dict[int, Any] | Lost:
        """Asks the owners of blocks for something that may be asked for again.

        Late blocks are waited for.
        """
        self._catch_up(wait=True)

        def ask(items: Sequence[int]) -> Pending:
            return self._calls.ask(method, owners(self._members, items), arguments)

        pending = ask(range(self.num_blocks) if indices is None else indices)
        return self._gather(pending, lambda asked: ask(asked.items))

    def _gather(
        self, pending: Pending, again: Callable[[Asked], Pending]
    ) -> dict[int, Any] | Lost:
        """Takes the answers as they come; rebuilds what is lost, and asks `again`."""
        answers: dict[int, Any] = {}
        while pending:
            for asked, answer in list(self._calls.answers(pending)):
                member = asked.member
                if not (member.lost or isinstance(answer, Failure)):
                    self._recovered(asked)
                    answers |= answer
                    continue
                if not member.lost:
                    others = self._lost_with(member, answer)
                    given_up = self._replace([member, *others], answer)
                    if given_up is not None:
                        return given_up
                    for other in others:
                        pending |= again(Asked.nothing(other))
                # Also where it had answered before it was lost: its blocks have been
                # rebuilt as they were before.
                pending |= again(asked)
        return answers

    # --- What is lost -----------------------------------------------------------------

    def _lost_with(self, member: Member, failure: Failure) -> list[Member]:
        """The other shards of a host that is gone, whether they have answered or not.

        Rebuilt together, they cost the time of one.
        """
        node = self._transport.node_of(member.actor)
        if failure.kind not in ("host", "preempted") or failure.stored or not node:
            return []
        return [
            other
            for other in self._members
            if other is not member and self._transport.node_of(other.actor) == node
        ]

    def _replace(self, members: Sequence[Member], failure: Failure) -> Lost | None:
        """Rebuilds lost shards of one host, or says why the run cannot go on."""
        node = self._transport.node_of(members[0].actor)
        for member in members:
            member.lost = True
            self._log("lost", shard=member.slot, node=node or "", reason=failure.reason)
            # Before it is replaced: a shard that only hangs must never answer again.
            self._transport.kill(member.actor)
            self._members.remove(member)
        hosts = len(self._roster.nodes.alive)
        for member in members:
            verdict = judge(self._losses, self._settings.budgets, failure, node, hosts)
            self._losses = verdict.losses
            if verdict.give_up is not None:
                return Lost(member.slot, verdict.give_up, user_error=verdict.user_error)
            if failure.stored or self._copies.gone(member.blocks):
                reason = f"{failure.reason}, and the copy of its blocks is gone too"
                return Lost(member.slot, reason, resumable=True)
            self._roster.avoid(node, verdict.avoid_seconds)
        for member in members:
            self._rehouse(member)
        return None

    def _rehouse(self, lost: Member) -> None:
        """Gives a lost shard's blocks to the others, or to a new one.

        The others run already and have compiled; a new shard takes seconds to start,
        and gets its blocks when it has. But on GPUs they may not have the memory.
        """
        began, settings = self._clock(), self._settings
        proceeds = settings.on_loss == "proceed" and not self._shaped
        begin = proceeds or settings.per_shard.num_gpus > 0
        heir = self._roster.heir(lost.slot, begin)
        if heir and proceeds:
            heir.late = self._next_step
        recovery = Recovery(lost.slot, began)
        for member, blocks in spread([heir] if heir else self._members, lost.blocks):
            replayed = self._copies.adopt(member, blocks)
            recovery.replayed = max(recovery.replayed, replayed)
            recovery.awaited += 1
            # What it was to bring back itself is theirs as well.
            member.recovering += [recovery, *lost.recovering]
            lost.recovering = []

    def _recovered(self, asked: Asked) -> None:
        """Notes what an answer has brought back."""
        member = asked.member
        for recovery in [one for one in asked.recovering if one in member.recovering]:
            member.recovering.remove(recovery)
            recovery.awaited -= 1
            if recovery.awaited:
                continue  # Others have parts of its blocks.
            self._log(
                "recovered",
                shard=recovery.shard,
                node=self._roster.node_of(member) or "",
                replayed=recovery.replayed,
                seconds=round(self._clock() - recovery.began, 3),
            )

    def _catch_up(self, wait: bool) -> None:
        """Brings late blocks through the windows that went on without them.

        Only of shards that have adopted theirs, or of all, if they are waited for.
        """
        for member in self._members:
            adopted = self._transport.wait(member.adopting, 0)
            whole = len(adopted) == len(member.adopting)
            # One that takes too long is asked like the others, and found to be lost.
            overdue = self._clock() - member.began > self._settings.step_deadline
            if member.late is None or not (wait or whole or overdue):
                continue
            ring = self._copies.since(member.late)
            call = self._transport.call(member.actor, "replay", member.blocks, ring)
            member.adopting.append(call)
            member.late = None

    # --- Hosts that come and go -------------------------------------------------------

    def _tend(self) -> None:
        """What is to be done between two steps, besides them."""
        self._copies.take_arrivals()
        self._catch_up(wait=False)
        if self._copies.in_danger() and not self._copies.under_way:
            self._copies.make(self._members, self._next_step, self._roster.avoided)
        ready = self._roster.ready()
        wanted = self._wanted(now=self.shards)
        layout = self._roster.layout(ready)
        todo = change(wanted, self._roster.nodes, layout, self._roster.room)
        self._roster.recruit(todo.start)
        # Those that have not started yet are given up first.
        waiting = [one for one in self._roster.joining if one not in ready]
        coming = [*ready, *waiting]
        self._roster.dismiss(coming[len(coming) - todo.drop :])
        if todo.keep is None:
            return
        kept = [self._members[position] for position in todo.keep]
        self._rebalance(kept, [m for m in ready if m in self._roster.joining])

    def _wanted(self, now: int) -> int:
        nodes, growing = self._roster.nodes, self._settings.autoscaling
        return wanted_shards(self._asked_shards, nodes, self.num_blocks, now, growing)

    def _rebalance(self, kept: list[Member], joined: list[Member]) -> None:
        """Moves blocks so that these shards, and no others, own all of them."""
        alive = {node.id for node in self._roster.nodes.alive}
        for member in self._members:
            if member.late is not None or self._roster.node_of(member) not in alive:
                return  # First of all, what is lost is to be found and brought back.
        avoided = self._roster.avoided
        if not self._copies.refresh(self._members, self._next_step, avoided):
            return
        before = {i: member for member in self._members for i in member.blocks}
        gone = [member for member in self._members if member not in kept]
        self._roster.settle(kept, joined)
        moved = 0
        shares = assign(self.num_blocks, self.shards)
        for member, owned in zip(self._members, shares, strict=True):
            given = sorted({*member.blocks} - {*owned})
            self._transport.call(member.actor, "release", given)
            taken = [i for i in owned if before[i] is not member]
            member.blocks = [i for i in owned if before[i] is member]
            self._copies.adopt(member, taken)
            moved += len(taken)
        self._log_moves(joined, gone, moved)
        for member in gone:
            self._transport.kill(member.actor)

    def _log_moves(self, joined: list[Member], gone: list[Member], moved: int) -> None:
        for member in joined:
            self._log("joined", node=self._roster.node_of(member) or "")
        for node in sorted({self._roster.node_of(member) or "" for member in gone}):
            if node in self._roster.nodes.leaving:
                self._log("drained", node=node)
        self._log("moved", blocks=moved, shards=self.shards)

    @property
    def _members(self) -> list[Member]:
        return self._roster.members

    def _log(self, kind: str, **fields: Field) -> None:
        self._events.append(Event(kind, self._next_step, dict(fields)))
        details = ", ".join(f"{name} {value}" for name, value in fields.items())
        logger.info("%s after outer step %d: %s", kind, self._next_step, details)


def _listed(seen: dict[int, Any] | Lost) -> Any:
    return seen if isinstance(seen, Lost) else in_order([seen])
