"""Hostile messages, and what a real clamd finds in them with our readings beside its own."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator

import pytest
from clamd_server import VIRUS, ClamdServer
from evasions import CODES, HEAD, TEXT, Case, cases, control, encoded, file, mail

from mdaflow.app.config import Clamd, Config
from mdaflow.app.scanners import open_scanners
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Scanner, Unscanned

LEAST, KINDS = 500, 40


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    """clamd, as the configuration has it if nothing else is said."""
    with ClamdServer() as clamd:
        [post] = open_scanners(Config(scanners=(Clamd((clamd.address,)),)))
        yield post.scanner


def verdict(scanner: Scanner, raw: bytes) -> str:
    """What is said of a message: `found`, `not scanned`, `ambiguous` or `clean`."""
    message = Message.from_wire(raw)
    try:
        if VIRUS in scanner.scan(message, Envelope(), 30.0).viruses:
            return "found"
    except Unscanned:
        return "not scanned"
    return "ambiguous" if message.readings.doubts or message.readings.limit else "clean"


def test_none_is_clean(scanner: Scanner) -> None:
    """Of each hostile message clamd names the virus, or cannot say, or it is ambiguous; in each
    that hides nothing clamd finds it, and there is nothing to doubt."""
    hostile: list[Case] = list(cases())
    assert len(hostile) >= LEAST
    assert len({case.kind for case in hostile}) >= KINDS
    verdicts = [(verdict(scanner, case.raw), case) for case in hostile]
    assert [case.name for said, case in verdicts if said == "clean"] == []
    controls = {zlib.crc32(case.control): case for case in hostile}.values()
    assert [c.name for c in controls if verdict(scanner, c.control) != "found"] == []
    assert [c.name for c in controls if Message.from_wire(c.control).readings.doubts] == []
    print(Counter(said for said, _ in verdicts))


KINDS_OF_MULTIPARTS = (
    *("alternative", "appledouble", "byteranges", "digest", "encrypted", "form-data", "mixed"),
    *("parallel", "related", "report", "signed", "x-new"),
)
MESSAGES = ("rfc822", "global", "delivery-status", "disposition-notification", "http", "x-new")


@pytest.mark.parametrize("kind", KINDS_OF_MULTIPARTS)
def test_every_kind_of_multipart(scanner: Scanner, kind: str) -> None:
    """clamd looks at every part, whatever it takes the multipart for."""
    inner = {
        "last": (TEXT, file()),
        "first": (file(), TEXT),
        "between": (TEXT, file(), b"Content-Type: application/pgp-signature\n\nx\n"),
        "deeper": (TEXT, control()[len(HEAD) :].replace(b"mixed", kind.encode())),
    }
    kind_ = b'Content-Type: multipart/%b; boundary="out"\n' % kind.encode()
    said = {name: verdict(scanner, mail(b"out", *p, kind=kind_)) for name, p in inner.items()}
    assert said == dict.fromkeys(inner, "found")


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_kind_of_encoded_message(scanner: Scanner, kind: str) -> None:
    """clamd looks at what is encoded where RFC 2046 forbids it."""
    head = HEAD + b"Content-Type: message/%b\nContent-Transfer-Encoding: " % kind.encode()
    said = {
        code: verdict(scanner, head + code.encode() + b"\n\n" + encoded(code)) for code in CODES
    }
    assert said == dict.fromkeys(CODES, "found")
