"""The quarantine as the commands see it: what is in it, called by the beginnings of names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator

from mdaflow.deliver import held
from mdaflow.deliver.held import Entry, Held, NotHeld
from mdaflow.deliver.quarantine import component
from mdaflow.deliver.retention import Counts, expire
from mdaflow.errors import TempFail

from .build import Site
from .decide import find_user

__all__ = ["Counts", "Entry", "Held", "NotHeld", "expire"]  # for the commands
log = logging.getLogger("mdaflow")


def entries(root: str, folder: str = "") -> Iterator[Entry]:
    """What there is to know of all messages, or of those in one folder; those that came last first.

    Raises TempFail.
    """
    for each in held.held(root, folder):
        try:
            yield held.look(root, each)
        except NotHeld:  # released meanwhile
            continue
        except TempFail as error:
            log.warning("%s/%s: %s", each.folder, each.file, error)


def called(root: str, names: Iterable[str]) -> list[tuple[str, Held]]:
    """The messages that are called by the beginnings of their names, each with its name, once.

    Raises NotHeld, TempFail.
    """
    known = [*held.named(root, held.held(root))]
    whole = {each: name for name, each in known}
    found = dict.fromkeys(held.chosen(known, name) for name in names)
    return [(whole[each], each) for each in found]


def whole(root: str, each: Held) -> Entry:
    """All there is to know of a message, and all of it. Raises NotHeld, TempFail."""
    return held.look(root, each, held.MAX_MESSAGE)


def folder_of(site: Site, name: str) -> str:
    """The folder of a user, who may be gone. Raises PermFail, TempFail."""
    folder = component(name)
    if os.path.isdir(os.path.join(site.config.quarantine, folder)):
        return folder
    return component(find_user(site, name).address)
