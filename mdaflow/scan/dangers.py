"""What is dangerous about attachments: `attachment.danger`, and `attachment.inner`.

All is told from the message alone, by names and first bytes, so it is cheap and the same for all
recipients. What holds for one reading of a name, or for a file in an archive, holds for the
attachment: the worst counts. It does not replace a virus scanner.

Known limits: at most 100 attachments are looked into, with 64 MiB unpacked and 5 s of computing for
all together; what is beyond is `not opened`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from mdaflow.mail.message import Message
from mdaflow.mail.mime import Part
from mdaflow.mail.names import REVERSING, extensions, names, undecodable

from . import archives, kinds
from .archives import MAX_SECONDS, MAX_UNPACKED, NOT_OPENED, Inside

MAX_ATTACHMENTS = 100

WORDS = {
    "program": "something that runs when it is opened, by its name or by what it is",
    "double extension": "named so that it passes for something else: invoice.pdf.exe",
    "reversed name": "a name with characters that turn its direction round",
    "undecodable name": "a name that cannot be decoded as it says it should be",
    "doubtful name": "a name whose extension is another one for another reader",
    "macros": "a document with macros",
    "encrypted": "an archive or a document that needs a password",
    "other type": "something else than its name or its declared type says, in a way that matters",
    NOT_OPENED: "an archive of a kind that is not opened, a damaged one, or one beyond a limit",
}
"""The values of `attachment.danger`, each with what it says."""

PROGRAMS = frozenset(
    ("ade", "adp", "apk", "app", "appimage", "application", "appref-ms", "appx", "appxbundle",
     "bat", "chm", "class", "cmd", "com", "command", "cpl", "diagcab", "diagcfg", "diagpack",
     "dll", "dmg", "ex", "ex_", "exe", "gadget", "hlp", "hta", "img", "inf", "ins", "iso", "isp",
     "jar", "jnlp", "js", "jse", "lib", "library-ms", "lnk", "mde", "mjs", "msc", "msh", "msi",
     "msix", "msixbundle", "msp", "mst", "msu", "nsh", "ocx", "pif", "pkg", "ps1", "ps1xml",
     "ps2", "psc1", "psc2", "psm1", "pyw", "pyz", "pyzw", "reg", "run", "scf", "scr", "sct",
     "search-ms", "settingcontent-ms", "shb", "shs", "sys", "udl", "url", "vb", "vbe", "vbs",
     "vhd", "vhdx", "vxd", "website", "wim", "wsc", "wsf", "wsh", "xbap", "xll")
)  # fmt: skip
"""Extensions of what runs, or makes something run, when it is opened."""
_WITH_MACROS = frozenset(
    ("docm", "dotm", "xlsm", "xltm", "xlam", "xlsb", "pptm", "potm", "ppam", "ppsm", "sldm")
)
_PAGES = frozenset(("htm", "html", "shtml", "xhtml", "xht", "svg", "mht", "mhtml"))
_FAMILIES = {
    "image": ("jpg jpeg jpe jfif png gif bmp tif tiff webp heic ico", ("image/",)),
    "media": ("mp3 mp4 m4a m4v mov avi mkv wav ogg flac wma wmv mpg mpeg", ("audio/", "video/")),
    "text": ("txt csv log ics vcf md", ("text/plain", "text/csv", "text/calendar")),
    "pdf": ("pdf", ("application/pdf",)),
    "office": ("doc docx xls xlsx ppt pptx odt ods odp rtf", ("application/vnd.oasis",)),
}
"""What people take for harmless: extensions, beginnings of media types."""
_FAMILY = {extension: name for name, (words, _) in _FAMILIES.items() for extension in words.split()}
_HARMLESS = "|".join(_FAMILY)
_DOUBLE = re.compile(rf"\.(?:{_HARMLESS})[\s._\u00a0]*\.(\w+)[\s.]*$", re.IGNORECASE)
_REAL = kinds.PROGRAMS - {"script"}  # which is a text, too
_PAGE_OR_ARCHIVE = frozenset({"html", "zip", "ole", "gzip", "rtf", *kinds.CLOSED})
_NOT: dict[str, frozenset[str]] = {
    "image": _REAL | _PAGE_OR_ARCHIVE | {"pdf"},
    "media": _REAL | _PAGE_OR_ARCHIVE | {"pdf"},
    "pdf": _REAL | _PAGE_OR_ARCHIVE,
    "text": _REAL | {"zip", "ole"},
    "office": _REAL,
}
"""Kinds that something harmless is not."""


class Looked(NamedTuple):
    """What is known of one attachment."""

    dangers: tuple[str, ...]
    """Of `WORDS`, in their order."""
    inner: tuple[str, ...]
    limit: str = ""


_looked: WeakKeyDictionary[Message, list[Looked]] = WeakKeyDictionary()


def looked(message: Message) -> list[Looked]:
    """What is known of each attachment; it is found out once for a message."""
    known = _looked.get(message)
    if known is None:
        known = _looked[message] = list(_look(message.attachments))
    return known


def dangers(message: Message) -> list[tuple[str, ...]]:
    """The dangers of each attachment, words of `WORDS`."""
    return [each.dangers for each in looked(message)]


def inner(message: Message) -> list[tuple[str, ...]]:
    """The names in each attachment, if it is an archive."""
    return [each.inner for each in looked(message)]


def unopened(message: Message) -> str:
    """Why not everything in a message could be looked at; empty when it could.

    An archive that is encrypted, damaged or of a kind that is not opened is a danger, and not
    meant here: only limits are.
    """
    limits = [each.limit for each in looked(message)]
    return next(filter(None, (message.readings.limit, message.contents.limit, *limits)), "")


def _look(attachments: Iterable[Part]) -> Iterator[Looked]:
    left, ends = MAX_UNPACKED, time.thread_time() + MAX_SECONDS
    for number, part in enumerate(attachments):
        inside = Inside(left=left, ends=ends)
        if number < MAX_ATTACHMENTS:
            archives.look(part.content(), part.name, inside)
        else:
            inside.stop("too many attachments")
        left = max(inside.left, 0)
        readings = names(part)
        found = {*inside.dangers, *_of_part(part, readings)}
        found |= {w for name in (*readings, *inside.names) for w in _of_name(name)}
        yield Looked(tuple(w for w in WORDS if w in found), tuple(inside.names), inside.limit)


def _of_name(name: str) -> Iterator[str]:
    for extension in map(str.lower, extensions([name])):
        if extension in PROGRAMS:
            yield "program"
        if extension in _WITH_MACROS:
            yield "macros"
    double = _DOUBLE.search(name)
    if double and double[1].lower() in PROGRAMS | _PAGES:
        yield "double extension"
    if REVERSING.search(name):
        yield "reversed name"


def _of_part(part: Part, readings: tuple[str, ...]) -> Iterator[str]:
    if undecodable(part):
        yield "undecodable name"
    found = {extension.lower() for extension in extensions(readings)}
    if len(found) > 1:
        yield "doubtful name"
    families = {_FAMILY.get(extension, "") for extension in found}
    families |= {name for name, (_, types) in _FAMILIES.items() if part.type.startswith(types)}
    kind = kinds.kind(part.content(2 * archives.SEEN))
    if any(kind in _NOT.get(family, ()) for family in families):
        yield "other type"
