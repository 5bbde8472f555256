"""`mdaflow config`: check the configuration file, show what is in force, print its schema.

Exit codes: 0, and 78 (EX_CONFIG) with the problems on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import click

from mdaflow import Config, ConfigError
from mdaflow.app import load

_FILE = click.option(
    "--config",
    "path",
    metavar="FILE",
    help=f"The configuration file [default: ${load.VARIABLE}, or {load.DEFAULT} if it exists].",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("config")
def command() -> None:
    """Check or show the configuration."""


@command.command()
@_FILE
@_JSON
def check(path: str | None, as_json: bool) -> None:
    """Report all problems of the configuration file."""
    name = path
    problems: list[str] = []
    warnings: list[str] = []
    try:
        name = load.find(path)
        config = load.read_config(name)
        from mdaflow.app import build, scanners, sources
        from mdaflow.app.directory import wrong

        for found, doubts in (sources.examine(config), scanners.examine(config)):
            problems += found
            warnings += doubts
        problems += wrong(config)
        problems += build.examine(config)
        problems += _unmet(config) if config.has_accounts else ()
    except ConfigError as error:
        problems = list(error.problems)
    problems = list(dict.fromkeys(problems))  # several may need the same user
    if as_json:
        click.echo(_json({"file": name, "problems": problems, "warnings": warnings}))
        raise SystemExit(os.EX_CONFIG if problems else 0)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if problems:
        _refuse(problems)
    click.echo(f"{name}: ok" if name else f"no {load.DEFAULT}, the defaults are in force: ok")


@command.command()
@_FILE
@_JSON
def show(path: str | None, as_json: bool) -> None:
    """Print the configuration in force, with all defaults, as YAML."""
    try:
        config = load.read_config(path)
    except ConfigError as error:
        _refuse(error.problems)
    click.echo(_json(_plain(config)) if as_json else dump(config), nl=as_json)


@command.command()
@_JSON
def schema(as_json: bool) -> None:  # JSON is all it prints, asked or not
    """Print the JSON Schema of the configuration file."""
    click.echo(_json(load.schema()))


def dump(config: Config) -> str:
    """The configuration as YAML; to load it gives an equal Config."""
    import yaml

    # No line is folded: a path stays what one can search for.
    text: str = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, width=1 << 20)
    return text


def _unmet(config: Config) -> Iterator[str]:
    """What a server for accounts needs of this machine, and has not."""
    from mdaflow.app import mailspool, privileges
    from mdaflow.serve import sockets

    for needed in (
        lambda: privileges.check(config, 0),
        lambda: config.lmtp.owner and sockets.ids(config.lmtp.owner),
        lambda: mailspool.check(config),
    ):
        try:
            needed()
        except ConfigError as error:
            yield from error.problems
    for name, path in (("state", config.state), ("quarantine", config.quarantine)):
        wrong = privileges.not_of_user(config, path)
        if wrong and (name == "state" or os.path.lexists(path)):  # it is made for the first rule
            yield f"{name}: {path}: {wrong}"


def _plain(config: Config) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(config)


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False)


def _refuse(problems: Iterable[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(os.EX_CONFIG)
