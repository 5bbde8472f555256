"""`mdaflow check`: are rule files right?"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import click

from mdaflow import ACTIONS, Config, SourceError, Span, compile_file, read_config
from mdaflow.app.build import myself
from mdaflow.app.rulebook import USER_ACTIONS, site_files

from . import EX_DATAERR
from .common import config_option


@click.command("check")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--site", is_flag=True, help="The files are the site's: they may refuse mail.")
@click.option("--json", "as_json", is_flag=True, help="The problems as one JSON array.")
@config_option
def command(files: Sequence[str], site: bool, as_json: bool, config: str | None) -> int:
    """Check rule files: the given ones, else the site's and your own.

    Every problem is shown with its place. Exit code 65 when there is one.
    """
    settings = read_config(config)
    problems: list[dict[str, object]] = []
    found = files or _installed(settings)
    if not found and not as_json:
        own = os.path.join(myself("localhost").home, settings.rules.user)
        click.echo(f"no rules to check: neither {settings.rules.before} nor {own} is there")
    for path in found:
        try:
            compile_file(path, _actions(settings, path, site))
        except SourceError as error:
            problems += [_plain(p.span, p.message) for p in error.problems]
            if not as_json:
                click.echo(str(error), err=True)
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror}") from error
        else:
            if not as_json:
                click.echo(f"{path}: ok")
    if as_json:
        click.echo(json.dumps(problems, ensure_ascii=False))
    return EX_DATAERR if problems else 0


def _plain(span: Span, message: str) -> dict[str, object]:
    return {"file": span.file, "line": span.line, "column": span.column, "message": message}


def _actions(settings: Config, path: str, site: bool) -> Sequence[str]:
    folder = os.path.dirname(os.path.abspath(path))
    if site or folder in (settings.rules.before, settings.rules.after):
        return ACTIONS
    return (*USER_ACTIONS, *settings.rules.grant)


def _installed(settings: Config) -> list[str]:
    found = []
    for folder in (settings.rules.before, settings.rules.after):
        found += site_files(folder)
    own = os.path.join(myself("localhost").home, settings.rules.user)
    return found + [own] * os.path.exists(own)
