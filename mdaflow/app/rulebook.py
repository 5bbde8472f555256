"""The rules that are in force: the site's two stages, and the file of each user.

A user's file is compiled once a version of it and of what it imports, and kept. A file that
does not compile changes nothing: the last good version stays in force, for every process and
over restarts; without one the user has no rules. What cannot be read for now is a temporary
failure: never "no rules".
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Collection
from threading import Lock
from typing import NamedTuple

from mdaflow.engine.run import Stage
from mdaflow.errors import ConfigError, from_oserror
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.source import SourceError
from mdaflow.store import Store

from .rulefiles import (
    Reading,
    Unsafe,
    Version,
    read_of_site,
    read_of_user,
    version,
    version_of,
)

USER_ACTIONS = (
    "deliver", "keep", "discard", "forward", "quarantine", "reply", "notify", "log", "remember",
)  # fmt: skip
"""What the rules of users may do unless the configuration says otherwise."""
MAX_KEPT = 10_000
"""Compiled files of users that are kept in memory."""

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
            body += compile_file(path, limits=limits).body
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
    """The program of a file. Raises SourceError, or OSError when it cannot be read."""
    reading = Reading(read_of_site, path, limits.file)
    return compile_rules(reading(path), path, powers, reading, limits)


def powers_of_users(granted: Collection[str], denied: Collection[str]) -> tuple[str, ...]:
    """What the rules of users may do here."""
    return tuple(verb for verb in (*USER_ACTIONS, *granted) if verb not in denied)


class _Kept(NamedTuple):
    """The rules of a file as they were compiled, and the versions of all files that they are
    made of."""

    versions: dict[str, Version | None]
    stage: Stage | None


class UserRules:
    """The compiled rules of users, by path."""

    def __init__(
        self,
        store: Store,
        powers: Collection[str] = USER_ACTIONS,
        limits: Limits = DEFAULTS,
    ) -> None:
        self._store = store
        self._limits = limits
        self.powers = powers
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()

    def stage(self, path: str, tell: Callable[[str], object] = log.warning) -> Stage | None:
        """The rules in a file of a user; None when there are none to run.

        What is wrong with a new version of the file is told once. Raises TempFail when the
        file is there and cannot be read now.
        """
        try:
            seen = version(os.lstat(path))
            with self._lock:
                kept = self._kept.get(path)
                if kept is not None and _is_current(kept, path, seen):
                    self._kept.move_to_end(path)
                    return kept.stage
            kept = self._read(path, seen, tell)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_oserror(error) from error
        with self._lock:
            self._kept[path] = kept
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return kept.stage

    def _read(self, path: str, seen: Version, tell: Callable[[str], object]) -> _Kept:
        reading = Reading(read_of_user, path, self._limits.file)
        try:
            text = reading(path)
        except Unsafe as error:
            tell(f"{path}: {error.strerror}, so its rules are ignored")
            return _Kept({path: seen}, None)
        key = f"rules {path}"
        try:
            program = compile_rules(text, path, self.powers, reading, self._limits)
        except SourceError as error:
            return _Kept(reading.versions, self._last_good(path, key, error, tell))
        self._keep(path, key, program)
        lists = _lists(program)  # these are read again by themselves
        files = {path: v for path, v in reading.versions.items() if path not in lists}
        return _Kept(files, Stage(program))

    def _keep(self, path: str, key: str, program: ir.Program) -> None:
        from mdaflow.lang.dump import dump

        try:
            self._store.put(key, dump(program._replace(cases=())))
        except OSError as error:
            log.warning("the good version of %s cannot be kept: %s", path, error)

    def _last_good(
        self, path: str, key: str, error: SourceError, tell: Callable[[str], object]
    ) -> Stage | None:
        program = self._load(path, key)
        said = "its last good version stays in force" if program else "mail goes to the inbox"
        more = len(error.problems) - 1
        tell(f"{error.problems[0]}{f' (and {more} more)' if more else ''}; {said}")
        return Stage(program) if program is not None else None

    def _load(self, path: str, key: str) -> ir.Program | None:
        from mdaflow.lang.check import check
        from mdaflow.lang.dump import load

        try:
            kept = self._store.get(key)
            program = load(kept) if kept is not None else None
        except (OSError, ValueError) as error:
            log.warning("the last good version of %s cannot be had: %s", path, error)
            return None
        if program is not None and check(program, self.powers):
            return None  # it does what users may not do any more
        return program


def _is_current(kept: _Kept, path: str, seen: Version) -> bool:
    if kept.versions.get(path) != seen:
        return False
    return all(version_of(other) == v for other, v in kept.versions.items() if other != path)


def _lists(program: ir.Program) -> set[str]:
    assigned = (s.value for s in program.body if isinstance(s, ir.Assign))
    return {items.file for items in assigned if isinstance(items, ir.Items)}
