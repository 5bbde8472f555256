"""The scanners of a configuration: nobody is asked yet. What one needs is imported only here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mdaflow.errors import ConfigError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Scanner, Unscanned

from .config import Clamd, Config, Package, Rspamd, Spamd
from .guard import looks_for, viruses
from .privileges import as_mail_user
from .scanning import Post
from .spam import Own

if TYPE_CHECKING:
    from mdaflow.mail.contents import Content
    from mdaflow.scan.rspamd import Rspamd as Client

TRY = 5.0
"""Seconds for a scanner that is tried."""
_SAMPLE = b"Subject: is somebody there?\n\nThis tries a scanner.\n"
MAX_PASSWORD = 1024
"""Bytes of a file with a password."""


def open_scanners(config: Config) -> list[Post]:
    """The scanners in their order. Raises ConfigError."""
    return [_OPEN[type(said)](said, config) for said in config.scanners]


def check(config: Config) -> None:
    """Raise ConfigError for a scanner that the server could not have as its user."""
    with as_mail_user(config):
        open_scanners(config)


def examine(config: Config) -> tuple[list[str], list[str]]:
    """What is wrong with scanners, and what may be only now: that one is away."""
    problems: list[str] = []
    warnings: list[str] = []
    try:
        Own(config, "localhost", None, kept=False).post()
    except ConfigError as error:
        problems += error.problems
    for number, said in enumerate(config.scanners):
        try:
            with as_mail_user(config):
                post = _OPEN[type(said)](said, config)
                post.scanner.scan(Message(_SAMPLE), Envelope("", "postmaster@localhost"), TRY)
        except ConfigError as error:
            problems += error.problems
        except Unscanned as error:
            warnings.append(f"scanners[{number}]: {error}")
    if viruses(config) is not None and not os.path.isdir(config.quarantine):
        problems.append(f"quarantine: {config.quarantine}: no such folder, and viruses go there")
    return problems, warnings


def _post(said: Clamd | Spamd | Rspamd | Package, scanner: Scanner, **about: Any) -> Post:
    what = frozenset(what for what in ("virus", "spam") if looks_for(said, what))
    return Post(scanner, what, said.timeout, said.on_error, **about)


def _clamd(said: Clamd, config: Config) -> Post:
    from mdaflow.scan import clamd

    bare = clamd.Clamd(said.clamd, max_size=said.max_size)
    parts = _PARTS[said.parts]
    whole = clamd.Clamd(said.clamd, parts=parts, max_size=said.max_size) if parts else bare
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


def _spamd(said: Spamd, config: Config) -> Post:
    from mdaflow.scan.spamd import Spamd as Client

    client = Client(
        said.spamd,
        user=said.user,
        scale=config.spam.required,
        weight=said.weight,
        max_size=said.max_size,
    )
    return _post(said, client, per_recipient=client.per_recipient)


def _rspamd(said: Rspamd, config: Config) -> Post:
    client = rspamd(said, config)
    return _post(said, client, per_recipient=said.per_recipient)


def rspamd(said: Rspamd, config: Config) -> Client:
    """A client of rspamd. Raises ConfigError when its password cannot be read."""
    from mdaflow.scan.rspamd import Rspamd as Client

    return Client(
        said.rspamd,
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


def _package(said: Package, config: Config) -> Post:
    from mdaflow.scan.plugins import load

    scanner = load(said.package, said.options)
    return _post(said, scanner, per_recipient=scanner.per_recipient)


_OPEN: dict[type, Callable[[Any, Config], Post]] = {
    Clamd: _clamd, Spamd: _spamd, Rspamd: _rspamd, Package: _package,
}  # fmt: skip
