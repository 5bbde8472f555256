"""What other readers of mail see in a message, besides `Message.parts` (P46, P48).

MIME can be written so that a filter sees a harmless text where the recipient's program sees a
program to start. So every plausible reading is looked at: each of two fields, each way to read a
boundary or a transfer encoding, headers where only some readers see one, files that stand encoded
in a text. A message whose readers would not see the same contents is ambiguous, and `doubts` says
why. What no reader shows, but a scanner may as well look at (a message quoted in a text), is in
`more`, and does not make a message ambiguous.

Linear and capped; what is beyond a cap is said in `limit`. Nothing here raises. Known limits: what
programs make of a content (scripts in HTML, macros, archives) is not the business of this module;
quoted-printable in a text that does not declare it is decoded only where many escapes follow each
other.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import header
from .declared import Declared, declared, parameters, plain
from .embedded import SIGNS, File, fields_about_content, files, runs
from .mime import MAX_DEPTH, MAX_PARTS, Part, split
from .names import names
from .raw import Raw, behind, finds, slices
from .transfer import ALPHABET, DECODERS, OTHER_WAYS, OTHERS

MAX_FOUND = 1_000
"""Headers and encoded files that stand in texts."""
MAX_COPY = 16 << 20
"""Bytes that are decoded, or copied with other line ends, to be divided again."""

MESSAGES = ("message/rfc822", "message/global", "message/news")
_ELSEWHERE = ("message/partial", "message/external-body")
_TYPE = re.compile(rb"\s*\"?([\w!#$&^.+-]+/[\w!#$&^.+-]+)")
_JUNK = re.compile(rb"\n(?![ \t\n]|>?From )(?![!-9;-~]+[ \t\x00]*:)[^\n]+")
_BLANK = re.compile(rb"\n[ \t\r\x00\x0b\x0c]+(?=\n)")
_LOOSE = re.compile(rb"^content-[a-z-]+[\x00-\x09\x0b-\x20]+:", re.MULTILINE | re.IGNORECASE)
_CONTENT = re.compile(rb"^content-(?:ty|tr|di)", re.MULTILINE | re.IGNORECASE)
_DIVIDER = re.compile(rb"\n([ \t\r\x00]*|--[^\n]*)(?=\n)")
_EXACT = re.compile(rb"[ \t\r]*(?:--)?[ \t\r]*")
_ESCAPES = re.compile(rb"(?:=[0-9A-Fa-f]{2}(?:=\n)?){8}")
_LINE = re.compile(rb"^[A-Za-z0-9+/]{8,}={0,2}[ \t\r]*$", re.MULTILINE)
_SOFT = re.compile(rb"=[ \t]+\r?\n|=[ \t]*\r(?!\n)")
_PADDED = b" \t\r\n" + ALPHABET


class Readings(NamedTuple):
    """What all readers of a message see together."""

    parts: tuple[Part, ...]
    """Those of `Message.parts`, and behind them what only other readers see."""
    more: tuple[Part, ...] = ()
    """What no reader shows, but could be decoded."""
    doubts: tuple[str, ...] = ()
    """Why readers see different things, in a few words each; empty when they do not."""
    limit: str = ""
    """Why not all was looked at; empty when it was."""
    divided: frozenset[str] = frozenset()
    """The types of what has parts, such as `multipart/mixed`."""


def read(raw: Raw, parts: Iterable[Part]) -> Readings:
    """All readings of a message that is divided into these parts by most readers."""
    walk = _Walk(raw, parts)
    walk.run()
    return Readings(
        tuple(walk.found.values()),
        tuple(walk.more.values()),
        tuple(walk.doubts),
        walk.limit,
        frozenset(walk.divided),
    )


class _Walk:
    """One walk through a message; what it finds is collected here."""

    def __init__(self, raw: Raw, parts: Iterable[Part]) -> None:
        self.raw = raw
        self.found = {_key(part): part for part in parts}
        self.more: dict[tuple[object, ...], Part] = {}
        self.doubts: dict[str, None] = {}
        self.limit = ""
        self.left = 8 * len(raw) + (64 << 20)
        """Bytes that may still be looked at."""
        self.entities = 0
        self.strays = 0
        self.seen: set[tuple[int, int, int]] = set()
        self.todo: list[tuple[Raw, int, int, int]] = []
        self.heads: list[tuple[int, int]] = []
        self.coded: list[tuple[int, int]] = []
        """Where base64 and quoted-printable stand in the message itself."""
        self.bare: list[int] = []
        """Where parts without a header begin."""
        self.boundaries: set[bytes] = set()
        self.odd: list[bytes] = []
        """Lines that go on behind a boundary."""
        self.divided: set[str] = set()
        self.undivided = False
        self.divider = (1, 0)
        """Between these offsets there is no line of hyphens, and at the second there is."""
        self.quiet = False
        """What is looked at now is shown by no reader, so nobody can differ."""
        self.copies: list[Raw] = []  # an id belongs to what is kept

    def run(self) -> None:
        """Find everything."""
        self._walk([(self.raw, 0, len(self.raw), 0)], self.found)
        if self.odd and any(not self._is_boundary(line) for line in self.odd):
            self._doubt("a line that begins as a boundary")
        self._texts()
        self._stray_headers(self.raw)
        self._bare_returns()

    def _walk(
        self, todo: list[tuple[Raw, int, int, int]], into: dict[tuple[object, ...], Part]
    ) -> None:
        self.todo = todo
        while self.todo:
            raw, start, end, depth = self.todo.pop()
            if (id(raw), start, end) in self.seen:
                continue
            self.seen.add((id(raw), start, end))
            self.entities += 1
            if self.entities > 2 * MAX_PARTS:
                self._stop("more than 10,000 parts")
                return
            self._entity(raw, start, end, depth, into)

    def _doubt(self, why: str) -> None:
        if not self.quiet:
            self.doubts[why] = None

    def _stop(self, why: str) -> None:
        self.limit = self.limit or why

    def _spend(self, size: int) -> bool:
        self.left -= size
        if self.left < 0:
            self._stop("too many readings")
        return self.left >= 0

    # one part and its header

    def _entity(
        self, raw: Raw, start: int, end: int, depth: int, into: dict[tuple[object, ...], Part]
    ) -> None:
        head_end = header.block_end(raw, start, end)
        body = head_end + (head_end < end and raw[head_end] == 10)
        if raw is self.raw:
            self.heads.append((start, head_end))
            if head_end == start:
                self.bare.append(start)
        if not self._spend(head_end - start):
            return
        if end - start > header.MAX_BLOCK and body == head_end:
            self._too_long(raw, start, head_end, end)
        fields = declared(raw, start, head_end)
        if not self._spend(sum(len(v) << 5 for values in fields.values() for v in values)):
            return  # taking parameters apart costs more than finding them
        divided = start < head_end and self._odd_head(raw, start, head_end)
        encodings = self._encodings(fields)
        types = fields.get("content-type") or [b""]
        if len({(_type(t), *_boundaries(t)) for t in types}) > 1:
            self._doubt("two types")
        leaf = True
        for value in types:
            inner = self._divide(raw, divided or body, end, value)
            leaf = leaf and not inner
            if depth < MAX_DEPTH:
                self.todo += [(raw, a, b, depth + 1) for a, b in reversed(inner)]
                self._within(raw, body, end, depth, value, encodings)
            elif inner or _type(value) in MESSAGES:
                self._stop("nested deeper than 64")
        if leaf:
            self._leaves(raw, start, body, end, fields, encodings, into)

    def _too_long(self, raw: Raw, start: int, head_end: int, end: int) -> None:
        if head_end > start or raw[start : start + header.MAX_BLOCK].find(b"\n\n") < 0:
            self._stop("a header of more than 1 MiB")

    def _odd_head(self, raw: Raw, start: int, end: int) -> int:
        """Where the parts begin already, if that is in the header; 0 if it is not."""
        head = raw[start:end]
        if _LOOSE.search(head):
            self._doubt("a space before a colon")
        junk = _JUNK.search(head)
        blank = _BLANK.search(head)
        for odd, why in ((junk, "a header line without a colon"), (blank, "a blank header line")):
            if odd and _CONTENT.search(head, odd.end() + 1):
                self._doubt(why)
        return start + junk.start() + 1 if junk and junk[0].startswith(b"\n--") else 0

    def _encodings(self, fields: Declared) -> list[str]:
        """The transfer encodings that readers may take this for."""
        found: dict[str, None] = {}
        for value in fields.get("content-transfer-encoding", ()):
            plain_value = value.decode("latin-1").strip().lower()
            word = "".join(filter(str.isalnum, plain_value))
            guessed = {code: None for sign, code in _ENCODINGS if sign in word}
            if guessed and plain_value not in DECODERS:
                self._doubt("an unclear transfer encoding")
                found[""] = None
            found |= guessed or {"": None}
        if len(found) > 1:
            self._doubt("two transfer encodings")
        return list(found) or [""]

    def _divide(self, raw: Raw, start: int, end: int, value: bytes) -> list[tuple[int, int]]:
        """The parts, by every boundary that a type may have."""
        multipart = value.lower().lstrip(b' "').startswith(b"multipart")
        found: dict[tuple[int, int], None] = {}
        readings = _boundaries(value)
        clear = plain(value, b"boundary")
        for boundary in readings:
            if not self._spend(end - start):
                break
            inner = split(raw, start, end, boundary, self._crowded)
            if inner and not self.quiet:
                self.boundaries.add(boundary)
                self._behind(raw, inner, end, boundary)
            found |= dict.fromkeys(inner)
        if multipart and not found and not self.quiet:
            self.undivided = True
        self.divided |= {_type(value)} if found else set()
        if found and not _type(value).startswith("multipart/"):
            self._doubt("a boundary, but no multipart")
        if readings and multipart and not clear:
            self._doubt("an unclear boundary")
        return sorted(found)

    def _behind(self, raw: Raw, inner: list[tuple[int, int]], end: int, boundary: bytes) -> None:
        """Lines that only some readers take for boundaries."""
        delimiter = b"\n--" + boundary
        last = inner[-1][1]
        for number, at in enumerate(finds(raw, delimiter, max(inner[0][0] - 1, 0), end)):
            line = raw[at + len(delimiter) : at + len(delimiter) + 200].partition(b"\n")[0]
            if not _EXACT.fullmatch(line):
                self.odd += [] if self.quiet else [boundary + line.strip()]
            elif at > last:
                self._doubt("parts behind the end")
            if number > MAX_PARTS or len(self.odd) > MAX_PARTS:
                self._stop("more than 10,000 parts")
                return

    def _is_boundary(self, line: bytes) -> bool:
        return line in self.boundaries or line.removesuffix(b"--") in self.boundaries

    def _within(
        self, raw: Raw, body: int, end: int, depth: int, value: bytes, encodings: list[str]
    ) -> None:
        """What is in a message, and in what should not be encoded but is."""
        kind = _type(value)
        if kind in _ELSEWHERE:
            self._doubt(kind)
        if kind in MESSAGES and body < end:
            self.todo.append((raw, body, end, depth + 1))
        if kind not in MESSAGES and not kind.startswith("multipart/"):
            return
        for encoding in set(encodings) & set(DECODERS):
            copy = self._decoded(raw, body, end, encoding)
            if kind in MESSAGES:
                changed = header.block_end(copy) and copy[:500] != raw[body : body + 500]
                why = "an encoded message"
            else:
                changed = any(
                    self._spend(len(copy) + end - body)
                    and len(split(b"\n" + copy, 1, len(copy) + 1, b))
                    > len(split(raw, body, end, b))
                    for b in _boundaries(value)
                )
                why = "an encoded multipart"
            if changed:
                self._doubt(why)
                head = b"" if kind in MESSAGES else b"Content-Type: " + value + b"\n\n"
                self._again(head + copy, depth)

    def _decoded(self, raw: Raw, start: int, end: int, encoding: str) -> bytes:
        if end - start > MAX_COPY:
            self._stop("too large to be decoded and divided")
            return b""
        if not self._spend(end - start):
            return b""
        return Part(raw, start, end, "", "", encoding, "", "").content()

    def _again(self, copy: bytes, depth: int) -> None:
        """Divide something decoded too."""
        self.copies.append(copy)
        if self._spend(len(copy)) and sum(map(len, self.copies)) <= 2 * MAX_COPY:
            self.todo.append((copy, 0, len(copy), depth + 1))
        else:
            self._stop("too many encoded messages")

    def _crowded(self) -> None:
        self._stop("too many lines that look like boundaries")

    # leaves

    def _leaves(
        self, raw: Raw, start: int, body: int, end: int, fields: Declared, encodings: list[str],
        into: dict[tuple[object, ...], Part],
    ) -> None:  # fmt: skip
        said = b" ".join(fields.get("content-disposition", ())).lower()
        disposition = "attachment" if b"attachment" in said else said.decode("latin-1")[:20]
        for value in fields.get("content-type") or [b""]:
            charset = (
                next(iter(parameters(value, "charset")), "") if b"charset" in value.lower() else ""
            )
            kind = _type(value) or "text/plain"
            for encoding in self._variants(raw, body, end, encodings):
                part = Part(raw, body, end, kind, charset, encoding, disposition, "", start)
                if name := next(iter(names(part)), ""):
                    part = Part(raw, body, end, kind, charset, encoding, disposition, name, start)
                if _key(part) not in self.found:
                    (self.more if encoding in OTHER_WAYS else into).setdefault(_key(part), part)

    def _variants(self, raw: Raw, start: int, end: int, encodings: list[str]) -> Iterator[str]:
        """The encodings, and other ways in which readers undo them."""
        for encoding in encodings:
            yield encoding
            if encoding in DECODERS and raw is self.raw:
                self.coded.append((start, end))
            if encoding == "base64":
                yield from self._odd_base64(raw, start, end)
            elif encoding == "quoted-printable" and behind(_SOFT, raw, start, end) >= 0:
                yield OTHER_WAYS[4]

    def _odd_base64(self, raw: Raw, start: int, end: int) -> tuple[str, ...]:
        """How other decoders read base64 that has more in it than letters and an end."""
        left = b"".join(piece.translate(None, _PADDED) for piece in slices(raw, start, end))
        tail = raw[max(start, end - 4) : end].rstrip()
        if left in (b"", b"=", b"==") and tail.endswith(left):
            return ()
        odd = behind(_ODD, raw, start, end)
        if odd >= 0 and behind(_LINE, raw, odd, end) >= 0:
            self._doubt("base64 that goes on behind its end")
        return OTHER_WAYS[:4] if b"-" in left or b"_" in left else OTHER_WAYS[:3]

    # what stands in texts

    def _texts(self) -> None:
        """Look at all of the message but what is encoded, and at the encoded texts."""
        at = 0
        for start, end in [*sorted(self.coded), (len(self.raw), 0)]:
            if start > at:
                self._embedded(self.raw, max(at - 1, 0), start)
            at = max(at, end)
        for part in list(self.found.values()):
            if part.encoding in DECODERS and not part.attached:
                text = self._decoded(part.raw, part.start, part.end, part.encoding)
                if any(sign in text for sign in SIGNS):
                    self.copies.append(text)
                    self._embedded(b"\n" + text, 0, len(text) + 1)

    def _embedded(self, raw: Raw, start: int, end: int) -> None:
        if not self._spend(3 * (end - start)):
            return
        for file in files(raw, start, end):
            if not self._one_more() or not self._spend(4 * (file.end - file.start)):
                return
            if not self._spend(_steps(raw, file) << 6):
                return
            octets = "application/octet-stream"
            part = Part(
                raw, file.start, file.end, octets, "", file.encoding, "attachment", file.name
            )
            self.found.setdefault(_key(part), part)
            self._doubt(f"{file.encoding} in a text")
        self._runs(raw, start, end)

    def _runs(self, raw: Raw, start: int, end: int) -> None:
        """Lines that look like base64, or have many escapes, where none was declared."""
        for begin, stop in runs(raw, start, end):
            if not self._one_more():
                return
            part = Part(raw, begin, stop, "text/plain", "", "base64", "", "")
            self.more.setdefault(_key(part), part)
        if behind(_ESCAPES, raw, start, end) >= 0:
            part = Part(raw, start, end, "text/plain", "", "quoted-printable", "", "")
            self.more.setdefault(_key(part), part)

    def _one_more(self) -> bool:
        self.strays += 1
        if self.strays > MAX_FOUND:
            self._stop("too much that is encoded in texts")
        return self.strays <= MAX_FOUND

    def _stray_headers(self, raw: Raw) -> None:
        """Look at what stands behind headers that most readers do not take for such."""
        self.bare.sort()
        known: list[tuple[int, int]] = []
        for at in fields_about_content(raw):
            if len(known) < len(self.heads):
                known = sorted(self.heads)
            start, end = known[bisect_right(known, (at + 1, len(raw))) - 1] if known else (0, 0)
            if not start <= at + 1 < end:
                if not self._one_more():
                    return
                self._stray_header(raw, at + 1)

    def _stray_header(self, raw: Raw, at: int) -> None:
        """Look behind the header that has a field at `at`."""
        low = max(0, at - 4096)
        behind, divider = low, b""
        for found in _DIVIDER.finditer(b"\n" + raw[low:at]):
            behind, divider = low + found.end(), found[1]
        begin = behind if header.block_end(raw, behind, len(raw)) > at else at
        head_end = header.block_end(raw, begin, len(raw))
        end = len(raw)
        if not _divides(declared(raw, begin, head_end)):
            if not self.divider[0] <= head_end <= self.divider[1]:  # else it is known already
                stop = next(finds(raw, b"\n--", max(head_end - 1, 0), len(raw)), len(raw))
                self.divider = (head_end, stop)
            end = max(self.divider[1], head_end)
        doubtful = self._is_seen(raw, begin, divider)
        if self._spend(end - begin):
            self.quiet = not doubtful
            self._walk([(raw, begin, end, 1)], self.found if doubtful else self.more)
            self.quiet = False
        self.heads.append((begin, max(head_end, at + 1)))

    def _is_seen(self, raw: Raw, begin: int, divider: bytes) -> bool:
        """Does some reader take this for the header of a part?"""
        if divider.startswith(b"--"):
            name = divider[2:].strip(b" \t\r-")
            near = any(name and (name in b or b.strip(b" -") in name) for b in self.boundaries)
            if near or self.undivided:
                self._doubt("a part that not all readers see")
                return True
        start = self.bare[bisect_right(self.bare, begin) - 1] if self.bare else -1
        if 0 <= start <= begin and not raw[start:begin].strip() and begin - start < 4096:
            self._doubt("a header that not all readers see")
            return True
        return False

    def _bare_returns(self) -> None:
        """Once more with every CR as a line end, if that makes headers or boundaries."""
        if not any(
            _RETURN.search(piece.lower()) for piece in slices(self.raw, 0, len(self.raw), 9)
        ):
            return
        self._doubt("bare CR")
        if len(self.raw) > MAX_COPY:
            self._stop("bare CR in a large message")
            return
        copy = self.raw[:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.copies.append(copy)
        self._walk([(copy, 0, len(copy), 0)], self.found)
        self.heads, self.divider = [], (1, 0)
        self._stray_headers(copy)


_ODD = re.compile(rb"[^A-Za-z0-9+/\s]+")
_RETURN = re.compile(rb"\r(?:content-[td]|--)")
_ENCODINGS = (
    ("base64", "base64"), ("b64", "base64"), ("quotedprintable", "quoted-printable"),
    ("quoteprintable", "quoted-printable"), ("uue", "uuencode"), ("yenc", "yenc"),
    ("binhex", "binhex"), ("machexbin40", "binhex"),
)  # fmt: skip


def _steps(raw: Raw, file: File) -> int:
    """Lines and escapes, which take their time however short they are."""
    step = _STEPS.get(file.encoding)
    return sum(p.count(step) for p in slices(raw, file.start, file.end)) if step else 0


_STEPS = {"uuencode": b"\n", "yenc": b"="}


def _key(part: Part) -> tuple[object, ...]:
    encoding = part.encoding if part.encoding in DECODERS or part.encoding in OTHERS else ""
    return id(part.raw), part.start, part.end, encoding, part.type, part.attached


def _type(value: bytes) -> str:
    match = _TYPE.match(value)
    return match[1].decode("latin-1").lower() if match else ""


def _boundaries(value: bytes) -> list[bytes]:
    if b"boundary" not in value.lower():
        return []
    found = parameters(value, "boundary")
    raw = [r.encode("utf-8", "surrogateescape") for r in found]
    words = [header.decode_words(r).encode("utf-8", "surrogateescape") for r in found if "=?" in r]
    cut_off = [r.partition(b"\0")[0] for r in raw] + [r.replace(b"\0", b"") for r in raw]
    return list(dict.fromkeys(r.rstrip() for r in (*raw, *words, *cut_off) if r.strip()))


def _divides(fields: Declared) -> bool:
    return any(_boundaries(v) or _type(v) in MESSAGES for v in fields.get("content-type", ()))
