"""Where the mail for a recipient goes: what the site's tables make of an envelope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.engine.run import run
from mdaflow.errors import TempFail
from mdaflow.mail.address import without_detail
from mdaflow.mail.envelope import NOBODY, Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.route.destination import Destination as Destination
from mdaflow.route.destination import Step as Step
from mdaflow.route.doubts import doubts as doubts
from mdaflow.route.resolve import Router
from mdaflow.route.users import User

from .build import Site
from .decide import forward_stage

if TYPE_CHECKING:
    from mdaflow.route.access import Asked, Verdict


class Routed(NamedTuple):
    """What routing has found out."""

    destinations: Sequence[Destination]
    allowed: bool = False
    """The access table says OK."""

    @property
    def user(self) -> User | None:
        """The user that the recipient is, without any alias."""
        first = self.destinations[0]
        return first.user if len(self.destinations) == 1 and not first.where else None

    @property
    def refusal(self) -> Destination | None:
        """Why nobody can have the message: what may still work, before what never will."""
        if any(found.status is None for found in self.destinations):
            return None
        return min(self.destinations, key=lambda d: not (d.status and d.status.temporary))


def route(
    site: Site,
    recipient: str,
    sender: str = "",
    client: Client = NOBODY,
    steps: list[Step] | None = None,
    *,
    quick: bool = False,
) -> Routed:
    """The destinations of a recipient, for mail from there. Never raises.

    `steps` gets what was asked and answered. `quick`: one who can have it is enough.
    """
    verdict = None
    try:
        verdict = _verdict(site, recipient, sender, client, steps)
        found = _decided(site, recipient, verdict)
    except TempFail as error:
        found = Destination("refused", recipient, status=error.status, why=str(error))
    if found is None:
        bounce = quick or not sender  # Postfix asks who can have mail with a sender of its own
        way = site.router.resolve(recipient, steps, bounce=bounce, quick=quick)
        return Routed(way, verdict is not None and verdict.allowed)
    if steps is not None:
        steps.append(Step(f"=> {found}", found.why, found.where, []))
    return Routed((found,))


def _verdict(
    site: Site, recipient: str, sender: str, client: Client, steps: list[Step] | None
) -> Verdict | None:
    """What the access table says. Raises TempFail."""
    if site.directory.access is None:
        return None
    asked: list[Asked] | None = None if steps is None else []
    verdict = site.directory.access.judge(client, sender, recipient, asked)
    if steps is not None:
        below = [Step(a.key, a.answer or "no", a.where, []) for a in asked or ()]
        said = ("nothing", "") if verdict is None else (verdict.action, verdict.where)
        steps.append(Step("access", *said, below))
    return verdict


def _decided(site: Site, recipient: str, verdict: Verdict | None) -> Destination | None:
    """The destination, if the access table decides. Raises TempFail."""
    if verdict is None:
        return None
    if verdict.status is not None:
        why = f"{verdict.key} in the access table"
        return Destination(
            "refused", recipient, status=verdict.status, why=why, where=verdict.where
        )
    if verdict.action == "DISCARD":
        return Destination("nothing", "", where=verdict.where)
    domain = recipient.rpartition("@")[2].lower()
    if verdict.relays and "@" in recipient and not site.router.has_domain(domain):
        return Destination("relay", recipient, where=verdict.where)
    return None


def forward_of(site: Site, user: User, envelope: Envelope) -> Iterator[Step]:
    """What the user's `.forward` says, a step for each target.

    Raises TempFail when that cannot be told.
    """
    told: list[str] = []
    stage = forward_stage(site, user, told.append, envelope.recipient)
    yield from (Step(line, "", "", []) for line in told)
    if stage is not None:
        plan = run(stage, Message(b"\n"), envelope, trace=True)
        yield from (Step(event.text, "", str(event.span), []) for event in plan.trace)
        if plan.implicit_keep:
            yield Step(f"and the rules and the inbox of {user.address}", "", stage.name, [])


def whose_turn(router: Router, recipient: str) -> str:
    """Whose mail it probably is, by what is known without asking anybody: an address without its
    detail, or the one that it is an alias for."""
    return without_detail(router.only(recipient), router.delimiters).lower()
