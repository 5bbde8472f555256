"""The weights of spam tests: the shipped table, and what the site's own file says otherwise.

The site's file is YAML of `NAME: WEIGHT`, or of `NAME: {weight: WEIGHT, about: TEXT}` as in the
shipped table. Only names of that table can be given, so that a misspelt one is no silent loss.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from mdaflow.errors import ConfigError
from mdaflow.scan.spam import Table, Worth, default_table

from .plain import Composer, Place, Problem, Unreadable, decoded

MAX_WEIGHT = 1000
MAX_ABOUT = 200

_LIKE = {"DNSBL": "DNSBL_CLIENT", "URIBL": "URIBL_LINK"}
"""What a list in the DNS is worth that the shipped table does not know."""


def read_weights(
    site: bytes = b"", name: str = "", lists: Collection[str] = ()
) -> dict[str, Worth]:
    """What each test is worth, those of `lists` in the DNS (`DNSBL_X`, `URIBL_X`) as well.

    Raises ConfigError with `NAME:line:column: message` for each problem of the site's file.
    """
    shipped = _read(default_table(), "tests.yaml", {})
    for test in lists:
        shipped.setdefault(test, shipped[_LIKE[test.partition("_")[0]]])
    return shipped | _read(site, name, shipped) if site else shipped


def _read(text: bytes, name: str, known: Table) -> dict[str, Worth]:
    composer = Composer()
    try:
        plain = composer.compose(decoded(text))
    except Unreadable as error:
        raise ConfigError((_line(name, error.problem),)) from None
    problems = list(composer.problems)
    found: dict[str, Worth] = {}
    if isinstance(plain, dict):
        for test, value in plain.items():
            place = composer.keys[test,]
            worth = _worth(test, value, known)
            if isinstance(worth, str):
                problems.append(Problem(place, (test,), worth))
            else:
                found[test] = worth
    elif plain is not None:
        problems.append(Problem((1, 1), (), "must be lines of NAME: WEIGHT"))
    if problems:
        raise ConfigError(tuple(_line(name, p) for p in sorted(problems)))
    return found


def _worth(test: str, value: object, known: Table) -> Worth | str:
    """What a test is worth, or what is wrong."""
    if known and test not in known:
        near = difflib.get_close_matches(test.upper(), known, 1)
        return "no such test" + "".join(f"; did you mean '{name}'?" for name in near)
    given = value if isinstance(value, Mapping) else {"weight": value}
    about = given.get("about", known[test].about if known else "")
    weight = given.get("weight")
    if set(given) - {"weight", "about"} or not isinstance(about, str) or len(about) > MAX_ABOUT:
        return "must be a number, or {weight: NUMBER, about: TEXT}"
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return "its weight must be a number"
    if abs(weight) > MAX_WEIGHT:
        return f"its weight must be from -{MAX_WEIGHT} to {MAX_WEIGHT}"
    return Worth(float(weight), about)


def _line(name: str, problem: Problem) -> str:
    place: Place = problem.place
    path = f"{problem.path[0]}: " if problem.path else ""
    return f"{name}:{place[0]}:{place[1]}: {path}{problem.message}"
