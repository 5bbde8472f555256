"""Who has a mailbox here: users as the folders of a tree, `ROOT/DOMAIN/USER`.

An address comes from outside: only what is a plain name becomes a part of a path (T2). The
local part is looked up as it is written, then in lower case, then without its detail. Users who
have accounts on this machine are in accounts.py.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mdaflow.errors import INTERNAL, TempFail, from_oserror
from mdaflow.mail.address import split_local

_LOCAL = re.compile(r"(?!\.)[\w.+=&'!#$%*^~-]{1,128}")
_DOMAIN = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*")


class Account(NamedTuple):
    """An entry of passwd(5): an identity that a process can have."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class User:
    """A recipient that was found."""

    address: str
    """The address that was found, without detail."""
    home: str
    """The user's folder."""
    mailbox: str
    """`maildir:PATH` or `mbox:PATH`, below the home."""
    quota: int = 0
    """Bytes of mail that a Maildir may hold; 0 for any."""
    quota_messages: int = 0
    """Messages that it may hold; 0 for any."""
    account: Account | None = None
    """As whom everything of this user is read, run and written; None: as the server."""
    source: int = 0
    """Which source of the configuration knows the account."""


class Users(Protocol):
    """A source of users."""

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here. Raises TempFail when
        that cannot be told."""

    def has_domain(self, domain: str) -> bool:
        """Is this, in lower case, one of the domains whose users it knows by name? A source for any
        domain has none. Raises TempFail."""

    def all(self) -> Iterator[User]:
        """All users that can be listed, in no order. Raises TempFail."""


@dataclass(frozen=True, slots=True)
class FolderUsers:
    """The users of one tree."""

    root: str
    mailbox: str
    delimiters: str = "+"
    quota: int = 0
    quota_messages: int = 0

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here.

        Raises TempFail when that cannot be told, e.g. because the tree is not mounted.
        """
        local, _, domain = address.rpartition("@")
        domain = domain.lower()
        if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
            return None
        for name in dict.fromkeys(spellings(local, self.delimiters)):
            home = os.path.join(self.root, domain, name)
            if _is_folder(home):
                return self._user(name, domain, home)
        if not _has_folders(self.root):
            raise TempFail(
                INTERNAL, f"{self.root}: the users' folders are not there (not mounted?)"
            )
        return None

    def has_domain(self, domain: str) -> bool:
        """Has the domain a folder?"""
        return bool(_DOMAIN.fullmatch(domain)) and _is_folder(os.path.join(self.root, domain))

    def __str__(self) -> str:
        return f"folders {self.root}"

    def all(self) -> Iterator[User]:
        """All users that `find` can find, in no order. Raises TempFail."""
        for domain in _folders(self.root):
            if _DOMAIN.fullmatch(domain) and domain == domain.lower():
                root = os.path.join(self.root, domain)
                for name in filter(_LOCAL.fullmatch, _folders(root)):
                    yield self._user(name, domain, os.path.join(root, name))

    def _user(self, name: str, domain: str, home: str) -> User:
        address = f"{name}@{domain}"
        return User(address, home, self.mailbox, self.quota, self.quota_messages)


def spellings(local: str, delimiters: str) -> tuple[str, ...]:
    """What a local part may be called: as it is written, in lower case, then without detail."""
    user, _ = split_local(local, delimiters)
    return local, local.lower(), user, user.lower()


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise from_oserror(error) from error


def _folders(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name
    except OSError as error:
        raise from_oserror(error) from error


def _has_folders(root: str) -> bool:
    """Is anything in the tree? An empty one may be the mount point of a disk that is away."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise from_oserror(error) from error
