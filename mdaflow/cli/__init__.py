"""The command line: one short file a command, imported when it is called for.

Exit codes are those of sysexits.h: 0, 64 usage, 65 bad rules or data, 66 no input, 67 no such
user, 75 try again, 77 refused, 78 configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

import click

from mdaflow import ConfigError, MailError, MdaflowError, __version__

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_NOUSER = 64, 65, 66, 67
EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 75, 77, 78

COMMANDS = {
    "serve": "Take mail by LMTP and deliver it.",
    "deliver": "Deliver one message from standard input.",
    "test": "Show what the rules make of a message, and why.",
    "check": "Check rule files.",
    "fmt": "Lay out rule files in the one way.",
    "route": "Show where the mail for an address goes, and why.",
    "learn": "Learn what is spam and what is not.",
    "expire": "Delete messages whose time is over.",
    "quarantine": "Look at what rules have put aside, and release it.",
    "config": "Check or show the configuration.",
}


class Commands(click.Group):
    """The commands of a table, each in a module of its name."""

    package = __name__
    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        command: click.Command = import_module(f"{self.package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="mdaflow")
def mdaflow() -> None:
    """Mail delivery by rules that explain themselves."""


def main() -> None:
    """The program `mdaflow`."""
    sys.exit(told(lambda: mdaflow.main(prog_name="mdaflow", standalone_mode=False)))


def told(command: Callable[[], int | None]) -> int:
    """The exit code of a command; what it raises is told to the caller."""
    try:
        return command() or 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        # An MTA gives up on 64, and would bounce mail for a mistake in its own configuration (P4).
        by_mta = getattr(getattr(error, "ctx", None), "info_name", "") == "deliver"
        if isinstance(error, click.UsageError) and not by_mta:
            return EX_USAGE
        return EX_TEMPFAIL if by_mta else EX_NOINPUT
    except click.Abort:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MdaflowError as error:
        click.echo(f"mdaflow: {error}" if not isinstance(error, ConfigError) else error, err=True)
        return exit_code(error)


def exit_code(error: MdaflowError) -> int:
    """The sysexits code of an error."""
    if isinstance(error, ConfigError):
        return EX_CONFIG
    if isinstance(error, MailError):
        if error.status.temporary:
            return EX_TEMPFAIL
        return EX_NOUSER if error.status.enhanced == "5.1.1" else EX_NOPERM
    return EX_DATAERR
