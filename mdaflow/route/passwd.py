"""The users of a passwd-file, as Dovecot and Unix have it:
`user:password:uid:gid:gecos:home:shell:extra fields`.

A line may end behind any field, and an empty field says nothing. A user is `bob@example.org`, or
`bob` in the domains that the configuration names (in any when it names none). Of Dovecot's extra
fields, `key=value` with spaces between, those of `_EXTRA` count and the others do not. A line is
kept as it stands, without its password, and read when its user is found.

Known limits: uid and gid are numbers. Of several quota rules only the one for all folders (`*`)
counts. A user stands once, where Dovecot takes the first of several. A line that ends
behind the password is a user here, and none of Dovecot's userdb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mdaflow.errors import ConfigError

from .tables import MAX_PROBLEMS, Table
from .users import Make, User, made, plain, spellings

_NAME = rb"(?!\.)[\w.+=&'!#$%*^~\x80-\xff-]{1,512}(?:@[\w.\x80-\xff-]{1,255})?"
_LINE = re.compile(
    rb"(%b)(?::[^:]*(?::([0-9]*(?::[0-9]*(?::[^:]*(?::(?:/[^:]*)?(?::.*)?)?)?)?))?)?" % _NAME
)
"""The name, and what stands behind the password."""
_UNITS = {"": 10, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_RULE = re.compile(r"(storage|bytes|messages)=([0-9]{1,15})([BKMGT]?)", re.IGNORECASE)


class Lines(NamedTuple):
    """The lines of a file."""

    by_name: dict[bytes, bytes]
    """Each user, and what stands behind the password."""
    domains: frozenset[bytes]


def lines(content: bytes, path: str) -> Lines:
    """The lines of a file. Raises ConfigError with all that are wrong."""
    found: dict[bytes, bytes] = {}
    problems: list[str] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line or line[0] in b"#:":  # as Dovecot has it
            continue
        match = _LINE.fullmatch(line)
        name = match[1] if match else b""
        if b"@" in name:
            local, _, domain = name.partition(b"@")
            name = b"%b@%b" % (local, domain.lower())
        if match is None or name in found:
            problems.append(f"{path}:{number}: {_wrong(line) if match is None else _TWICE}")
        else:
            found[name] = match[2] or b""
    if problems:
        raise ConfigError(tuple(problems[:MAX_PROBLEMS]))
    return Lines(found, frozenset(name.partition(b"@")[2] for name in found) - {b""})


_TWICE = "this user stands above already"


def _wrong(line: bytes) -> str:
    """What is wrong with a line. Nothing of it is shown: it may be a password."""
    name, *rest = line.split(b":")
    if not re.fullmatch(_NAME, name):
        return "the user is no plain name"
    if any(field.strip(b"0123456789") for field in rest[1:3]):
        return "uid and gid must be numbers"
    return "the home must be an absolute path"


@dataclass(frozen=True, slots=True)
class PasswdUsers:
    """The users of one passwd-file."""

    table: Table[Lines]
    make: Make
    domains: tuple[str, ...] = ()
    """Those of users without a domain, in lower case; empty for any."""
    delimiters: str = "+"

    def find(self, address: str) -> User | None:
        """The user that an address belongs to; None when there is none here. Raises TempFail when
        the file cannot be read, or says of the user what cannot be right."""
        by_name = self.table.get().by_name
        parts = plain(address)
        if parts is None:
            return None
        local, domain = parts
        for name in dict.fromkeys(spellings(local, self.delimiters)):
            for key in (f"{name}@{domain}", *([name] if self._knows(domain) else [])):
                line = by_name.get(key.encode())
                if line is not None:
                    return self.make(f"{name}@{domain}", _values(line))
        return None

    def by_login(self, login: str) -> User | None:
        """The user whose account is called so: by the address. Raises TempFail."""
        return self.find(login)

    def has_domain(self, domain: str) -> bool:
        """Has a user this domain, or is it one that was named? Raises TempFail."""
        return domain in self.domains or domain.encode() in self.table.get().domains

    def all(self) -> Iterator[User]:
        """All users; those without a domain in the first that was named. Raises TempFail."""
        first = (*self.domains, "localhost")[0]
        for name, line in self.table.get().by_name.items():
            text = name.decode(errors="replace")
            address = text if "@" in text else f"{text}@{first}"
            yield from made(self.make, address, _values(line))

    def _knows(self, domain: str) -> bool:
        return not self.domains or domain in self.domains

    def __str__(self) -> str:
        return f"passwd-file {self.table.path}"


def _values(line: bytes) -> dict[str, object]:
    """What a line says of its user, by the names of `Make`."""
    fields = [*line.decode(errors="replace").split(":", 5), *[""] * 5]
    uid, gid, _, home, _, extra = fields[:6]
    values: dict[str, object] = {"uid": uid, "gid": gid, "home": home}
    if extra.startswith(":"):  # Dovecot's old form: the place of the mail, and nothing else
        return values | {"mailbox": extra[1:]}
    for field in extra.split():
        key, _, value = field.partition("=")
        if key in _EXTRA:
            values |= _EXTRA[key](value)
    return values


def _as(name: str) -> Callable[[str], dict[str, object]]:
    return lambda value: {name: value}


def _quota_rule(rule: str) -> dict[str, object]:
    """The limits of `*:storage=1G:messages=1000`: kilobytes where no unit is said."""
    folder, _, rest = rule.partition(":")
    if folder != "*":
        return {}
    found: dict[str, object] = {}
    for limit in rest.split(":"):
        match = _RULE.fullmatch(limit)
        if match is None:
            return {"quota": limit}  # which is told to be none
        kind, number, unit = match[1].lower(), int(match[2]), match[3].upper()
        if kind == "messages":
            found["quota_messages"] = number
        else:
            shift = 0 if kind == "bytes" and not unit else _UNITS[unit]
            found["quota"] = number << shift
    return found


_EXTRA: dict[str, Callable[[str], dict[str, object]]] = {
    "userdb_mail": _as("mailbox"),
    "userdb_home": _as("home"),
    "userdb_uid": _as("uid"),
    "userdb_gid": _as("gid"),
    "userdb_quota_rule": _quota_rule,
    "userdb_mdaflow_rules": _as("rules"),
    "userdb_mdaflow_own": _as("own"),
    "userdb_mdaflow_timezone": _as("timezone"),
    "userdb_mdaflow_spam_required": _as("spam_required"),
}
"""Extra fields: Dovecot's, and four of our own, which Dovecot takes no notice of."""
