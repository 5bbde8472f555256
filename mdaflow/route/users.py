"""Who has a mailbox here: users as the folders of a tree, `ROOT/DOMAIN/USER`.

An address comes from outside: only what is a plain name becomes a part of a path (T2). The
local part is looked up as it is written, then in lower case, then without its detail. The other
sources are accounts.py, passwd.py, sql.py and static.py.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mdaflow.errors import INTERNAL, TempFail, from_oserror
from mdaflow.mail.address import split_local

log = logging.getLogger("mdaflow")
_LOCAL = re.compile(r"(?!\.)[\w.+=&'!#$%*^~-]{1,128}")
_DOMAIN = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*")


class Account(NamedTuple):
    """An entry of passwd(5): an identity that a process can have."""

    name: str
    uid: int
    gid: int
    home: str
    listed: bool = True
    """The system knows the name, and may have further groups for it."""


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
    rules: str = ""
    """The user's own rules, a path below the home; empty for that of the site."""
    own: tuple[str, ...] = ()
    """Further addresses that are the user's."""
    timezone: str = ""
    """The zone of the user's clock; empty for that of the site."""
    made_below: str = ""
    """The folder below which a home that is missing is made; empty: it is not made."""
    spam_required: float = 0.0
    """The score from which on mail is spam for the user; 0 for that of the site."""


class Users(Protocol):
    """A source of users."""

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here. Raises TempFail when
        that cannot be told."""

    def by_login(self, login: str) -> User | None:
        """The user whose account has a name; None when there is none here. Raises TempFail."""

    def has_domain(self, domain: str) -> bool:
        """Is this, in lower case, one of the domains whose users it knows by name? A source for any
        domain has none. Raises TempFail."""

    def all(self) -> Iterator[User]:
        """All users that can be listed, in no order. Raises TempFail."""


Make = Callable[[str, Mapping[str, object]], User]
"""Makes a user of an address and what a source says of it, by name; None and empty text say
nothing. Raises TempFail for what cannot be right."""


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
        parts = plain(address)
        if parts is None:
            return None
        local, domain = parts
        for name in dict.fromkeys(spellings(local, self.delimiters)):
            home = os.path.join(self.root, domain, name)
            if _is_folder(home):
                return self._user(name, domain, home)
        self._check()
        return None

    def by_login(self, login: str) -> User | None:
        """None: nobody here has an account."""
        return None

    def has_domain(self, domain: str) -> bool:
        """Has the domain a folder? Raises TempFail as `find` does."""
        if _DOMAIN.fullmatch(domain) and _is_folder(os.path.join(self.root, domain)):
            return True
        self._check()
        return False

    def _check(self) -> None:
        if not has_entries(self.root):
            raise TempFail(
                INTERNAL, f"{self.root}: the users' folders are not there (not mounted?)"
            )

    def all(self) -> Iterator[User]:
        """All users that `find` can find, in no order. Raises TempFail."""
        for domain in folders(self.root):
            if _DOMAIN.fullmatch(domain) and domain == domain.lower():
                root = os.path.join(self.root, domain)
                for name in filter(_LOCAL.fullmatch, folders(root)):
                    yield self._user(name, domain, os.path.join(root, name))

    def _user(self, name: str, domain: str, home: str) -> User:
        address = f"{name}@{domain}"
        return User(address, home, self.mailbox, self.quota, self.quota_messages)

    def __str__(self) -> str:
        return f"folders {self.root}"


def plain(address: str) -> tuple[str, str] | None:
    """Local part and domain, in lower case, of an address that can be a user's; None for one that
    is no plain name."""
    local, _, domain = address.rpartition("@")
    domain = domain.lower()
    good = _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain)
    return (local, domain) if good else None


def spellings(local: str, delimiters: str) -> tuple[str, ...]:
    """What a local part may be called: as it is written, in lower case, then without detail."""
    user, _ = split_local(local, delimiters)
    return local, local.lower(), user, user.lower()


def made(make: Make, address: str, values: Mapping[str, object]) -> Iterator[User]:
    """A user of a list; none, but a line in the log, when what is said of it cannot be right."""
    try:
        yield make(address, values)
    except TempFail as error:
        log.warning("%s", error)


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise from_oserror(error) from error


def folders(path: str) -> Iterator[str]:
    """The names of the folders in one. Raises TempFail."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name
    except OSError as error:
        raise from_oserror(error) from error


def has_entries(root: str) -> bool:
    """Is anything in the tree? An empty one may be the mount point of a disk that is away."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise from_oserror(error) from error
