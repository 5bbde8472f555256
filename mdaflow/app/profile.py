"""What a source says of a user, made into a `User`: by a passwd-file, a row of a database, or the
settings of the source alone.

Nothing of it is believed: each value has to be what the configuration would take in its place
(kinds.py). Whoever is to have a uid other than ours is written to as that, by a process of its own:
so uid and gid have to be among those that the source may give. A value that cannot be right puts
the mail off, as whoever has written it may mend it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mdaflow.deliver.mailbox import Quota, parse_mailbox
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.route.users import Account, User, plain

from .config import Passwd, Sql, Static
from .kinds import KINDS

_KINDS = {
    "address": "address", "home": "absolute", "mailbox": "mailbox", "quota": "quota",
    "quota_messages": "quota_messages", "uid": "uid", "gid": "uid", "rules": "below",
    "timezone": "zone", "spam_required": "score",
}  # fmt: skip
"""What may be said, and the row of KINDS that it has to fit; `own` is a list of addresses."""
_NUMBERS = ("quota", "quota_messages", "uid", "gid")
_INDEX = re.compile(r":INDEX=[^:]*")
"""Dovecot's indexes are no matter of ours."""
_WHOLE = re.compile(r"([0-9]{1,19})(?:\.0+)?")
MAX_OWN = 1000


@dataclass(frozen=True, slots=True)
class Profiles:
    """Makes the users of one source."""

    number: int
    """Which source of the configuration it is."""
    source: Passwd | Sql | Static
    ours: int
    """The uid of the server."""

    def __call__(self, asked: str, values: Mapping[str, object]) -> User:
        """The user of an address. Raises TempFail for what cannot be right."""
        try:
            return self._user(asked, values)
        except ValueError as error:
            raise TempFail(INTERNAL, f"users[{self.number}]: {asked}: {error}") from None

    def _user(self, asked: str, values: Mapping[str, object]) -> User:
        source = self.source
        told = ((name, value) for name, value in values.items() if value not in (None, ""))
        said = {name: _plain(name, value) for name, value in told}
        own = str(said.pop("own", "")).replace(",", " ").split()[:MAX_OWN]
        mailbox = said.pop("mailbox", source.mailbox)
        known = {name: _accepted(name, value) for name, value in said.items()}
        address = known.get("address", asked)
        if plain(address) is None:
            raise ValueError(f"address: {address!r} can be no user's")
        home, below = known.get("home", ""), "/"
        if not home:
            home, below = expand(source.home, address), fixed_part(source.home)
        if not home:
            raise ValueError("home: there is none")
        account = self._account(asked, home, known)
        limits = [known.get(name, getattr(source, name)) for name in ("quota", "quota_messages")]
        quota, messages = limits
        return User(
            address,
            home,
            _mailbox(mailbox, address, home, quota, messages),
            quota,
            messages,
            account,
            self.number,
            known.get("rules", source.rules),
            tuple(own),
            known.get("timezone", source.timezone),
            below if account is None else "",
            known.get("spam_required", source.spam_required),
        )

    def _account(self, asked: str, home: str, known: Mapping[str, Any]) -> Account | None:
        """As whom mail of a user is written; None: as the server."""
        source = self.source
        uid, gid = known.get("uid", source.uid), known.get("gid", source.gid)
        if uid in (0, self.ours):  # none is said: `known` has no 0
            return None
        low, high = max(1, source.min_uid), source.max_uid
        if not low <= uid <= high:
            raise ValueError(f"uid: {uid} is not from {low} to {high}")
        if not gid or (gid < low and gid != source.gid):
            raise ValueError(f"gid: {gid or 'none'}: must be {low} or more, or that of the source")
        return Account(asked, uid, gid, home, listed=False)


def expand(template: str, address: str, home: str = "") -> str:
    """A template with the parts of an address in it; and of a `home`, as `%h`."""
    if "%" not in template:
        return template
    local, _, domain = address.rpartition("@")
    parts = {"%u": address, "%n": local, "%d": domain, "%h": home}
    return re.sub("%[undh]", lambda match: parts[match[0]], template)


@lru_cache(64)
def fixed_part(template: str) -> str:
    """The folder that is the same for all users of a template; empty for no template."""
    return os.path.dirname(template.partition("%")[0])


def _plain(name: str, value: object) -> object:
    """A value as the configuration would have it: numbers are numbers, also as text."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{name}: has a character that is none")
    if name not in _NUMBERS or not isinstance(value, str | Decimal | float):
        return value
    whole = _WHOLE.fullmatch(str(value))
    if whole is None and not isinstance(value, str):
        raise ValueError(f"{name}: must be a whole number, not {value}")
    return int(whole[1]) if whole else value


def _accepted(name: str, value: object) -> Any:
    kind = KINDS[_KINDS[name]]
    try:
        return kind.accept(value, "/")
    except (ValueError, TypeError, ArithmeticError):
        shown = str(value)[:60]
        raise ValueError(f"{name}: must be {kind.wanted}, not {shown!r}") from None


def _mailbox(said: object, address: str, home: str, quota: int, messages: int) -> str:
    """A mailbox below a home; an absolute path in that is taken for one below it."""
    kind, path, *options = [*expand(_INDEX.sub("", str(said)), address, home).split(":"), ""]
    below = [_below(path, home), *(_below(option, home) for option in options)]
    return _relative(":".join([kind, *below]).removesuffix(":"), bool(quota or messages))


@lru_cache(256)
def _relative(mailbox: str, limited: bool) -> str:
    """A mailbox below any home, if it is one: most users of a source have the same."""
    accepted: str = _accepted("mailbox", mailbox)
    parse_mailbox(accepted, "/", Quota(1, 1) if limited else None)
    return accepted


def _below(path: str, home: str) -> str:
    """A path in a home, or of an INBOX there, below that home."""
    option, _, inbox = path.rpartition("=")
    if option == "INBOX":
        return f"INBOX={_below(inbox, home)}"
    whole = next((whole for whole in ("~", home) if f"{path}/".startswith(f"{whole}/")), None)
    return path if whole is None else path[len(whole) + 1 :] or "."
