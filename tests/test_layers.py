"""The layers of the package: imports go down only, and what shall do no I/O imports none.

Imports are read with `ast`, wherever they stand: in functions, under TYPE_CHECKING, relative,
or as the literal argument of `import_module`. Known limit: a module name computed at run time
is not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYER = {
    "errors": 0,
    "files": 0,
    "mail": 0,
    "lang": 1,
    "engine": 2,
    "scan": 3,
    "route": 3,
    "store": 3,
    "deliver": 3,
    "app": 4,
    "__init__": 5,  # the public API, which nothing inside may lean on
    "serve": 6,
    "cli": 6,
    "__main__": 7,
}

# Server and commands are users of the public API: what is public, and the program's wiring.
USERS = {"serve", "cli"}
PUBLIC = {"__init__", "errors", "files", "mail", "app", "serve", "cli"}

# Between two members of one layer: only these.
ACROSS = {("mail", "errors"), ("files", "errors"), ("cli", "serve")}

PURE = {"mail", "lang", "engine"}
IO = {
    *("asyncio", "fcntl", "ftplib", "glob", "http", "imaplib", "logging", "mmap"),
    *("multiprocessing", "os", "pathlib", "poplib", "select", "selectors", "shutil", "signal"),
    *("smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "syslog", "tempfile"),
    "urllib.request",
}
LOADS_ITS_TABLES = "mdaflow/lang/flow/grammar.py"

ONLY_SERVE = {"asyncio", "aiosmtpd"}


def _public(name: str) -> str:
    """What `from mdaflow import name` imports: a member, or something of the public API."""
    return f"mdaflow.{name}" if name in LAYER else "mdaflow"


def member(module: str) -> str:
    """Which row of LAYER a dotted name below mdaflow belongs to."""
    words = module.split(".")
    return words[1] if len(words) > 1 else "__init__"


def absolute(file: str, dots: int, name: str | None) -> str:
    """The dotted name of what `file` calls `name` behind so many dots."""
    folders = PurePosixPath(file).parent.parts
    above = folders[: len(folders) + 1 - dots] if dots else ()
    return ".".join([*above, *filter(None, [name])])


def imported(file: str, node: ast.AST) -> Iterator[str]:
    """The dotted names that one statement or call imports."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=dots):
            # whether `name` is a module or something in one makes no difference to its layer
            whole = absolute(file, dots, module)
            if whole == "mdaflow":
                yield from (_public(alias.name) for alias in names)
            else:
                yield from (f"{whole}.{alias.name}" for alias in names)
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            bare = name.lstrip(".")
            yield absolute(file, len(name) - len(bare), bare)


def arrow_problem(source: str, target: str) -> str | None:
    """Why a file of member `source` may not import from member `target`."""
    if target not in LAYER:
        return "is not in the table of layers"
    if source == target or (source, target) in ACROSS:
        return None
    if source in USERS and target not in PUBLIC:
        return "is not public"
    if LAYER[target] == LAYER[source]:
        return "points across"
    return "points up" if LAYER[target] > LAYER[source] else None


def outside_problem(file: str, source: str, name: str) -> str | None:
    """Why a file may not import `name`, which is not ours."""
    words = name.split(".")
    prefixes = {".".join(words[: n + 1]) for n in range(len(words))}
    if source != "serve" and prefixes & ONLY_SERVE:
        return "is for serve/ only"
    if source in PURE and prefixes & IO and file != LOADS_ITS_TABLES:
        return "does I/O"
    return None


def complaints(file: str, source: str, node: ast.AST) -> Iterator[str]:
    """What is wrong with one node of the syntax tree."""
    for name in imported(file, node):
        ours = name.split(".")[0] == "mdaflow"
        problem = (
            arrow_problem(source, member(name)) if ours else outside_problem(file, source, name)
        )
        if problem:
            yield f"{name} {problem}"
    match node:
        case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
            if source in PURE and file != LOADS_ITS_TABLES:
                yield f"{name}() does I/O"


def problems(file: str, text: str) -> list[str]:
    """What is wrong with `file`, a path from the root: `file:line: complaint` each."""
    source = PurePosixPath(file).parts[1].removesuffix(".py")
    if source not in LAYER:
        return [f"{file}: is not in the table of layers"]
    return [
        f"{file}:{getattr(node, 'lineno', 0)}: {complaint}"
        for node in ast.walk(ast.parse(text, file))
        for complaint in complaints(file, source, node)
    ]


def test_imports_go_down_only() -> None:
    """No file of the package imports upwards, across, or what its layer shall not do."""
    files = sorted((ROOT / "mdaflow").rglob("*.py"))
    assert len(files) > len(LAYER) - 2, "the package was not found"
    found = [
        problem
        for file in files
        for problem in problems(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))
    ]
    assert not found, "\n".join(["", *found])


# file | its text, with / between lines | the complaint
BAD = """
mail/header.py     | from mdaflow.lang import ir                  | lang.ir points up
mail/header.py     | from mdaflow import engine                   | engine points up
mail/header.py     | from .. import app                           | app points up
lang/flow/lower.py | from ...engine.plan import Plan              | engine.plan.Plan points up
engine/run.py      | import mdaflow.deliver.maildir               | deliver.maildir points up
engine/run.py      | import mdaflow                               | mdaflow points up
errors.py          | from mdaflow.mail import header              | mail.header points across
deliver/mbox.py    | from mdaflow.store import sqlite             | store.sqlite points across
serve/lmtp.py      | from mdaflow.cli import main                 | cli.main points across
app/build.py       | def f(): / from mdaflow.serve import lmtp    | :2: mdaflow.serve.lmtp points up
app/build.py       | if TYPE_CHECKING: / from mdaflow import cli  | :2: mdaflow.cli points up
app/build.py       | importlib.import_module('mdaflow.cli.test')  | cli.test points up
app/build.py       | import_module('..cli.test', __package__)     | cli.test points up
app/build.py       | from mdaflow import Message                  | mdaflow points up
app/build.py       | from mdaflow.attic import x                  | attic.x is not in the table
cli/test.py        | from mdaflow.engine.plan import Plan         | engine.plan.Plan is not public
serve/lmtp.py      | from mdaflow import deliver                  | deliver is not public
attic.py           | import sys                                   | attic.py: is not in the table
mail/mime.py       | import os.path                               | os.path does I/O
engine/run.py      | from logging import getLogger                | logging.getLogger does I/O
lang/check.py      | def f(p): / return open(p)                   | :2: open() does I/O
lang/flow/lower.py | from urllib import request                   | urllib.request does I/O
app/pipeline.py    | import asyncio                               | asyncio is for serve/ only
cli/serve.py       | from aiosmtpd.smtp import SMTP               | aiosmtpd.smtp.SMTP is for serve
"""

GOOD = """
cli/serve.py         | from mdaflow.serve import master
cli/main.py          | from mdaflow import Plan, __version__
serve/lmtp.py        | import asyncio / from mdaflow.errors import Status
mail/envelope.py     | from ..errors import Status / from . import address
lang/flow/grammar.py | import os / open(os.devnull)
lang/flow/parse.py   | from urllib.parse import quote / from .grammar import load
app/build.py         | import os, logging / from mdaflow.deliver import maildir
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def lines(cell: str) -> str:
    """The text of a cell; what follows a colon is indented."""
    return cell.replace(": / ", ":\n    ").replace(" / ", "\n")


@pytest.mark.parametrize(("file", "text", "complaint"), rows(BAD))
def test_bad_import_is_found(file: str, text: str, complaint: str) -> None:
    """An arrow that points the wrong way is reported with its file and line."""
    [problem] = problems(f"mdaflow/{file}", lines(text))
    assert complaint in problem


@pytest.mark.parametrize(("file", "text"), rows(GOOD))
def test_good_import_passes(file: str, text: str) -> None:
    """An arrow that points down, or within a package, is no problem."""
    assert problems(f"mdaflow/{file}", lines(text)) == []
