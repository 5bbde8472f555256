"""`mdaflow check`: are rule files right, and do they do what the tests in them say?

Errors and warnings go to standard error with their line and a caret, what became of the tests
to standard output. Exit codes: 0; 65 for errors, for tests that fail and, with --strict, for
warnings; 66 for what is no file or cannot be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import click

from mdaflow import (
    POWERS,
    Config,
    MailError,
    Problem,
    Program,
    Site,
    Source,
    SourceError,
    Span,
    Stage,
    compile_rules,
    lint,
    parse_mailbox,
    read_config,
)
from mdaflow.app.build import myself
from mdaflow.app.log import escaped
from mdaflow.app.rulebook import site_files
from mdaflow.app.trial import Result, named_rules, try_case, unreached
from mdaflow.files import Reading

from . import EX_DATAERR
from .common import config_option, read_file, read_input, say, site_of, step_aside

MAX_NAMED = 20
"""Rules without a test that are named."""
MAX_MESSAGE = 64 << 20
"""Bytes of a file with a message."""


@click.command("check")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--site", is_flag=True, help="The files are the site's: they may refuse mail.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show the trace of each test that fails.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, an object for each file.")
@config_option
def command(
    files: Sequence[str],
    site: bool,
    strict: bool,
    verbose: bool,
    as_json: bool,
    config: str | None,
) -> int:
    """Check rule files: the given ones (- for standard input), else the site's and your own.

    Every problem is shown with its place, the tests in the files are run, and the rules that
    no test reaches are named. Exit code 65 when something is wrong.
    """
    settings = read_config(config)
    found = files or _installed(settings)
    here = _bare_site(settings)
    step_aside(files)
    checked = [_check(here, path, site or _is_of_site(settings, path), verbose) for path in found]
    if as_json:
        say(json.dumps([_as_json(each) for each in checked], ensure_ascii=False))
    for each in () if as_json else checked:
        _show(each, strict)
    if not found and not as_json:
        say(f"no rules to check: neither {settings.rules.before} nor {_own(settings)} is there")
    return EX_DATAERR if any(_failed(each, strict) for each in checked) else 0


def _installed(settings: Config) -> list[str]:
    found = []
    for folder in (settings.rules.before, settings.rules.after):
        try:
            found += site_files(folder)
        except OSError as error:
            raise click.ClickException(f"{folder}: {error.strerror}") from error
    own = _own(settings)
    return found + [own] * os.path.lexists(own)


def _own(settings: Config) -> str:
    return os.path.join(myself("localhost").home, settings.rules.user)


def _is_of_site(settings: Config, path: str) -> bool:
    folder = os.path.dirname(os.path.abspath(path))
    return folder in (settings.rules.before, settings.rules.after)


def _bare_site(settings: Config) -> Site:
    """The site without its rules, which may be what is wrong."""
    return site_of(
        replace(settings, rules=replace(settings.rules, before="", after="")), kept=False
    )


# what is found


class Checked(NamedTuple):
    """All that is known of a file."""

    file: str
    show: Callable[[Problem], str]
    """A problem with its line and a caret."""
    errors: Sequence[Problem] = ()
    warnings: Sequence[Problem] = ()
    results: Sequence[Result] = ()
    rules: int = 0
    unreached: Sequence[tuple[Span, str]] = ()


def _check(here: Site, path: str, site: bool, verbose: bool) -> Checked:
    name = "<stdin>" if path == "-" else path
    texts: dict[str, bytes] = {}

    def read(path: str) -> bytes:
        texts[path] = read_file(path)
        return texts[path]

    try:
        text = texts[name] = read_input() if path == "-" else read_file(path)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    _see_that_it_counts(here, path)
    powers = POWERS if site else here.rules.powers
    try:
        program = compile_rules(text, name, powers, read, here.settings.limits)
    except SourceError as error:
        return Checked(name, error.show, errors=error.problems)
    own = () if site else _addresses(here)
    warnings = lint(
        program, provided=here.answers.provided, own=own, separator=_separator(here.config)
    )
    files = {warning.span.file for warning in warnings}
    sources = {file: Source(texts[file].decode("utf-8-sig"), file) for file in files}

    def show(warning: Problem) -> str:
        said = replace(warning, message=f"warning: {warning.message}")
        return said.show(sources[warning.span.file])

    return Checked(name, show, (), warnings, *_try(here, program, site, verbose))


def _see_that_it_counts(here: Site, path: str) -> None:
    """A user's installed file that others could have written is one that the server ignores."""
    whole = os.path.abspath(path)
    home = whole.removesuffix(f"/{here.config.rules.user}")
    if path == "-" or home == whole:
        return
    try:
        Reading(here.settings.limits.file, home=home)(whole)
    except OSError as error:
        told = f"{path}: {error.strerror}, so its rules are ignored"
        raise click.ClickException(told) from error


def _addresses(here: Site) -> tuple[str, ...]:
    with suppress(MailError):
        return (myself(here.hostname).address,)
    return ()


def _separator(settings: Config) -> str:
    """What divides the levels of folder names; empty when it is not the same for all users."""
    found = {parse_mailbox(users.mailbox, "/").separator for users in settings.users}
    return found.pop() if len(found) == 1 else ""


def _try(
    here: Site, program: Program, site: bool, verbose: bool
) -> tuple[Sequence[Result], int, Sequence[tuple[Span, str]]]:
    """What became of the tests, the number of rules, and those that no test reaches."""
    rules = named_rules(program)
    stage = Stage(program, "site" if site else "user")
    settings = here.settings._replace(separator=_separator(here.config) or "/")
    results = []
    for case in program.cases:
        result = try_case(stage, case, rules, settings=settings, ask=here.answers, read=_sample)
        shown = verbose and not result.passed  # traces are large
        results.append(result if shown else result._replace(trace=()))
    return results, len(rules), tuple(unreached(rules, results).items())


def _sample(path: str) -> bytes:
    return read_file(path, MAX_MESSAGE)


def _failed(checked: Checked, strict: bool) -> bool:
    failed = any(not result.passed for result in checked.results)
    return failed or bool(checked.errors or (strict and checked.warnings))


# what is shown


def _show(checked: Checked, strict: bool) -> None:
    for problem in (*checked.errors, *checked.warnings):
        say(checked.show(problem), err=True)
    if checked.errors:
        return
    say("\n".join(_lines(checked, _failed(checked, strict))))


def _lines(checked: Checked, failed: bool) -> Iterator[str]:
    count = len(checked.warnings)
    warnings = f", {count} warning{'s' * (count > 1)}" if count else ""
    yield f"{checked.file}: {'failed' if failed else 'ok'}{warnings}"
    if not checked.results:
        return
    wrong = [result for result in checked.results if not result.passed]
    passed = f"{len(checked.results) - len(wrong)} passed"
    yield f"  tests: {passed}{f', {len(wrong)} failed' if wrong else ''}"
    for result in wrong:
        yield f'  "{escaped(result.case.name)}" ({result.case.span.short})'
        yield from (f"    {failure.span}: {escaped(failure.text)}" for failure in result.failures)
        yield from (f"      {event}" for event in result.trace)
    if checked.unreached:
        yield f"  no test reaches: {_named(checked.unreached)}"


def _named(rules: Sequence[tuple[Span, str]]) -> str:
    names = [f"{_quoted(escaped(name))} ({span.short})" for span, name in rules[:MAX_NAMED]]
    more = len(rules) - MAX_NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    return name if name.startswith("rule when ") else f'"{name}"'  # it was given no name


def _as_json(checked: Checked) -> dict[str, object]:
    missed = [{"rule": name, "where": str(span)} for span, name in checked.unreached]
    return {
        "file": checked.file,
        "errors": [_plain(problem) for problem in checked.errors],
        "warnings": [_plain(problem) for problem in checked.warnings],
        "tests": [_plain_result(result) for result in checked.results],
        "coverage": {
            "rules": checked.rules,
            "reached": checked.rules - len(missed),
            "unreached": missed,
        },
    }


def _plain(problem: Problem) -> dict[str, object]:
    span = problem.span
    place = {"file": span.file, "line": span.line, "column": span.column}
    return {**place, "code": problem.code, "message": problem.message}


def _plain_result(result: Result) -> dict[str, object]:
    return {
        "name": result.case.name,
        "where": str(result.case.span),
        "passed": result.passed,
        "failures": [{"where": str(f.span), "message": f.text} for f in result.failures],
    }
