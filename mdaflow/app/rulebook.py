"""The rules that are in force: the site's two stages, and the file of each user.

A user's file is compiled once a version of it and of what it imports, and kept. A file that
does not compile changes nothing: the last good version stays in force, for every process and
over restarts; without one the user has no rules. What cannot be read for now is a temporary
failure: never "no rules".
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from mdaflow.engine.run import Stage
from mdaflow.errors import ConfigError, TempFail, from_oserror
from mdaflow.files import Cache, Made, Reading, Versions
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.source import SourceError
from mdaflow.store import Store

USER_ACTIONS = (
    "deliver", "keep", "discard", "forward", "quarantine", "reply", "notify", "log", "remember",
)  # fmt: skip
"""What the rules of users may do unless the configuration says otherwise."""
MAX_KEPT = 10_000
"""Compiled files of users that are kept in memory."""
MAX_TEXT = 4 << 20
"""Bytes of all of them together, with what they import. Compiled they take some thirty times as
much (P30)."""

log = logging.getLogger("mdaflow")


def site_program(folder: str, limits: Limits = DEFAULTS) -> ir.Program | None:
    """The rules of a stage of the site: every `*.rules` of a folder in the order of names.

    None when there are none. Raises ConfigError with all that is wrong in them.
    """
    try:
        paths = site_files(folder)
    except OSError as error:
        raise ConfigError((f"{folder}: {error.strerror}",)) from error
    body: tuple[ir.Statement, ...] = ()
    problems: list[str] = []
    for path in paths:
        try:
            reading = Reading(limits.file)
            body += compile_rules(reading(path), path, ir.POWERS, reading, limits).body
        except SourceError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    if problems:
        raise ConfigError(tuple(problems))
    return ir.Program(folder, body) if paths else None


def site_files(folder: str) -> list[str]:
    """The rule files of a stage of the site, without the hidden ones that editors make.

    A missing folder has none. Raises OSError when it cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    rules = (name for name in names if name.endswith(".rules") and not name.startswith("."))
    return [os.path.join(folder, name) for name in sorted(rules)]


def compile_file(
    path: str, powers: Collection[str] = ir.POWERS, limits: Limits = DEFAULTS
) -> ir.Program:
    """The program of a file. Raises SourceError, or OSError when it cannot be read.

    For root it has to be root's, as the files of the site; else it may be anybody's.
    """
    reading = Reading(limits.file, trusting=os.geteuid() != 0)
    return compile_rules(reading(path), path, powers, reading, limits)


def powers_of_users(granted: Collection[str], denied: Collection[str]) -> tuple[str, ...]:
    """What the rules of users may do here."""
    return tuple(verb for verb in (*USER_ACTIONS, *granted) if verb not in denied)


class UserRules:
    """The compiled rules of users, by path. `compiled` is the compiler of their language, `room`
    how many bytes of a last good version are kept in the store."""

    def __init__(
        self,
        store: Store,
        powers: Collection[str] = USER_ACTIONS,
        limits: Limits = DEFAULTS,
        compiled: Callable[..., ir.Program] | None = None,
        room: int = sys.maxsize,
    ) -> None:
        self._store = store
        self._room = room
        self._compiled = compiled or _compiled
        self._limits = limits
        self.powers = powers
        self._kept: Cache[Stage | None] = Cache(MAX_KEPT, MAX_TEXT)
        self._absent: set[str] = set()
        """Users without rules, of whom no version is kept."""

    def stage(
        self,
        path: str,
        tell: Callable[[str], object] = log.warning,
        *,
        home: str = "",
        kept: bool = True,
        **about: str,
    ) -> Stage | None:
        """The rules in a file of the user whose folder is `home`; None when there are none to run.

        `about` goes to the compiler: what it has to know of the user. Without `kept` there is no
        last good version: who could have any number of files shall not fill the store.

        What is wrong with a new version of the file is told once. Raises TempFail when the
        file is there and cannot be read now.
        """
        home = home or os.path.dirname(path)
        try:
            os.lstat(path)  # most users have none
            key = " ".join((path, *about.values()))
            return self._kept.get(key, lambda: self._make(path, home, tell, kept, about))
        except (FileNotFoundError, NotADirectoryError):
            if kept:
                self._forget(path)
            return None
        except OSError as error:
            raise from_oserror(error) from error

    def _forget(self, path: str) -> None:
        """Rules that somebody has removed do not come back as the last good version."""
        if path in self._absent:
            return
        with suppress(OSError):
            if self._store.get(_key(path)) is not None:
                self._store.put(_key(path), "", 0.0)
            if len(self._absent) >= MAX_KEPT:
                self._absent.clear()
            self._absent.add(path)

    def _make(
        self,
        path: str,
        home: str,
        tell: Callable[[str], object],
        kept: bool,
        about: Mapping[str, str],
    ) -> Made[Stage | None]:
        reading = Reading(self._limits.file, home=home)
        try:
            text = reading(path)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            tell(f"{path}: {error.strerror}, so its rules are ignored")
            return Made(None, reading.versions, 0)
        versions = reading.versions
        self._absent.discard(path)
        try:
            program = self._compiled(text, path, self.powers, reading, self._limits, **about)
        except SourceError as error:
            last = self._last_good(path, error, tell, kept, about)
            return Made(last and Stage(last), versions, sum(reading.sizes.values()))
        lists = _lists(program)  # these are read again by themselves
        files = {name: size for name, size in reading.sizes.items() if name not in lists}
        versions = {name: seen for name, seen in versions.items() if name not in lists}
        if kept:
            self._keep(path, home, {name: versions[name] for name in files})
        return Made(Stage(program), versions, sum(files.values()))

    def _keep(self, path: str, home: str, files: Versions) -> None:
        """Keep the good version of a file, with all that it imports, for every process."""
        try:
            again = Reading(self._limits.file, home=home)
            texts = json.dumps({name: again(name).decode() for name in files})
            if any(again.versions[name] != seen for name, seen in files.items()):
                return  # there is a newer version already
            if len(texts) > self._room:
                self._forget(path)  # an older one is not the last
            elif self._store.get(_key(path)) != texts:
                self._store.put(_key(path), texts)
        except (OSError, TempFail, UnicodeDecodeError) as error:
            log.warning("the good version of %s cannot be kept: %s", path, error)

    def _last_good(
        self,
        path: str,
        error: SourceError,
        tell: Callable[[str], object],
        kept: bool,
        about: Mapping[str, str],
    ) -> ir.Program | None:
        program = self._load(path, about) if kept else None
        said = "its last good version stays in force" if program else "mail goes to the inbox"
        more = len(error.problems) - 1
        tell(f"{error.problems[0]}{f' (and {more} more)' if more else ''}; {said}")
        return program

    def _load(self, path: str, about: Mapping[str, str]) -> ir.Program | None:
        """The last good version; none, too, when users may not do any more what it does."""
        try:
            kept = self._store.get(_key(path))
            texts: dict[str, str] = json.loads(kept) if kept is not None else {}
            read = {name: text.encode() for name, text in texts.items()}
        except OSError as error:  # for now: another try may find it
            raise from_oserror(error) from error
        except (ValueError, AttributeError) as error:
            log.warning("the last good version of %s cannot be had: %s", path, error)
            return None

        def reader(name: str) -> bytes:
            return read.get(name, b"")  # what was not kept is a list

        with suppress(KeyError, SourceError):
            return self._compiled(read[path], path, self.powers, reader, self._limits, **about)
        return None


def _compiled(*what: Any) -> ir.Program:
    return compile_rules(*what)


def _key(path: str) -> str:
    return f"rules {path}"


def _lists(program: ir.Program) -> set[str]:
    assigned = (s.value for s in program.body if isinstance(s, ir.Assign))
    return {items.file for items in assigned if isinstance(items, ir.Items)}
