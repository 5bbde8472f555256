"""The rules that are in force: the site's two stages, and the file of each user.

A user's file is compiled once a version of the file and kept. It is read only when nobody but
its owner could have written it (P27). A file that does not compile changes nothing: the last
good version stays in force, for every process and over restarts; without one the user has no
rules. What cannot be read for now is a temporary failure: never "no rules".
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import OrderedDict
from collections.abc import Collection
from threading import Lock

from mdaflow.engine.run import Stage
from mdaflow.errors import ConfigError, from_oserror
from mdaflow.lang import MAX_FILE, compile_rules, ir
from mdaflow.lang.source import SourceError
from mdaflow.store import Store

USER_ACTIONS = ("deliver", "keep", "discard")
"""What the rules of users may do unless the configuration grants them more."""
MAX_KEPT = 10_000
"""Compiled files of users that are kept in memory."""

log = logging.getLogger("mdaflow")
_Version = tuple[int, ...]


def site_program(folder: str) -> ir.Program | None:
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
            body += compile_file(path).body
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


def compile_file(path: str, actions: Collection[str] = ir.ACTIONS) -> ir.Program:
    """The program of a file. Raises SourceError, or OSError when it cannot be read."""
    with open(path, "rb") as file:
        return compile_rules(file.read(MAX_FILE + 1), path, actions)


def _version(about: os.stat_result) -> _Version:
    """What changes with the file; the time of its last change covers owner, mode and links."""
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size


class UserRules:
    """The compiled rules of users, by path."""

    def __init__(self, store: Store, granted: Collection[str] = ()) -> None:
        self._store = store
        self._actions = (*USER_ACTIONS, *granted)
        self._kept: OrderedDict[str, tuple[_Version, Stage | None]] = OrderedDict()
        self._lock = Lock()

    def stage(self, path: str) -> Stage | None:
        """The rules in a file of a user; None when there are none to run.

        Raises TempFail when the file is there and cannot be read now.
        """
        try:
            seen = _version(os.lstat(path))
            with self._lock:
                known, stage = self._kept.get(path, (None, None))
                if known == seen:
                    self._kept.move_to_end(path)
                    return stage
            version, text = self._read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_oserror(error) from error
        stage = None if text is None else self._compile(path, text)
        with self._lock:
            self._kept[path] = version, stage
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return stage

    def _read(self, path: str) -> tuple[_Version, bytes | None]:
        """The version of a file, and its text, or None when it is not safe. Raises OSError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            log.warning("%s: not a regular file, so its rules are ignored", path)
            return _version(os.lstat(path)), None
        try:
            about = os.fstat(descriptor)
            if reason := self._unsafe(path, about):
                log.warning("%s: %s, so its rules are ignored", path, reason)
                return _version(about), None
            with open(descriptor, "rb", closefd=False) as file:
                return _version(about), file.read(MAX_FILE + 1)
        finally:
            os.close(descriptor)

    def _unsafe(self, path: str, about: os.stat_result) -> str:
        if not stat.S_ISREG(about.st_mode):
            return "not a regular file"
        if about.st_nlink != 1:
            return "has more than one link"
        if about.st_mode & 0o022:
            return "writable by others than its owner (chmod go-w)"
        folder = os.lstat(os.path.dirname(path))
        if stat.S_ISLNK(folder.st_mode):
            return "in a folder that is a symbolic link"
        if about.st_uid not in (0, os.geteuid(), folder.st_uid):
            return "owned by somebody else"
        if folder.st_mode & 0o002:
            return "in a folder that everybody can write to"
        return ""

    def _compile(self, path: str, text: bytes) -> Stage | None:
        key = f"rules {path}"
        try:
            program = compile_rules(text, path, self._actions)
        except SourceError as error:
            more = len(error.problems) - 1
            log.warning("%s%s", error.problems[0], f" (and {more} more)" if more else "")
            return self._last_good(path, key)
        from mdaflow.lang.dump import dump

        stage = Stage(program)
        try:
            self._store.put(key, dump(program))
        except OSError as error:
            log.warning("the good version of %s cannot be kept: %s", path, error)
        return stage

    def _last_good(self, path: str, key: str) -> Stage | None:
        from mdaflow.lang.check import check
        from mdaflow.lang.dump import load

        try:
            kept = self._store.get(key)
            program = load(kept) if kept is not None else None
            if program is not None and check(program, self._actions):
                program = None  # it does what users may not do any more
        except (OSError, ValueError) as error:
            log.warning("the last good version of %s cannot be had: %s", path, error)
            program = None
        said = "its last good version stays in force" if program else "mail goes to the inbox"
        log.warning("%s does not compile: %s", path, said)
        return Stage(program) if program is not None else None
