"""A program of several files: imports are put in their places, lists get their full paths.

Paths are relative to the file they stand in, and stay below the folder of the first one. This
file reads nothing itself: it is given a `Reader`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from . import ir
from .limits import DEFAULTS, Limits
from .source import MAX_PROBLEMS, Problem, Source, Span

MAX_FILE = DEFAULTS.file
MAX_IMPORTS = 100

Reader = Callable[[str], bytes]
"""Gives the content of a file; raises OSError."""
FrontEnd = Callable[[Source], tuple[ir.Program, list[Problem]]]


class Gathering:
    """The files of one program, as they are read."""

    def __init__(self, front_end: FrontEnd, read: Reader | None, limits: Limits) -> None:
        self.front_end = front_end
        self.read = read
        self.limits = limits
        self.problems: list[Problem] = []
        self.sources: list[Source] = []
        self.size = 0
        self.top = ""

    def program(self, text: str | bytes, file: str) -> ir.Program:
        """The program of a text with all that it imports; `problems` says what is wrong."""
        self.top = _folder(file)
        source = self._source(text, file, None)
        return ir.Program(file, ()) if source is None else self._gather(source, (file,))

    def _gather(self, source: Source, above: tuple[str, ...]) -> ir.Program:
        program, problems = self.front_end(source)
        self.sources.append(source)
        self.problems += problems
        body: list[ir.Statement] = []
        cases = list(program.cases)
        for statement in program.body:
            if isinstance(statement, ir.Include):
                inside = self._include(statement, above)
                body += inside.body
                cases += inside.cases
            elif isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Items):
                body.append(statement._replace(value=self._list(statement.value, above[-1])))
            else:
                body.append(statement)
        return ir.Program(program.name, tuple(body), tuple(cases))

    def _include(self, include: ir.Include, above: tuple[str, ...]) -> ir.Program:
        nothing = ir.Program("", ())
        path = self._path(include.span, include.path, above[-1])
        if path in above:
            self._problem(include.span, "imports-itself", path=include.path)
        elif len(above) > self.limits.imports:
            self._problem(include.span, "imports-deep", most=self.limits.imports)
        elif len(self.sources) > MAX_IMPORTS:
            self._problem(include.span, "too-many-imports", most=MAX_IMPORTS)
        elif path and (text := self._content(include.span, path)) is not None:
            source = self._source(text, path, include.span)
            return nothing if source is None else self._gather(source, (*above, path))
        return nothing

    def _list(self, items: ir.Items, file: str) -> ir.Items:
        if not items.file:
            return items
        path = self._path(items.span, items.file, file)
        if path:
            self._content(items.span, path)
        return items._replace(file=path)

    def _content(self, span: Span, path: str) -> bytes | None:
        assert self.read is not None
        try:
            return self.read(path)
        except OSError as error:
            self._problem(span, "unreadable", path=path, reason=error.strerror or error)
            return None

    def _source(self, text: str | bytes, file: str, span: Span | None) -> Source | None:
        source = Source("", file)
        self.size += len(text)
        if self.size > self.limits.file:
            code = "too-large" if span is None else "files-too-large"
            self._problem(span or source.span(0, 0), code, most=_size(self.limits.file))
            return None
        if isinstance(text, str):
            return Source(text, file)
        try:
            return Source(text.removeprefix(codecs.BOM_UTF8).decode(), file)
        except UnicodeDecodeError as error:
            self.problems.append(source.decode_error(error))
            return None

    def _path(self, span: Span, path: str, file: str) -> str:
        """A path that stands in a file, from where the program began; empty if it is none."""
        if self.read is None:
            self._problem(span, "no-file")
            return ""
        levels: list[str] = []
        below = _folder(file)[len(self.top) :]
        for level in f"{below}{path}".split("/"):
            if level == ".." and levels:
                levels.pop()
            elif level == ".." or "\0" in level:
                levels = [".."]
                break
            elif level not in ("", "."):
                levels.append(level)
        if path.startswith("/") or not levels or levels == [".."]:
            self._problem(span, "outside", path=path)
            return ""
        return self.top + "/".join(levels)

    def _problem(self, span: Span, code: str, /, **values: object) -> None:
        if not any(span.covers(problem.span) for problem in self.problems[:MAX_PROBLEMS]):
            self.problems.append(Problem.of(span, code, **values))


def _folder(file: str) -> str:
    """The folder of a file with the `/` behind it; empty for the working directory."""
    return file[: file.rfind("/") + 1]


def _size(size: int) -> str:
    """Bytes as a person says them."""
    for power, name in ((20, "MiB"), (10, "KiB")):
        if size >= 1 << power and size % (1 << power) == 0:
            return f"{size >> power} {name}"
    return f"{size:,} bytes"
