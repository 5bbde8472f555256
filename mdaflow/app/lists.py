"""Lists of rules that stand in files: one entry a line."""

from __future__ import annotations

from mdaflow.files import Cache, Made, Reading

MAX_LIST = 16 << 20
"""Bytes of a list in a file."""
MAX_ENTRIES = 500_000
MAX_LISTS = 1_000
"""Lists that are kept in memory."""
MAX_LISTED = 32 << 20
"""Bytes of all of them together, as they stand in files."""


class ListFiles:
    """The entries of lists in files, read again when a file has changed."""

    def __init__(self) -> None:
        self._kept: Cache[tuple[str, ...] | ValueError] = Cache(MAX_LISTS, MAX_LISTED)

    def entries(self, path: str, home: str = "") -> tuple[str, ...]:
        """The entries of a list: the same object as long as the file is the same.

        It is of the user whose folder is `home`; without one, of the site. Raises OSError and
        ValueError for what its author has to mend, TempFail for all else.
        """

        def make() -> Made[tuple[str, ...] | ValueError]:
            reading = Reading(MAX_LIST, home=home)
            text = reading(path)
            try:
                return Made(parse_list(text), reading.versions, len(text))
            except ValueError as error:  # kept, too: it took as long
                return Made(ValueError(*error.args), reading.versions, 0)

        found = self._kept.get(f"{home}:{path}", make)
        if isinstance(found, ValueError):
            raise ValueError(*found.args)
        return found


def parse_list(text: bytes) -> tuple[str, ...]:
    """The entries of a list in a file: one a line, `#` begins a comment, empty lines are none.

    Raises ValueError when it is too large or no UTF-8.
    """
    if len(text) > MAX_LIST:
        raise ValueError(f"larger than {MAX_LIST >> 20} MiB")
    try:
        lines = text.decode().removeprefix("\ufeff").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start + 1}") from error
    found = (line.partition("#")[0].strip() for line in lines)
    entries = tuple(filter(None, found))
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES:,} entries")
    return entries
