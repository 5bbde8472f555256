"""The scanners of a configuration: nobody is asked yet. What one needs is imported only here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Report, Scanner, Unscanned

from .config import Clamd, Config, Package, Rspamd, Spamd
from .guard import looks_for, viruses
from .privileges import as_mail_user
from .scanning import OWN, Post
from .spam import Own

if TYPE_CHECKING:
    from mdaflow.mail.contents import Content
    from mdaflow.scan.rspamd import Rspamd as Client

Said = Clamd | Spamd | Rspamd | Package
TRY = 5.0
"""Seconds for a scanner that is tried."""
_SAMPLE = b"Subject: is somebody there?\n\nThis tries a scanner.\n"
MAX_PASSWORD = 1024
"""Bytes of a file with a password."""


def open_scanners(config: Config, *, strict: bool = False) -> list[Post]:
    """The scanners in their order. One that cannot be had says so when it is asked: whoever calls
    `mdaflow deliver` may not read all that the server may. Or, if `strict`, raises ConfigError."""
    posts = []
    for name, said in named(config):
        try:
            posts.append(_OPEN[type(said)](name, said, config))
        except ConfigError as error:
            if strict:
                raise
            posts.append(_post(said, _Missing(name, str(error))))
    return posts


def named(config: Config) -> list[tuple[str, Said]]:
    """The scanners with their names: of several of a kind the second is `clamd2`. Raises
    ConfigError for a package that is called as another one."""
    found: dict[str, Said] = {}
    for number, said in enumerate(config.scanners):
        kind = said.package if isinstance(said, Package) else _NAMES[type(said)]
        same = sum(isinstance(other, type(said)) for other in config.scanners[:number])
        name = f"{kind}{same + 1}" if same and not isinstance(said, Package) else kind
        if name in found or name == OWN:
            raise ConfigError((f"scanners[{number}].package: there is another scanner {name!r}",))
        found[name] = said
    return list(found.items())


class _Missing:
    """A scanner that cannot be had."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        raise Unscanned(self._why)


def check(config: Config) -> None:
    """Raise ConfigError for a scanner that the server could not have as its user, and for limits
    of time that leave none for the rest of a delivery."""
    with as_mail_user(config):
        open_scanners(config, strict=True)
    most, whole = config.lmtp.deadline * 0.8, sum(said.timeout for said in config.scanners)
    if whole > most:
        why = f"their timeouts are {whole:g} s together; lmtp.deadline leaves {most:g} s"
        raise ConfigError((f"scanners: {why}",))


def examine(config: Config) -> tuple[list[str], list[str]]:
    """What is wrong with scanners, and what may be only now: that one is away."""
    problems: list[str] = []
    warnings: list[str] = []
    for act in (Own(config, "localhost", None, kept=False).post, partial(check, config)):
        try:
            act()
        except ConfigError as error:
            problems += error.problems
    if not problems:
        with as_mail_user(config):
            for post in open_scanners(config):
                try:
                    post.scanner.scan(Message(_SAMPLE), Envelope("", "postmaster@localhost"), TRY)
                except Unscanned as error:
                    warnings.append(f"scanners: {post.name}: {error}")
        warnings += _never(config)
    if viruses(config) is not None and not os.path.isdir(config.quarantine):
        problems.append(f"quarantine: {config.quarantine}: no such folder, and viruses go there")
    return problems, warnings


def _never(config: Config) -> Iterator[str]:
    """Mail that comes again until the MTA gives it up, as it is never scanned."""
    for name, said in named(config):
        most = getattr(said, "max_size", config.lmtp.max_size)
        if said.on_error == "defer" and most < config.lmtp.max_size:
            yield (
                f"scanners: {name}: mail of more than {most >> 20}M is put off each time it comes:"
                " raise max_size (and StreamMaxLength), or let on_error be deliver-tagged"
                " or quarantine, or lower lmtp.max_size"
            )


def _post(said: Said, scanner: Scanner, **about: Any) -> Post:
    what = frozenset(what for what in ("virus", "spam") if looks_for(said, what))
    return Post(scanner, what, said.timeout, said.on_error, **about)


def _clamd(name: str, said: Clamd, config: Config) -> Post:
    from mdaflow.scan.clamd import Clamd as Client

    whole, bare = (
        Client(said.clamd, name=name, parts=parts, max_size=said.max_size)
        for parts in (_PARTS[said.parts], None)
    )
    return _post(said, whole, bare=bare)


class _Pieces:
    """A decoded part, which may be read again for another server."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield from self._content.pieces()


def _all_parts(message: Message) -> Iterator[_Pieces]:
    """The decoded parts of all readings. Raises Unscanned when these are not all there are."""
    from mdaflow.mail.contents import contents

    yield from map(_Pieces, contents(message))
    if message.contents.limit:
        raise Unscanned(message.contents.limit)


def _doubtful_parts(message: Message) -> Iterator[_Pieces]:
    """The same, where readers could find other things in the message (P46)."""
    from mdaflow.mail.contents import is_plain

    if not is_plain(message.readings):
        yield from _all_parts(message)


_PARTS: dict[str, Callable[[Message], Iterator[_Pieces]] | None] = {
    "always": _all_parts, "ambiguous": _doubtful_parts, "never": None,
}  # fmt: skip


def _spamd(name: str, said: Spamd, config: Config) -> Post:
    from mdaflow.scan.spamd import Spamd as Client

    client = Client(
        said.spamd,
        name=name,
        user=said.user,
        scale=config.spam.required,
        weight=said.weight,
        max_size=said.max_size,
    )
    return _post(said, client, per_recipient=client.per_recipient)


def _rspamd(name: str, said: Rspamd, config: Config) -> Post:
    client = rspamd(said, config, name)
    return _post(said, client, per_recipient=said.per_recipient)


def rspamd(said: Rspamd, config: Config, name: str = "rspamd") -> Client:
    """A client of rspamd. Raises ConfigError when its password cannot be read."""
    from mdaflow.scan.rspamd import Rspamd as Client

    return Client(
        said.rspamd,
        name=name,
        controllers=said.controllers,
        password=_password(said.password),
        per_recipient=said.per_recipient,
        scale=config.spam.required,
        weight=said.weight,
        max_size=said.max_size,
    )


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PASSWORD).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError((f"scanners: password: {path}: {reason}",)) from None


def _package(name: str, said: Package, config: Config) -> Post:
    from mdaflow.scan.plugins import load

    scanner = load(name, said.options)
    return _post(said, scanner, per_recipient=scanner.per_recipient)


_NAMES: dict[type, str] = {Clamd: "clamd", Spamd: "spamd", Rspamd: "rspamd"}
_OPEN: dict[type, Callable[[str, Any, Config], Post]] = {
    Clamd: _clamd, Spamd: _spamd, Rspamd: _rspamd, Package: _package,
}  # fmt: skip
