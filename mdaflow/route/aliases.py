"""Recipients that stand for others, as in aliases(5).

A name with a domain is one address; without one it is that local part in every domain of ours.
Names are compared without regard to case, also without the detail of a subaddress. A target
without a domain is in the domain of the recipient. A name among its own targets stands for the
user of that name: so an alias can add a reader. Expansion is bounded in depth and in number; a
loop of several names is a mistake of the site, and puts the mail off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mdaflow.errors import Status, TempFail
from mdaflow.mail.address import split_local

MAX_DEPTH = 10
MAX_TARGETS = 10_000
"""Recipients that one may stand for (P35)."""
TOO_MANY = Status(451, "4.3.0", "Alias expansion too large")


class Aliases:
    """The aliases of a site: name -> targets."""

    def __init__(self, table: Mapping[str, Sequence[str]], delimiters: str = "+") -> None:
        self._table = {name.casefold(): tuple(targets) for name, targets in table.items()}
        self._delimiters = delimiters

    def expand(self, recipient: str) -> tuple[str, ...]:
        """Whom a recipient stands for: addresses, each once; itself when it is no alias.

        Raises TempFail when that would be too many, or too deep.
        """
        if self._find(recipient)[0] is None:  # as almost all
            return (recipient,)
        found: dict[str, None] = {}
        expanded: set[str] = set()
        level = [recipient]
        for _ in range(MAX_DEPTH + 1):
            below = (target for r in level for target in self._step(r, found, expanded))
            level = list(dict.fromkeys(below))
            if len(found) + len(level) > MAX_TARGETS:
                raise TempFail(TOO_MANY, f"{recipient} stands for more than {MAX_TARGETS} others")
        if level or not found:
            raise TempFail(TOO_MANY, f"the aliases of {recipient} are too deep, or a loop")
        return tuple(found)

    def only(self, recipient: str) -> str:
        """The one address that a recipient stands for; who stands for none or for several, stands
        for itself. Cheap, and never raises."""
        for _ in range(MAX_DEPTH):
            _, targets = self._find(recipient)
            if len(targets) != 1:
                break
            recipient = _whole(targets[0], recipient)
        return recipient

    def _step(self, recipient: str, found: dict[str, None], expanded: set[str]) -> list[str]:
        """The targets of a recipient; none of who is no alias, and so was found."""
        name, targets = self._find(recipient)
        if name is None:
            found[recipient] = None
        if recipient in expanded:
            return []
        expanded.add(recipient)
        whole = [_whole(target, recipient) for target in targets]
        itself = [target for target in whole if self._find(target)[0] == name]
        found.update(dict.fromkeys(itself))
        return [target for target in whole if target not in itself]

    def _find(self, recipient: str) -> tuple[str | None, tuple[str, ...]]:
        if not self._table:
            return None, ()
        folded = recipient.casefold()
        local, at, domain = folded.rpartition("@") if "@" in folded else (folded, "", "")
        user, _ = split_local(local, self._delimiters)
        for name in (f"{local}{at}{domain}", f"{user}{at}{domain}", local, user):
            if name in self._table:
                return name, self._table[name]
        return None, ()


def _whole(target: str, recipient: str) -> str:
    """A target with a domain: its own, else that of the recipient."""
    _, at, domain = recipient.rpartition("@")
    return target if "@" in target or not at else f"{target}@{domain}"
