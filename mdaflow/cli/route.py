"""`mdaflow route`: where the mail for an address goes, and why. Nothing is sent.

What tables and users say is shown so that it cannot talk to a terminal. The log is silent: all that
it could say is among the steps.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import Any

import click

from mdaflow import ConfigError, Envelope, MdaflowError, PermFail, Site, TempFail, User, read_config
from mdaflow.app.caller import settle
from mdaflow.app.deputies import Task, run_all
from mdaflow.app.routing import Destination, Step, doubts, forward_of, route
from mdaflow.mail.envelope import Client
from mdaflow.mail.letter import is_address

from . import EX_DATAERR, exit_code
from .common import as_deputy, as_each, config_option, say, sender_option, site_of, step_down

MOST_SECONDS = 30.0
"""For a look into a home."""
MAX_HOMES = 100
"""Homes that are looked into for one address."""
MAX_USERS, MAX_DOMAINS = 100_000, 1000
"""Users of a source that --check asks for their domains, and domains in which it looks at names
that have none."""


@click.command("route")
@click.argument("addresses", metavar="[ADDRESS...]", nargs=-1)
@sender_option
@click.option("--client", "ip", default="", metavar="IP", help="The address of the SMTP client.")
@click.option("--name", default="", metavar="HOST", help="The name of the SMTP client.")
@click.option("--check", is_flag=True, help="Show what is doubtful in the tables instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each address.")
@config_option
def command(
    addresses: Sequence[str],
    sender: str | None,
    ip: str,
    name: str,
    check: bool,
    as_json: bool,
    config: str | None,
) -> int:
    """Show where mail for each ADDRESS goes: all tables that are asked, and what they say.

    Exit code 0: somebody has it. 67: nobody. 75: that cannot be told now. 77: it is refused.
    """
    if check == bool(addresses):
        raise click.UsageError("name an address, or --check")
    client = _client(ip, name, addresses)
    logging.getLogger("mdaflow").addHandler(logging.NullHandler())
    settings = read_config(config)
    if settings.user and not as_each(settings, named=bool(addresses)):
        step_down(settings)
    here = site_of(settings, kept=False)
    if check:
        return _check(here, as_json)
    shown = partial(_show, here, _sender(sender), client, as_json)
    return max(shown(address) for address in addresses)


def _sender(said: str | None) -> str:
    """Without -f somebody of whom no table knows."""
    return "somebody@sender.invalid" if said is None else said.strip("<>")


def _client(ip: str, name: str, addresses: Sequence[str]) -> Client:
    for address in addresses:
        if not is_address(address if "@" in address else f"{address}@x"):
            raise click.BadParameter(f"{address!r} is no address")
    try:
        return Client(ip and str(ip_address(ip)), name)
    except ValueError:
        raise click.BadParameter(f"{ip!r} is no IP address", param_hint="--client") from None


def _show(here: Site, sender: str, client: Client, as_json: bool, address: str) -> int:
    steps: list[Step] = []
    routed = route(here, address, sender, client, steps)
    if here.config.forward.file:
        _look_into_homes(here, sender, routed.destinations, steps)
    if as_json:
        destinations = [_plain(found) for found in routed.destinations]
        said = {"recipient": address, "destinations": destinations, "steps": _plain_steps(steps)}
        say(json.dumps(said))
    else:
        say("\n".join(_drawn(steps)))
    refusal = routed.refusal
    if refusal is None or refusal.status is None:
        return 0
    kind = TempFail if refusal.status.temporary else PermFail
    return exit_code(kind(refusal.status))


# the tree


def _drawn(steps: Sequence[Step], indent: str = "") -> Iterator[str]:
    for step in steps:
        said = f"{step.asked}: {step.answer}" if step.answer else step.asked
        where = f"  [{step.where}]" if step.where and not step.asked.startswith("=>") else ""
        style = "1" if step.asked.startswith("=>") or not indent else ""
        yield f"{indent}{_paint(_clean(said), style)}{_paint(_clean(where), '2')}"
        yield from _drawn(step.below, f"{indent}  ")


def _clean(text: str) -> str:
    """Text of tables, which shall not talk to a terminal."""
    text = "; ".join(text.splitlines())
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _paint(text: str, style: str) -> str:
    if not style or not text or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def _plain(found: Destination) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": found.kind, "name": found.name}
    if found.user is not None:
        user = found.user
        said |= {"user": user.address, "home": user.home, "mailbox": user.mailbox}
    if found.sender is not None:
        said["sender"] = found.sender
    if found.status is not None:
        said |= {"status": str(found.status), "why": found.why}
    return {**said, "where": found.where}


def _plain_steps(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [
        {"asked": s.asked, "answer": s.answer, "where": s.where, "steps": _plain_steps(s.below)}
        for s in steps
    ]


# what the users themselves say of it


def _look_into_homes(
    here: Site, sender: str, destinations: Sequence[Destination], steps: list[Step]
) -> None:
    """Add to the steps what the `.forward` of each user says."""
    users = [found for found in destinations if found.user is not None]
    for found in users[:MAX_HOMES]:
        step = _leaf(steps, f"=> user {found.name}")
        if found.user is not None and step is not None:
            step.below.extend(_forward(here, found.user, Envelope(sender, found.name)))
    if len(users) > MAX_HOMES:
        rest = len(users) - MAX_HOMES
        steps.append(Step(f"the homes of {rest} more users were not looked into", "", "", []))


def _leaf(steps: Sequence[Step], asked: str) -> Step | None:
    """The first step that says this."""
    waiting = deque(steps)
    while waiting:
        step = waiting.popleft()
        if step.asked == asked:
            return step
        waiting.extend(step.below)
    return None


def _forward(here: Site, user: User, about: Envelope) -> list[Step]:
    """What the user's `.forward` says; root reads it as the user, in a process of its own (P22)."""
    if os.geteuid() != 0:
        return _read_forward(here, user, about)
    file = os.memfd_create("forward")
    try:
        act = partial(_write_forward, here, user, about, file)
        [(_, code)] = run_all([Task(user.address, partial(as_deputy, act), MOST_SECONDS)])
        if code:
            return [_unseen(user, f"it took longer than {MOST_SECONDS:g} seconds, or failed")]
        with open(file, "rb", closefd=False) as content:
            content.seek(0)
            return [Step(asked, answer, where, []) for asked, answer, where in json.load(content)]
    finally:
        os.close(file)


def _write_forward(here: Site, user: User, about: Envelope, file: int) -> int:
    try:
        found = _read_forward(settle(here, user, kept=False), user, about)
    except (MdaflowError, OSError) as error:
        found = [_unseen(user, error)]
    with open(file, "w", closefd=False) as content:
        json.dump([step[:3] for step in found], content)
    return 0


def _read_forward(here: Site, user: User, about: Envelope) -> list[Step]:
    try:
        return list(forward_of(here, user, about))
    except (MdaflowError, OSError) as error:
        return [_unseen(user, error)]


def _unseen(user: User, why: object) -> Step:
    return Step(f"the home of {user.address} cannot be looked into", str(why), "", [])


# doubts


def _check(here: Site, as_json: bool) -> int:
    code = 0
    try:
        for where, text in doubts(here.router, _domains(here)):
            plain = f"{_clean(where)}: {_clean(text)}"
            say(json.dumps({"where": where, "text": text}) if as_json else plain)
            code = EX_DATAERR
    except ConfigError as error:
        raise ConfigError(tuple(map(_clean, error.problems))) from None
    if not code and not as_json:
        say("nothing is doubtful")
    return code


def _domains(here: Site) -> list[str]:
    """The domains in which there are users, many of them."""
    users = (user for source in here.users for user in _some(source.all))
    named = (*here.config.domains, *(user.address.rpartition("@")[2] for user in users))
    return list(dict.fromkeys(map(str.lower, named)))[:MAX_DOMAINS]


def _some(listed: Callable[[], Iterator[User]]) -> Iterator[User]:
    """Some users of a source; none of one that cannot list them."""
    with suppress(TempFail):
        yield from islice(listed(), MAX_USERS)
