"""`mdaflow test`: what the rules make of a message, and why. Nothing is delivered."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence

import click

from mdaflow import (
    Config,
    Event,
    MailError,
    Message,
    PermFail,
    Plan,
    Site,
    Stage,
    User,
    compile_file,
    decide,
    read_config,
    stages_for,
)
from mdaflow.app.build import myself
from mdaflow.app.rulebook import USER_ACTIONS

from .common import (
    config_option,
    envelope,
    original_option,
    read_message,
    sender_option,
    site_of,
    step_down,
    user_of,
)


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
@click.option("-e", "execute", is_flag=True, help="Really deliver the message.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each recipient.")
@config_option
def command(
    message: str,
    recipients: Sequence[str],
    user: str | None,
    sender: str,
    original: str,
    files: Sequence[str],
    site: bool,
    execute: bool,
    as_json: bool,
    config: str | None,
) -> int:
    """Show what the rules make of MESSAGE (a file, - for standard input), and why.

    Without -r the message is for you, and your own rules are used.
    """
    mail = read_message(message)
    settings = read_config(config)
    tried = [_compile(path, settings, site=site) for path in files]
    if execute or (settings.user and (recipients or user)):
        step_down(settings)
    here = site_of(settings, kept=execute)
    show = _as_json if as_json else _as_tree
    code = 0
    for recipient in recipients or [myself(here.hostname).address]:
        try:
            whose = _user(here, user, recipient, bool(recipients), bool(files))
            programs = _programs(here, whose, tried)
        except PermFail as error:
            code = 67
            click.echo(f"<{recipient}>: refused at RCPT: {error.status}", err=True)
            continue
        about = envelope(sender, recipient, original)
        decided = decide(here, programs, mail, about, trace=True)
        click.echo(show(decided, mail, recipient))
        if execute:
            from mdaflow.app.pipeline import deliver_message

            click.echo(
                f"{deliver_message(here, mail, about, user=whose, programs=programs)}", err=True
            )
    return code


def _user(here: Site, user: str | None, recipient: str, named: bool, files: bool) -> User:
    try:
        return user_of(here, user or (recipient if named else None))
    except MailError:
        if not files or user:
            raise
        return User(recipient, "/nonexistent", "maildir:Maildir")  # --rules need no user


def _programs(here: Site, whose: User, tried: list[Stage]) -> list[Stage]:
    if tried:
        return [*here.before, *tried, *here.after]
    own = os.path.join(whose.home, here.config.rules.user)
    if os.path.exists(own):
        _compile(own, here.config, site=False)  # a broken file is shown, not passed over
    return stages_for(here, whose)


def _compile(path: str, settings: Config, *, site: bool) -> Stage:
    granted = (*USER_ACTIONS, *settings.rules.grant)
    try:
        program = compile_file(path) if site else compile_file(path, granted)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    return Stage(program, "site" if site else "user")


# what is shown

_STYLES = {True: "32", False: "2", None: "1"}


def _paint(text: str, style: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def _as_tree(decided: Plan, mail: Message, recipient: str) -> str:
    lines = [_paint(recipient, "1") + f"  {mail.size:,} bytes"]
    rows = [(event, "  " * event.depth + event.text) for event in decided.trace]
    width = min(72, max((len(text) for _, text in rows), default=0))
    lines += [_row(event, text, width) for event, text in rows]
    lines += [f"  error: {error}" for error in decided.errors]
    lines += [_paint(f"  => {line}", "1") for line in _conclusion(decided)]
    return "\n".join(lines)


def _row(event: Event, text: str, width: int) -> str:
    place = f"{event.span.short:>14}"
    said = {True: "yes", False: "no", None: ""}[event.result]
    seen = f"  {' | '.join(event.values)}" if event.values else ""
    style = "1" if event.kind == "action" else _STYLES[event.result]
    return f"{place}  {_paint(f'{text:<{width}}  {said:<3}', style)}{seen}".rstrip()


def _conclusion(decided: Plan) -> list[str]:
    lines = []
    for action in decided.actions:
        why = f'rule "{action.rule}", ' if action.rule else ""
        place = action.span.short if action.span else "no rule finished it: kept in the inbox"
        lines.append(f"{action}  ({why}{place})")
    return lines


def _as_json(decided: Plan, mail: Message, recipient: str) -> str:
    return json.dumps(
        {
            "recipient": recipient,
            "outcome": decided.outcome,
            "actions": [
                {
                    "action": action.verb,
                    **({"folder": action.folder or "INBOX"} if action.stores else {}),
                    **({"flags": sorted(action.flags)} if action.stores else {}),
                    **({"text": action.text} if action.text else {}),
                    "also": action.also,
                    "rule": action.rule,
                    "where": str(action.span) if action.span else "",
                }
                for action in decided.actions
            ],
            "implicit_keep": decided.implicit_keep,
            "message": {"size": mail.size, "header_edits": []},
            "trace": [_JSON_EVENTS[event.kind](event) for event in decided.trace],
            "errors": list(decided.errors),
        },
        ensure_ascii=False,
    )


_JSON_EVENTS: dict[str, Callable[[Event], dict[str, object]]] = {
    "rule": lambda e: {"where": str(e.span), "rule": e.text, "result": e.result},
    "test": lambda e: {
        "where": str(e.span), "test": e.text, "value": list(e.values or ()), "result": e.result,
    },
    "action": lambda e: {"where": str(e.span), "action": e.text},
    "error": lambda e: {"where": str(e.span), "error": e.text},
}  # fmt: skip
