"""The accounts of this machine as users: who they are says the name service (nsswitch.conf(5)).

An account has mail when its uid is in a range: root and the accounts of services have none. A
local part is looked up as the other sources do it: as it is written, in lower case, then without
its detail.

The answer is getpwnam_r(3)'s own: Python's `pwd` says "not found" also when a directory server
could not be asked, and then mail would be refused that should wait. Only the code 0 is "not found"
here: ENOENT is what nss-pam-ldapd says when its server is away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mdaflow.errors import INTERNAL, TempFail

from .users import Account, User, spellings

_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ROOM = 1 << 12, 1 << 20
"""Bytes for the texts of an entry: at first, and at most."""
_witness = ""
"""An account that was found last: where even that is not there any more, nobody can tell, as when
`passwd: files systemd` cannot open /etc/passwd and the last source says "not found"."""
_libc = ctypes.CDLL(None)  # other threads run meanwhile: the name service may ask a server


class _Entry(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


def account(name: str) -> Account | None:
    """The account of a login name; None when there is none. Raises TempFail when that cannot be
    told."""
    if not _LOGIN.fullmatch(name):
        return None
    entry, found = _Entry(), ctypes.POINTER(_Entry)()
    size, most = _ROOM
    code = errno.ERANGE
    while code == errno.ERANGE and size <= most:
        texts = ctypes.create_string_buffer(size)
        code = _getpwnam_r(name.encode(), entry, texts, size, found)
        size *= 4
    if code:
        raise TempFail(INTERNAL, f"the account {name} cannot be looked up: {os.strerror(code)}")
    global _witness
    if not found:
        if _witness not in ("", name) and account(_witness) is None:
            _witness = ""
            raise TempFail(INTERNAL, f"{name} is not found, nor is anybody else")
        return None
    _witness = name
    return Account(os.fsdecode(entry.name), entry.uid, entry.gid, os.fsdecode(entry.home or b""))


def _getpwnam_r(name: bytes, entry: _Entry, texts: Any, size: int, found: Any) -> int:
    length = ctypes.c_size_t(size)
    code: int = _libc.getpwnam_r(name, ctypes.byref(entry), texts, length, ctypes.byref(found))
    return code


@dataclass(frozen=True, slots=True)
class SystemUsers:
    """The accounts of this machine, by their login names in some domains, or in any."""

    number: int
    """Which source of the configuration this is."""
    mailbox: str
    """As of a `User`, with `%u` for the login name."""
    uids: range
    """Whose uid is in it has mail here."""
    domains: tuple[str, ...] = ()
    delimiters: str = "+"
    quota: int = 0
    quota_messages: int = 0

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here.

        Raises TempFail when that cannot be told, e.g. because a directory server is away.
        """
        local, _, domain = address.rpartition("@")
        domain = domain.lower()
        if not self.knows(domain):
            return None
        trouble: TempFail | None = None
        for name in dict.fromkeys(spellings(local, self.delimiters)):
            try:
                found = account(name)
            except TempFail as error:  # another spelling may be known all the same
                trouble = error
                continue
            if found is not None and found.uid in self.uids:
                return self.user(found, domain)
        if trouble is not None:
            raise trouble
        return None

    def by_login(self, login: str) -> User | None:
        """The user who has a login, if that has mail here. Raises TempFail."""
        found = account(login)
        return self.user(found) if found is not None and found.uid in self.uids else None

    @property
    def in_spool(self) -> bool:
        """Their inboxes are in the spool of the system."""
        return ":INBOX=/" in self.mailbox

    def knows(self, domain: str) -> bool:
        """Have accounts mail in this domain, in lower case?"""
        return not self.domains or domain in self.domains

    def has_domain(self, domain: str) -> bool:
        """Is it one of those that were named?"""
        return domain in self.domains

    def __str__(self) -> str:
        return "accounts"

    def all(self) -> Iterator[User]:
        """All accounts that can be listed, in no order."""
        for entry in pwd.getpwall():
            if entry.pw_uid in self.uids and _LOGIN.fullmatch(entry.pw_name):
                yield self.user(Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir))

    def user(self, account: Account, domain: str = "") -> User:
        """The user that an account is, by default in the first domain."""
        domain = domain or (*self.domains, "localhost")[0]
        mailbox = self.mailbox.replace("%u", account.name)
        address, quotas = f"{account.name}@{domain}", (self.quota, self.quota_messages)
        return User(address, account.home, mailbox, *quotas, account, self.number)
