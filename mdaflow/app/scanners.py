"""The scanners of a configuration: nobody is asked yet. What one needs is imported only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdaflow.scan import Scanner

from .config import Clamd, Config, Package, Rspamd, Spamd
from .guard import looks_for
from .scanning import Post


def open_scanners(config: Config) -> list[Post]:
    """The scanners in their order. Raises ConfigError."""
    return [_OPEN[type(said)](said, config) for said in config.scanners]


def _post(said: Clamd | Spamd | Rspamd | Package, scanner: Scanner, **about: Any) -> Post:
    what = frozenset(what for what in ("virus", "spam") if looks_for(said, what))
    return Post(scanner, what, said.timeout, said.on_error, **about)


def _clamd(said: Clamd, config: Config) -> Post:
    from mdaflow.scan import clamd

    bare = clamd.Clamd(said.clamd, max_size=said.max_size)
    return _post(said, bare, bare=bare)


_OPEN: dict[type, Callable[[Any, Config], Post]] = {Clamd: _clamd}
