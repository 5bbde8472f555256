"""`mdaflow test`: what the rules make of a message, and why. Nothing is delivered."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import click

from mdaflow import (
    POWERS,
    Action,
    Envelope,
    Event,
    MailError,
    Message,
    PermFail,
    Plan,
    Site,
    SourceError,
    Stage,
    TempFail,
    User,
    compile_file,
    decide,
    read_config,
    sender_of,
    stages_for,
)
from mdaflow.app.answers import Asking
from mdaflow.app.build import myself
from mdaflow.app.caller import settle, user_of
from mdaflow.app.decide import rules_of
from mdaflow.app.deputies import Task, run_all
from mdaflow.app.routing import route
from mdaflow.app.verdicts import Seen

from . import EX_DATAERR, EX_NOPERM, EX_TEMPFAIL, exit_code
from .common import (
    as_deputy,
    as_each,
    config_option,
    envelope,
    original_option,
    read_message,
    say,
    sender_option,
    site_of,
    step_down,
)

Given = Mapping[tuple[str, str], Sequence[Any]]


@click.command("test")
@click.argument("message", metavar="MESSAGE")
@click.option(
    "-r", "recipients", multiple=True, metavar="ADDRESS", help="A recipient; may be repeated."
)
@click.option("-u", "user", metavar="USER", help="The user whose rules and mailbox are used.")
@sender_option
@original_option
@click.option(
    "--rules", "files", multiple=True, metavar="FILE", help="Run this file as the user's rules."
)
@click.option("--site", is_flag=True, help="The --rules are the site's: they may refuse mail.")
@click.option(
    "--given",
    "facts",
    multiple=True,
    metavar="NAME=VALUE",
    help="Let this be so: spam.score=7, header:X-Y=z, remembered:KEY=true; may be repeated.",
)
@click.option("--offline", is_flag=True, help="Ask nobody: what is not given is unknown.")
@click.option("--scan", is_flag=True, help="Ask scanners, even if no rule does.")
@click.option("-e", "execute", is_flag=True, help="Really deliver the message.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each recipient.")
@config_option
def command(
    message: str,
    recipients: Sequence[str],
    user: str | None,
    sender: str | None,
    original: str,
    files: Sequence[str],
    site: bool,
    facts: Sequence[str],
    offline: bool,
    scan: bool,
    execute: bool,
    as_json: bool,
    config: str | None,
) -> int:
    """Show what the rules make of MESSAGE (a file, - for standard input), and why.

    Without -r the message is for the user of -u, else for you, and your own rules are used.
    """
    given = _given(facts)
    if scan and offline:
        raise click.UsageError("--scan asks scanners, so without --offline")
    if execute and (given or offline):
        raise click.UsageError("-e delivers as things are, so without --given and --offline")
    mail = read_message(message)
    settings = read_config(config)
    here = site_of(settings, kept=False)
    tried = [_compile(here, path, site=site) for path in files]
    accounts = as_each(settings, named=bool(recipients or user))
    if not accounts and (execute or (settings.user and (recipients or user))):
        step_down(settings)
    if execute and not accounts:
        here = site_of(settings, kept=True)
    names = _expanded(here, recipients or ([user] if user else []))
    trial = _Trial(
        here,
        mail,
        user,
        bool(names),
        sender,
        original,
        tried,
        given,
        offline,
        scan,
        execute,
        as_json,
        accounts,
    )
    acts = [Task(name, partial(as_deputy, partial(_try, trial, name))) for name in names or [""]]
    if accounts and os.geteuid() == 0:  # each becomes the account whose mail it is
        return max(code if code >= 0 else EX_TEMPFAIL for _, code in run_all(acts))
    return max(_try(trial, name) for name in names or [""])


class _Trial(NamedTuple):
    """What shall be tried, for each recipient."""

    here: Site
    mail: Message
    user: str | None
    named: bool
    """There are recipients; else it is for whoever calls."""
    sender: str | None
    original: str
    tried: list[Stage]
    """The rules to run; none for those that are installed."""
    given: Given
    offline: bool
    scan: bool
    """Ask scanners, even if no rule does."""
    execute: bool
    as_json: bool
    each: bool
    """As whoever each user is."""


def _try(trial: _Trial, recipient: str) -> int:
    """Show what becomes of the message for one recipient; the exit code."""
    here, mail, tried = trial.here, trial.mail, trial.tried
    recipient = recipient or myself(here.hostname).address
    try:
        whose = _user(here, trial.user, recipient, trial.named, bool(tried))
    except PermFail as error:
        why = "" if str(error).startswith(error.status.text) else f" ({error})"
        click.echo(f"<{recipient}>: refused at RCPT: {error.status}{why}", err=True)
        return exit_code(error)
    if trial.each:
        here = settle(here, whose, kept=trial.execute)
    broken = False
    programs = [*here.before, *tried, *here.after]
    if not tried:
        programs, broken = _installed(here, whose, recipient)
    about = envelope(_sender(trial.sender, mail), recipient, trial.original)
    asking = here.answers.about(whose, really=False, message=mail)
    decided = _decide(here, programs, mail, about, whose, trial.given, trial.offline, asking)
    put_off = asking.put_off  # by the rules: --scan may ask more
    seen = asking.seen(mail, about) if trial.scan or asking.asked else None
    say((_as_json if trial.as_json else _as_tree)(decided, mail, recipient, seen, put_off))
    if trial.execute:
        from mdaflow.app.pipeline import deliver_message

        status = deliver_message(here, mail, about, user=whose, programs=programs)
        click.echo(f"{status}", err=True)
        if not status.ok:
            return EX_TEMPFAIL if status.temporary else EX_NOPERM
    return EX_DATAERR if broken else 0


def _sender(said: str | None, mail: Message) -> str:
    return sender_of(mail) if said is None else said.strip("<>")


def _given(facts: Sequence[str]) -> Given:
    if not facts:
        return {}
    from mdaflow.app.trial import parse_given

    for fact in facts:
        if "=" not in fact:
            raise click.BadParameter(f"{fact}: write NAME=VALUE", param_hint="--given")
    try:
        return parse_given(facts)
    except SourceError as error:
        raise click.BadParameter(error.problems[0].message, param_hint="--given") from error


def _expanded(here: Site, recipients: Sequence[str]) -> list[str]:
    """All users that the recipients stand for, by the site's aliases; all else is only told."""
    found: dict[str, None] = {}
    for recipient in recipients:
        destinations = route(here, recipient).destinations
        named = [d for d in destinations if d.where]
        if named:
            said = ", ".join(d.name or d.kind for d in named)
            say(f"<{recipient}> is an alias for {said}", err=True)
        users = [d.name for d in named if d.kind == "user"]
        found.update(dict.fromkeys(users if named else [recipient]))
    return list(found)


def _user(here: Site, user: str | None, recipient: str, named: bool, files: bool) -> User:
    try:
        return user_of(here, user or (recipient if named else None))
    except MailError:
        if not files or user:
            raise
        return User(recipient, "/nonexistent", "maildir:Maildir")  # --rules need no user


def _decide(
    here: Site,
    programs: list[Stage],
    mail: Message,
    about: Envelope,
    whose: User,
    given: Given,
    offline: bool,
    asking: Asking,
) -> Plan:
    ask: Callable[[Any], Any] = asking
    if given or offline:
        from mdaflow.app import trial

        about, given = trial.told(about, given, here.settings)
        ask = trial.offline(asking) if offline else asking
    return decide(here, programs, mail, about, user=whose, ask=ask, given=given, trace=True)


# rules


def _installed(here: Site, whose: User, recipient: str) -> tuple[list[Stage], bool]:
    """The rules that a server runs, and whether the user's file is not among them.

    What is wrong with it is shown then, and what a server does instead.
    """
    told: list[str] = []
    stages = stages_for(here, whose, told.append, recipient)
    if not told:
        return stages, False
    try:
        _compile(here, os.path.join(whose.home, rules_of(here, whose)), site=False)
    except SourceError as error:
        click.echo(f"mdaflow: {error}", err=True)
    except click.ClickException:
        pass  # that is what was told
    if os.access(os.path.join(here.config.state, "state.sqlite"), os.R_OK | os.W_OK):
        stages = stages_for(site_of(here.config, kept=True), whose, told.append, recipient)
    outcome = told[-1].rpartition("; ")[2]
    click.echo(f"mdaflow: {outcome}{_UNSEEN * _is_hidden(here.config.state)}", err=True)
    return stages, True


_UNSEEN = " (as far as can be seen: the state of the server cannot be read)"


def _is_hidden(folder: str) -> bool:
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)


def _compile(here: Site, path: str, *, site: bool) -> Stage:
    powers = POWERS if site else here.rules.powers
    try:
        program = compile_file(path, powers, here.settings.limits)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    return Stage(program, "site" if site else "user")


# what is shown

_STYLES = {True: "32", False: "2", None: "1"}


def _paint(text: str, style: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def _as_tree(
    decided: Plan, mail: Message, recipient: str, seen: Seen | None, put_off: TempFail | None
) -> str:
    lines = [_paint(recipient, "1") + f"  {mail.size:,} bytes"]
    rows = [(event, "  " * event.depth + event.text) for event in decided.trace]
    width = min(72, max((len(text) for _, text in rows), default=0))
    places = max((len(event.span.short) for event, _ in rows), default=0)
    lines += [_row(event, text, places, width) for event, text in rows]
    lines += [f"  error: {error}" for error in decided.errors]
    lines += [_paint(f"  => {line}", "1") for line in _conclusion(decided, put_off)]
    lines += _scanned(seen) if seen is not None else []
    return "\n".join(lines)


def _row(event: Event, text: str, places: int, width: int) -> str:
    place = f"{event.span.short:>{places + 2}}"
    said = {True: "yes", False: "no", None: ""}[event.result]
    seen = " | ".join(event.values or ())
    if event.values == () and " " in event.text:  # what is true by itself is one word
        seen = "-"
    style = "1" if event.kind == "action" else _STYLES[event.result]
    return f"{place}  {_paint(f'{text:<{width}}  {said:<3}', style)}  {seen}".rstrip()


def _clean(text: str) -> str:
    """Text of rules and mail, which shall not talk to a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _conclusion(decided: Plan, put_off: TempFail | None) -> list[str]:
    """What becomes of the message; until a scanner can say nothing does."""
    if put_off is not None:
        return [f"put off: {put_off.status}  ({_clean(str(put_off))})"]
    lines = []
    for action in decided.actions:
        why = f'rule "{_clean(action.rule)}", ' if action.rule else ""
        place = action.span.short if action.span else "no rule finished it: kept in the inbox"
        lines.append(f"{_clean(str(action))}  ({why}{place})")
    return lines


def _scanned(seen: Seen) -> list[str]:
    """What scanners have said: each test of spam with its weight, the weightiest first."""
    lines = [f"  virus: {seen.virus}"] if seen.virus else []
    lines += [f"  not scanned: {_clean(why)}" for why in seen.unscanned]
    if seen.hits is not None:
        lines.append(f"  spam: {seen.score:.2f} of {seen.required:.1f}")
        width = max((len(hit.name) for hit in seen.hits), default=0)
        hits = sorted(seen.hits, key=lambda hit: -abs(hit.score))
        lines += [f"    {h.score:+6.2f}  {h.name:<{width}}  {_clean(h.why)}".rstrip() for h in hits]
    return lines


def _as_json(
    decided: Plan, mail: Message, recipient: str, seen: Seen | None, put_off: TempFail | None
) -> str:
    said: dict[str, object] = {}
    if seen is not None and seen.virus:
        said["virus"] = {"status": seen.virus}
    if seen is not None and seen.hits is not None:
        said["spam"] = {
            "score": seen.score,
            "required": seen.required,
            "hits": [hit._asdict() for hit in seen.hits],
            "unscanned": list(seen.unscanned),
        }
    return json.dumps(
        {
            "recipient": recipient,
            "outcome": "deferred" if put_off else decided.outcome,
            "actions": [] if put_off else [_plain(action) for action in decided.actions],
            "implicit_keep": decided.implicit_keep and not put_off,
            "message": {"size": mail.size, "header_edits": list(decided.edits)},
            "trace": [_JSON_EVENTS[event.kind](event) for event in decided.trace],
            "errors": [*decided.errors, *([str(put_off)] if put_off else ())],
            **said,
        },
        ensure_ascii=False,
    )


def _plain(action: Action) -> dict[str, object]:
    about: dict[str, object] = {"action": action.verb}
    if action.stores:
        about |= {"folder": action.folder or "INBOX", "flags": sorted(action.flags)}
    if action.targets:
        about["targets"] = list(action.targets)
    if action.text:
        about["text"] = action.text
    if action.options:
        about["options"] = dict(action.options)
    place = str(action.span) if action.span else ""
    return {**about, "also": action.also, "rule": action.rule, "where": place}


_JSON_EVENTS: dict[str, Callable[[Event], dict[str, object]]] = {
    "rule": lambda e: {"where": str(e.span), "rule": e.text, "result": e.result},
    "test": lambda e: {
        "where": str(e.span), "test": e.text, "value": list(e.values or ()), "result": e.result,
    },
    "action": lambda e: {"where": str(e.span), "action": e.text},
    "error": lambda e: {"where": str(e.span), "error": e.text},
}  # fmt: skip
