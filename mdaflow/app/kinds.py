"""What the types of config.py cannot say: the table KINDS, a row for each word of `Is(word)`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .config import Clamd, Folders, Package, Passwd, Rspamd, Spamd, Sql, Static, System


class Kind(NamedTuple):
    """What a value may be: `accept(value, folder)` returns it in its final form or raises
    ValueError, and then the file is told that the value must be `wanted`."""

    wanted: str
    accept: Callable[[Any, str], object]
    schema: Any
    """The core schema of what the file may hold."""


def checked(word: str, inner: Any) -> Any:
    """The core schema `inner` with what KINDS says of the word; "some" is a list not empty."""
    from pydantic_core import core_schema

    if word == "some":
        # After the items: pydantic's own min_length counts only those that are right.
        return core_schema.no_info_after_validator_function(_some, inner)
    if word == "users":
        some = core_schema.no_info_after_validator_function(_some, inner)
        word_alone = core_schema.no_info_after_validator_function(
            lambda _: (System(),), core_schema.literal_schema(["system"])
        )
        choices: dict[str, Any] = {f"{TAG}list": some, f"{TAG}word": word_alone}
        return core_schema.tagged_union_schema(
            choices, lambda value: f"{TAG}word" if value == "system" else f"{TAG}list"
        )
    if word in ONE_OF:
        classes = ONE_OF[word]
        return core_schema.tagged_union_schema(
            dict(zip(classes, inner["choices"], strict=True)), lambda value: _tag(classes, value)
        )
    kind = KINDS[word]

    def check(value: Any, info: Any) -> object:
        try:
            value = kind.accept(value, info.context)
        except (ValueError, TypeError):
            raise ValueError(kind.wanted) from None
        if word in _MAILDIR_ONLY and value and info.data.get("mailbox", "").startswith("mbox:"):
            raise ValueError(NO_QUOTA)
        return value

    return core_schema.with_info_before_validator_function(
        check, inner, json_schema_input_schema=kind.schema
    )


TAG = "="
"""What is not written in the file: which of several forms pydantic took a value for."""
ONE_OF: dict[str, dict[str, type]] = {
    "source": {
        f"{TAG}folders": Folders,
        f"{TAG}system": System,
        f"{TAG}passwd": Passwd,
        f"{TAG}sql": Sql,
        f"{TAG}static": Static,
    },
    "scanner": {
        f"{TAG}clamd": Clamd,
        f"{TAG}spamd": Spamd,
        f"{TAG}rspamd": Rspamd,
        f"{TAG}package": Package,
    },
}
"""What a value may be one of, by the key that each has to have; the first if it has none."""
TAGGED = {tag: kind for classes in ONE_OF.values() for tag, kind in classes.items()}


def _tag(classes: dict[str, type], value: object) -> str:
    found = (tag for tag in classes if isinstance(value, dict) and tag.removeprefix(TAG) in value)
    return next(found, next(iter(classes)))


NO_QUOTA = "left out where mail is in mbox files, which have no quota"
_MAILDIR_ONLY = ("quota", "quota_messages")


def _whole(low: int, high: int) -> Kind:
    return Kind(
        f"a whole number from {low} to {high}",
        lambda value, _: _within(value, low, high),
        {"type": "int", "ge": low, "le": high},
    )


def _measure(
    wanted: str,
    units: dict[str, int],
    low: float,
    high: float,
    sort: type,
    *,
    empty: bool = False,
) -> Kind:
    """A number, or text of a number and a unit; or `empty` text for 0."""
    form = rf"([0-9]{{1,15}}(?:\.[0-9]{{1,6}})?) ?({'|'.join(units)})"

    def accept(value: Any, _: str) -> object:
        if empty and value == "":
            return sort(0)
        if type(value) is str:
            number, unit = _match(form, value).groups()
            value = sort(float(number) * units[unit])
        return _within(value, low, high)

    number = {"type": sort.__name__, "ge": low, "le": high}
    text = {"type": "str", "pattern": f"^(?:{form}){'?' * empty}$"}
    return Kind(wanted, accept, {"type": "union", "choices": [number, text]})


def _text(wanted: str, form: str, make: Callable[[re.Match[str], str], str] | None = None) -> Kind:
    """Text of a form; `make` says what it becomes, and may raise ValueError."""

    def accept(value: Any, folder: str) -> str:
        # `mode: 600` is a number to YAML, and the text it looks like to us.
        match = _match(form, str(value) if type(value) is int else value)
        return make(match, folder) if make else match[0]

    return Kind(wanted, accept, {"type": "str", "pattern": f"^(?:{form})$"})


def _some(value: tuple[object, ...]) -> tuple[object, ...]:
    if not value:
        raise ValueError("a list of one or more")
    return value


def _within(value: Any, low: float, high: float) -> Any:
    if type(value) is bool or not low <= value <= high:
        raise ValueError
    return value


def _score(value: Any, _: str) -> float:
    if type(value) is bool or isinstance(value, bytes):
        raise ValueError
    return float(_within(round(float(value), 3), 0, 1000))


def _match(form: str, value: str) -> re.Match[str]:
    match = re.fullmatch(form, value)
    if match is None:
        raise ValueError
    return match


def _listen(match: re.Match[str], _: str) -> str:
    six, port = match.groups()
    if port is None:
        # sun_path has 108 bytes with its NUL (unix(7)).
        _within(len(os.fsencode(match[0])), 0, len("unix:") + 107)
    else:
        _within(int(port), 1, 65535)
    if six is not None:
        import ipaddress

        ipaddress.IPv6Address(six)
    return match[0]


def _hop(match: re.Match[str], _: str) -> str:
    six, port, path = match.groups()
    if path is not None:
        _within(len(os.fsencode(path)), 0, 107)
    elif port is not None:
        _within(int(port), 1, 65535)
    if six is not None:
        import ipaddress

        ipaddress.IPv6Address(six)
    return match[0]


def _absolute(match: re.Match[str], folder: str) -> str:
    return os.path.normpath(os.path.join(folder, match[0]))


def _absolute_or_none(match: re.Match[str], folder: str) -> str:
    return _absolute(match, folder) if match[0] else ""


def _network(match: re.Match[str], _: str) -> str:
    import ipaddress

    return str(ipaddress.ip_network(match[0], strict=False))


def _below(match: re.Match[str], _: str) -> str:
    for path in match.groups(""):
        if path.startswith(("/", "~")) or ".." in path.split("/"):
            raise ValueError
    return match[0]


def _below_or_none(match: re.Match[str], folder: str) -> str:
    return _below(match, folder) if match[0] else ""


def _table(match: re.Match[str], folder: str) -> str:
    kind, path = match.groups()
    return f"{kind or 'aliases'}:{os.path.normpath(os.path.join(folder, path))}"


def _recipient(match: re.Match[str], _: str) -> str:
    from mdaflow.mail.letter import is_address

    if match[0] and not is_address(match[0] if "@" in match[0] else f"{match[0]}@x"):
        raise ValueError
    return match[0]


def _below_or_in_spool(match: re.Match[str], folder: str) -> str:
    """As `_below`, but the last group, an absolute path, may be there instead."""
    *below, spool = match.groups("")
    if ".." in spool.split("/") or any(
        path.startswith(("/", "~")) or ".." in path.split("/") for path in below
    ):
        raise ValueError
    return match[0]


def _zones(value: Any, _: str) -> object:
    if not isinstance(value, dict):
        raise ValueError
    for zone, name in value.items():
        _within(len(zone), 3, 200)
        _match(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+", zone)
        _match(r"[A-Z][A-Z0-9_]{0,40}", name)
    return value


def _home(match: re.Match[str], _: str) -> str:
    path = os.path.normpath(match[0]) if match[0] else ""
    if ".." in match[0].split("/") or path in ("/", "//"):
        raise ValueError
    return path


def _zone(match: re.Match[str], _: str) -> str:
    if match[0]:
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(match[0])
        except (OSError, zoneinfo.ZoneInfoNotFoundError) as error:
            raise ValueError from error
    return match[0]


_HOP = (
    r"(?:(?:smtp|lmtp)://)?(?:\[([^\]]+)\]|[A-Za-z0-9_][A-Za-z0-9._-]*):([0-9]{1,5})"
    r"|lmtp:unix:(/.+)"
)
_HOP_WANTED = "HOST:PORT or [IPV6]:PORT, perhaps behind smtp:// or lmtp://, or lmtp:unix:/PATH"
_LOGIN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?"
_MORE = r"(?::LAYOUT=fs|:UTF-8|:SUBSCRIBE|:SEPARATOR=[/.^|~])*"
_SERVER = r"(?:[^\s/?#@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*)(?::[0-9]{1,5})?"
_ABOUT_STORE = r"(?:[?&](?:site=[A-Za-z0-9._-]{1,64}|db=[0-9]{1,5}|ca=/[^\s&#]+))*"
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {
    word: seconds
    for words, seconds in (
        (("", "s", "second", "seconds"), 1),
        (("m", "minute", "minutes"), 60),
        (("h", "hour", "hours"), 3600),
        (("d", "day", "days"), 86400),
        (("week", "weeks"), 604800),
    )
    for word in words
}

_NO_MORE = (1 << 32) - 2
KINDS: dict[str, Kind] = {
    "absolute": _text("an absolute path without '..'", r"/.+", _home),
    "address": _text("an address", r"[^@]+@[^@]+"),
    "below": _text("a path below the user's folder, without '..'", r"(.+)", _below),
    "below_or_none": _text(
        "a path below the user's folder, without '..', or nothing", r"(.*)", _below_or_none
    ),
    "count": _whole(1, 1_000_000),
    "delimiter": _text("some of the characters -+=_.!#%&*^~", r"[-+=_.!#%&*^~]{0,12}"),
    "file": _text(
        "the path of a file (~ is not expanded), or nothing", r"(?:[^~].*)?", _absolute_or_none
    ),
    "folder": _text(
        "the path of a folder (~ is not expanded), or nothing", r"(?:[^~].*)?", _absolute_or_none
    ),
    "home": _text(
        "an absolute path without '..', in which %u, %n and %d stand for an address and its parts, "
        "or nothing",
        r"(?:/(?:[^%]|%[und])+)?",
        _home,
    ),
    "folder_name": _text(
        "the name of a folder, or nothing", r'(?:[^\s/"{}\\][^"{}\\\x00-\x1f]{0,200})?'
    ),
    "hop": _text(_HOP_WANTED, _HOP, _hop),
    "hop_or_none": _text(f"{_HOP_WANTED}, or nothing", f"(?:{_HOP})?", _hop),
    "hostname": _text("a host name", r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252})?"),
    "id": _whole(0, _NO_MORE),
    "line": _text("one line of text, or nothing", r"[^\x00-\x1f\x7f-\x9f]{0,60}"),
    "listen": _text(
        "unix:/PATH (of at most 107 bytes), HOST:PORT or [IPV6]:PORT",
        r"unix:/.+|(?:\[([^\]]+)\]|[A-Za-z0-9_][A-Za-z0-9._-]*):([0-9]{1,5})",
        _listen,
    ),
    "log": _text("stderr, syslog or an absolute path", r"stderr|syslog|/.+"),
    "login": _text("a user name", _LOGIN),
    "mailbox": _text(
        "maildir:PATH, mbox:PATH or mbox:PATH:INBOX=PATH, each PATH relative and without '..', "
        "and perhaps :LAYOUT=fs, :UTF-8, :SUBSCRIBE, :SEPARATOR=CHARACTER",
        rf"maildir:([^:]+)(?::LAYOUT=maildir\+\+)?{_MORE}|mbox:([^:]+)(?::INBOX=([^:]+))?{_MORE}",
        _below,
    ),
    "mailbox_of_account": _text(
        "maildir:PATH, mbox:PATH, mbox:PATH:INBOX=PATH or mbox:PATH:INBOX=/DIRECTORY/%u, each PATH "
        "relative and without '..', and perhaps :LAYOUT=fs, :UTF-8, :SUBSCRIBE, "
        ":SEPARATOR=CHARACTER",
        rf"maildir:([^:]+)(?::LAYOUT=maildir\+\+)?{_MORE}"
        rf"|mbox:([^:]+)(?::INBOX=(?:([^:/][^:]*)|(/(?:[^:/%]+/)+[^:/%]*%u[^:/%]*)))?{_MORE}",
        _below_or_in_spool,
    ),
    "mode": _text("an octal mode from 0000 to 0777", r"0?[0-7]{3}"),
    "network": _text(
        "an address or a network, such as 192.0.2.0/24", r"[0-9A-Fa-f:.]+(?:/[0-9]+)?", _network
    ),
    "nameserver": _text(
        "ADDRESS, ADDRESS:PORT or [IPV6]:PORT",
        r"[0-9.]{7,15}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}|[0-9A-Fa-f:.]{2,45}",
    ),
    "nesting": _whole(1, 64),
    "owner": _text("USER or USER:GROUP", rf"(?:{_LOGIN}(?::{_LOGIN})?)?"),
    "path": _text("a path (~ is not expanded)", r"[^~].*", _absolute),
    "percent": _whole(0, 100),
    "quota": _measure(
        "a size up to 1024G, such as 500M or 1G, or empty", _SIZES, 0, 1 << 40, int, empty=True
    ),
    "quota_messages": _whole(0, 1_000_000_000),
    "recipient": _text("an address, a user, or nothing", r"\S*", _recipient),
    "reserve": _measure("a size from 0 to 1024G, such as 64M", _SIZES, 0, 1 << 40, int),
    "score": Kind("a number from 0 to 1000", _score, {"type": "float", "ge": 0, "le": 1000}),
    "seconds": _measure(
        "a time up to 520 weeks, such as 90, 2 minutes or 1h", _TIMES, 0.001, 520 * 604800, float
    ),
    "server": _text(
        "unix:/PATH (of at most 107 bytes), HOST:PORT or [IPV6]:PORT",
        r"unix:/.+|(?:\[([^\]]+)\]|[A-Za-z0-9_][A-Za-z0-9._-]*):([0-9]{1,5})",
        _listen,
    ),
    "some_folder": _text("the name of a folder", r'[^\s/"{}\\][^"{}\\\x00-\x1f]{0,200}'),
    "spamd_user": _text("a name, `recipient`, or nothing", r"(?:[A-Za-z0-9_@.+-]{1,256})?"),
    "size": _measure("a size up to 1024G, such as 512K or 50M", _SIZES, 1, 1 << 40, int),
    "table": _text(
        "the path of a file, alone or behind aliases:, virtual: or regexp:",
        r"(?:(aliases|virtual|regexp):)?([^~].*)",
        _table,
    ),
    "store": _text(
        "redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH, and perhaps ?site=NAME, "
        "&ca=FILE and &db=N, or nothing",
        rf"(?:(?:rediss?://{_SERVER}(?:/[0-9]{{1,5}})?|unix://(?:[^\s/?#]+@)?/[^\s?#]+){_ABOUT_STORE})?",
    ),
    "threads": _whole(1, 256),
    "uid": _whole(1, _NO_MORE),
    "url": _text(
        "http://HOST:PORT or unix:/PATH",
        r"http://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*):[0-9]{1,5}|unix:/.+",
    ),
    "user": _text("a user name", rf"(?:{_LOGIN})?"),
    "word": _text("a name", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"),
    "workers": _whole(0, 1024),
    "zones": Kind(
        "zones and names of tests, such as zen.spamhaus.org: CLIENT",
        _zones,
        {"type": "dict", "keys_schema": {"type": "str"}, "values_schema": {"type": "str"}},
    ),
    "zone": _text(
        "the name of a time zone, such as Europe/Vienna", r"[A-Za-z0-9_+/-]{0,64}", _zone
    ),
}
