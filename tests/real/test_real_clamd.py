"""The real clamd: EICAR however mail may bring it, and a daemon that is full, still or dead."""

from __future__ import annotations

import base64
import binascii
import io
import quopri
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from clamd_server import EICAR, VIRUS, ClamdServer

from mdaflow import Envelope, Message
from mdaflow.scan import Report, Unscanned
from mdaflow.scan.clamd import Clamd

PATIENCE = 60.0
FULL = {"MaxThreads": 2, "MaxQueue": 4, "MaxConnectionQueueLength": 5}
HEAD = b"From: eve@example.org\nTo: bob@example.org\nSubject: x\nMIME-Version: 1.0\n"


@pytest.fixture(scope="module")
def clamd() -> Iterator[ClamdServer]:
    """One for all tests that do it no harm."""
    with ClamdServer() as server:
        yield server


def scan(
    where: str, mail: Message, seconds: float = PATIENCE, max_size: int = 1 << 30
) -> tuple[str, ...]:
    """The viruses that are found there."""
    return Clamd([where], max_size=max_size).scan(mail, Envelope(), seconds).viruses


def attached(content: bytes, encoding: str, kind: str = "application/octet-stream") -> bytes:
    """A message with this as its attachment."""
    return b"".join(
        (
            HEAD,
            b'Content-Type: multipart/mixed; boundary="=_b"\n\n--=_b\n\nHello\n--=_b\n',
            f'Content-Type: {kind}; name="x"\nContent-Disposition: attachment\n'.encode(),
            f"Content-Transfer-Encoding: {encoding}\n\n".encode(),
            content,
            b"\n--=_b--\n",
        )
    )


def zipped(content: bytes, how: int) -> bytes:
    """An archive that has it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("x.com", content)
    return base64.encodebytes(file.getvalue())


def dressed(content: bytes) -> dict[str, bytes]:
    """Messages that bring this content, each in another way."""
    in_base64 = base64.encodebytes(content)
    return {
        "raw": HEAD + b"\n" + content + b"\n",
        "attached": attached(content, "7bit"),
        "base64": attached(in_base64, "base64"),
        "quoted-printable": attached(quopri.encodestring(content), "quoted-printable"),
        "uuencode": b"".join(
            (
                *(HEAD, b"Content-Type: text/plain\n\nbegin 644 x.com\n"),
                *(binascii.b2a_uu(content[at : at + 45]) for at in range(0, len(content), 45)),
                b"`\nend\n",
            )
        ),
        "nested": attached(attached(in_base64, "base64"), "7bit", "message/rfc822"),
        "zip": attached(zipped(content, zipfile.ZIP_STORED), "base64", "application/zip"),
        "deflated": attached(zipped(content, zipfile.ZIP_DEFLATED), "base64", "application/zip"),
    }


@pytest.mark.parametrize("where", ["address", "tcp"])
def test_eicar(clamd: ClamdServer, where: str) -> None:
    """EICAR is found however it is encoded; the same mail with other bytes is clean."""
    server = getattr(clamd, where)
    evil = {how: scan(server, Message(raw)) for how, raw in dressed(EICAR).items()}
    assert evil == dict.fromkeys(evil, (VIRUS,))
    good = {how: scan(server, Message(raw)) for how, raw in dressed(EICAR[::-1]).items()}
    assert good == dict.fromkeys(good, ())


def test_parts(clamd: ClamdServer) -> None:
    """EICAR in what clamd itself could not decode is found in the part that we decoded."""
    mail = Message(attached(base64.encodebytes(EICAR), "x-unheard-of"))
    assert not scan(clamd.address, mail)
    scanner = Clamd([clamd.address], parts=lambda message: [b"Hello", iter([EICAR[:9], EICAR[9:]])])
    assert scanner.scan(mail, Envelope(), PATIENCE) == Report(viruses=(VIRUS,))


@pytest.mark.parametrize("where", ["address", "tcp"])
def test_stream_max_length(where: str) -> None:
    """What is over StreamMaxLength is not scanned, and clamd is heard to say so."""
    with ClamdServer(StreamMaxLength="2M") as clamd:
        server = getattr(clamd, where)
        for size in (3 << 20, 20 << 20):
            with pytest.raises(Unscanned, match="larger than StreamMaxLength of clamd"):
                scan(server, Message(b"x" * size))
        assert scan(server, Message(b"x" * (1 << 20) + EICAR)) == (VIRUS,)


def test_limits_within_clamd() -> None:
    """With `AlertExceedsMax yes` what is over another limit of clamd's is not scanned either.

    MaxFileSize must not be below MaxScanSize: clamd says nothing of a member that is over it.
    """
    large = Message(b"x" * (4 << 20))
    bomb = Message(attached(zipped(bytes(4 << 20), zipfile.ZIP_DEFLATED), "base64"))
    with ClamdServer(MaxFileSize="3M", MaxScanSize="3M") as clamd:
        for mail in (large, bomb):
            with pytest.raises(Unscanned, match=r"Heuristics\.Limits\.Exceeded"):
                scan(clamd.address, mail)


def test_frozen(clamd: ClamdServer) -> None:
    """A daemon that stands still gives no verdict within the time; one that goes on gives it."""
    mail = Message(dressed(EICAR)["base64"])
    clamd.freeze()
    try:
        for server in (clamd.address, clamd.tcp):
            with pytest.raises(Unscanned, match="timed out"):
                scan(server, mail, seconds=0.3)
    finally:
        clamd.thaw()
    assert scan(clamd.address, mail) == (VIRUS,)


def test_killed() -> None:
    """A daemon that was killed gives no verdict; when it is there again it gives the right one."""
    mail = Message(dressed(EICAR)["base64"])
    with ClamdServer() as clamd, ClamdServer() as other:
        both = Clamd([clamd.address, other.address])
        clamd.stop()
        for server in (clamd.address, clamd.tcp):
            with pytest.raises(Unscanned, match="refused"):
                scan(server, mail)
        assert both.scan(mail, Envelope(), PATIENCE).viruses == (VIRUS,)
        clamd.start()
        assert scan(clamd.address, mail) == (VIRUS,)


@pytest.mark.parametrize("where", ["address", "tcp"])
def test_crowd(where: str) -> None:
    """Of 200 scans at once by a daemon with a short queue, each is right or none (A10)."""
    evil, good = Message(dressed(EICAR)["zip"]), Message(dressed(EICAR[::-1])["zip"])

    def verdict(n: int) -> tuple[bool, object]:
        try:
            return bool(n % 2), scan(server, evil if n % 2 else good)
        except Unscanned:
            return bool(n % 2), None

    with ClamdServer(**FULL) as clamd, ThreadPoolExecutor(200) as pool:
        server = getattr(clamd, where)
        seen = Counter(pool.map(verdict, range(200)))
    assert not seen.keys() - {(True, (VIRUS,)), (False, ()), (True, None), (False, None)}
    assert seen[True, (VIRUS,)]
    assert seen[False, ()]
