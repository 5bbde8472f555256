"""A fault at every system call of a delivery, and what must be true afterwards.

`crash_points` kills the process where it is about to change something, `errors` lets a call fail.
Then the message comes again, as from an MTA that had no reply. What was acknowledged has to be
there, whole, and nothing twice but what was done when there was no reply.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deliveries import Call, Outcome, Stage

from mdaflow.deliver.send import NO_ANSWER
from mdaflow.errors import from_oserror

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EINTR", "ENOMEM", "EMFILE", "EROFS", "ESTALE")


class Swept(NamedTuple):
    """What a sweep has found."""

    points: int
    """Calls of the recorded delivery in which there should be a fault."""
    injected: int
    """Calls in which there was one."""
    refused: int
    """Deliveries that were put off, or had no reply."""
    doubled: int
    """Those after which a copy is there twice."""
    wrong: list[str]
    """What must not be, a line each."""


def crash_points(stage: Stage) -> Swept:
    """Kill the delivery at each call that changes something."""
    sweep = _Sweep(stage)
    for call in sweep.calls:
        if call.changes:
            sweep.kill(call)
    return sweep.found


def errors(stage: Stage, names: Sequence[str] = ERRORS, *, first: bool = False) -> Swept:
    """Let each call fail with each error; with `first`, only the first of a name."""
    sweep = _Sweep(stage)
    for call in sweep.calls:
        if not first or call.number == 1:
            for name in names:
                sweep.fail(call, name)
    return sweep.found


class _Sweep:
    """A sweep that goes on, and its figures."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.users = {user.address: user for user in stage.users}
        stage.restore()
        recorded = stage.deliver(self.users, "")
        assert recorded.code == 0, recorded
        assert all(map(recorded.taken, self.users)), recorded
        assert set(self._copies()) == {1}, self._copies()
        self.calls = recorded.calls
        self.points = self.injected = self.refused = self.doubled = 0
        self.wrong: list[str] = []

    @property
    def found(self) -> Swept:
        return Swept(self.points, self.injected, self.refused, self.doubled, self.wrong)

    def kill(self, call: Call) -> None:
        """Kill the process where it is about to do this."""
        outcome = self._deliver(call, "signal=KILL")
        killed = outcome.code == -signal.SIGKILL and bool(outcome.calls)
        self.injected += killed and outcome.calls[-1][:2] == call[:2]
        self._note(f"{call.name} {call.number} killed", self._afterwards(outcome, torn=True))

    def fail(self, call: Call, name: str) -> None:
        """Let a call fail, without doing anything."""
        outcome = self._deliver(call, f"error={name}")
        self.injected += outcome.injected == 1
        self._note(f"{call.name} {call.number} {name}", self._of_error(call, name, outcome))
        self._note(f"{call.name} {call.number} {name}", self._afterwards(outcome, torn=False))

    def _deliver(self, call: Call, what: str) -> Outcome:
        self.points += 1
        self.stage.restore()
        return self.stage.deliver(self.users, f"{call.name}:{what}:when={call.number}")

    def _note(self, where: str, problems: Iterator[str]) -> None:
        self.wrong += [f"{where}: {problem}" for problem in problems]

    def _of_error(self, call: Call, name: str, outcome: Outcome) -> Iterator[str]:
        """What is wrong with the replies, and what is left behind."""
        on_network = call.name in ("connect", "sendto")
        known = from_oserror(OSError(getattr(errno, name), "")).status
        wanted = NO_ANSWER if on_network else known
        if outcome.code != 0:
            yield f"exit code {outcome.code}: more files are open"
        for address, reply in outcome.replies.items():
            if not (outcome.taken(address) or reply == str(wanted)):
                yield f"<{address}> has got {reply}"
        if not call.name.startswith("unlink"):  # what could not be removed is there
            yield from (f"{path.name} is left" for path in self.stage.leftovers)

    def _afterwards(self, outcome: Outcome, *, torn: bool) -> Iterator[str]:
        """What is wrong with what is stored, also when the message has come again."""
        for address in filter(outcome.taken, self.users):
            if 0 in self.stage.copies(self.users[address]):
                yield f"<{address}> was acknowledged, and is not stored"
        yield from self.stage.wrong(torn=torn)
        left = [address for address in self.users if not outcome.taken(address)]
        if left:
            self.refused += 1
            yield from self._again(left)
            yield from self.stage.wrong(torn=torn)
        copies = self._copies()
        self.doubled += max(copies) > 1
        most = 1 if len(outcome.replies) == len(self.users) else 2
        if not 1 <= min(copies) <= max(copies) <= most:
            yield f"copies: {copies}"

    def _again(self, left: list[str]) -> Iterator[str]:
        """Some time later, to those to whom it was not delivered."""
        self.stage.age()
        before = self.stage.leftovers
        again = self.stage.deliver(left)
        if not all(map(again.taken, left)):
            yield f"again: {again}"
        new = set(self.stage.leftovers).difference(before)
        yield from (f"again: {path.name} is left" for path in new)

    def _copies(self) -> list[int]:
        """How often the message is in each place where it has to be."""
        found = [copies for user in self.users.values() for copies in self.stage.copies(user)]
        return [*found, self.stage.sent_on] if self.stage.scene.forward else found
