"""STARTTLS (RFC 3207)."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
from lmtpd import Client, running, until
from mastered import mastered

from mdaflow.app.config import Lmtp
from mdaflow.errors import ConfigError
from mdaflow.serve import tls

CERTIFICATE = str(Path(__file__).with_name("mx.pem"))
"""Made for tests: a certificate of mx.example.org, by itself, with its key; valid until 2126."""


def secure(client: Client) -> Client:
    """Begin TLS on a connection that has agreed to it; the certificate is verified."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    client.lines.close()
    client.sock = context.wrap_socket(client.sock, server_hostname="mx.example.org")
    client.lines = client.sock.makefile("rb")
    return client


def test_starttls() -> None:
    """Behind STARTTLS all begins again, large mail comes, and the protocol is LMTPS."""
    raw = b"x" * 3_000_000 + b"\r\n"
    with running(certificate=CERTIFICATE) as server, server.client() as client:
        client.hello()
        client.say("MAIL FROM:<a@x>")
        assert client.say("STARTTLS").startswith("503 ")
        client.say("RSET")
        assert client.say("STARTTLS now").startswith("501 ")
        assert client.say("STARTTLS") == "220 2.0.0 Begin TLS"
        secure(client)
        assert client.say("MAIL FROM:<a@x>") == "503 5.5.1 Say LHLO first"
        client.send(b"LHLO b\r\n")
        said = []
        while (line := client.line())[3:4] == "-":
            said.append(line)
        assert "250-STARTTLS" not in said
        assert client.say("STARTTLS") == "502 5.5.1 No TLS here"
        assert client.deliver("bob@x", raw=raw) == ["250 2.0.0"]
        assert client.say("QUIT").startswith("221 ")
        [(envelope, content)] = server.courier.delivered
        assert (envelope.protocol, envelope.peer) == ("LMTPS", "b")
        assert content == raw.replace(b"\r\n", b"\n")


def test_announced_only_with_a_certificate() -> None:
    """STARTTLS is announced where it can be had."""
    for limits, wanted in (({}, False), ({"certificate": CERTIFICATE}, True)):
        with running(**limits) as server, server.client() as client:
            client.line()
            client.send(b"LHLO a\r\nNOOP\r\n")
            said = []
            while (line := client.line()) != "250 2.0.0 Ok":
                said.append(line)
            assert ("250-STARTTLS" in said) == wanted


def test_injection() -> None:
    """What was sent in the clear behind STARTTLS does not count as said in secret (S09)."""
    with running(certificate=CERTIFICATE) as server, server.client() as client:
        client.hello().send(b"STARTTLS\r\nLHLO b\r\nMAIL FROM:<a@x>\r\n")
        assert client.line() == "421 4.7.0 Nothing may be sent behind STARTTLS"
        assert client.line() == ""


def test_injection_behind_a_jam() -> None:
    """The same while our replies wait for the client: what it says in the clear behind STARTTLS
    has no answer in secret."""
    message = b"MAIL FROM:<>\r\n" + b"RCPT TO:<bob@x>\r\n" * 990 + b"DATA\r\nx\r\n.\r\n"
    with running(certificate=CERTIFICATE) as server, server.client() as client:
        client.hello()
        for count in range(1, 5):  # until the replies fill what the kernel holds of them
            client.send(message + (b"STARTTLS\r\n" if count == 4 else b""))
            until(lambda count=count: len(server.courier.delivered) == count)
        time.sleep(0.2)
        client.send(b"LHLO mitm\r\nMAIL FROM:<evil@x>\r\n")
        while client.line() != "220 2.0.0 Begin TLS":
            pass
        assert client.line() == "421 4.7.0 Nothing may be sent behind STARTTLS"
        assert client.line() == ""


@pytest.mark.parametrize("said", [b"", b"LHLO in the clear\r\n" * 100])
def test_no_handshake(said: bytes) -> None:
    """A handshake that fails is the end of the connection, and leaves nothing behind."""
    with running(certificate=CERTIFICATE, max_connections=1) as server:
        with server.client() as client:
            assert client.hello().say("STARTTLS").startswith("220 ")
            client.send(said)
            client.sock.shutdown(socket.SHUT_WR)
            while client.lines.read(1):
                pass

        def served() -> bool:
            with server.client() as other:
                return other.reply().startswith("220 ")

        until(served)


def test_of_the_master() -> None:
    """The master reads a key that the workers may not; a bad one at a reload leaves the old."""
    with mastered() as server:
        key = server.folder / "key.pem"
        shutil.copy(CERTIFICATE, key)
        key.chmod(0o600)
        server.start(lmtp={"workers": 1, "certificate": str(key)})
        for _ in range(2):
            with Client(server.path) as client:
                assert client.hello().say("STARTTLS").startswith("220 ")
                assert secure(client).say("LHLO b").startswith("250 ")
                assert client.deliver("bob@x") == ["250 2.0.0"]
            key.write_text("no key")
            server.reload()
        assert "lmtp.certificate: " in server.log()
        assert "the new configuration is not used" in server.log()


def test_bad_certificates(tmp_path: Path) -> None:
    """What cannot be used is told by its name, before anybody is served."""
    shutil.copy(__file__, tmp_path / "no.pem")
    bad, none = str(tmp_path / "no.pem"), str(tmp_path / "none.pem")
    for certificate, key, told in (
        (none, "", rf"lmtp\.certificate: {none}: No such file"),
        (CERTIFICATE, none, rf"lmtp\.key: {none}: No such file"),
        (bad, "", rf"lmtp\.certificate: {bad}: no certificate with its key"),
        (CERTIFICATE, bad, rf"lmtp\.certificate: {CERTIFICATE}: no certificate with its key"),
        ("", CERTIFICATE, r"lmtp\.key: without lmtp\.certificate"),
    ):
        with pytest.raises(ConfigError, match=told):
            tls.context(Lmtp(certificate=certificate, key=key))
    assert tls.context(Lmtp()) is None
