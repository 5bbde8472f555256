"""The LMTP server, over real sockets: what a text dialog cannot show."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import threading

import pytest
from lmtpd import Client, Running, running, until

from mdaflow.errors import Status
from mdaflow.mail.envelope import Client as Origin
from mdaflow.serve import door, lmtp, reply, service, spool, wire, worker
from mdaflow.serve.courier import Crew
from mdaflow.serve.data import DataReader

RECIPIENTS = ("a@example.org", "b@example.org", "c@example.org")


def test_long_line() -> None:
    """A line over 4 KiB is refused once, and the next line is a command again."""
    with running() as server, server.client() as client:
        client.hello()
        for length in (wire.MAX_LINE - 1, wire.MAX_LINE, 3 * wire.MAX_LINE, 300_000):
            assert client.say("NOOP" + "x" * (length - 4)) == "500 5.5.2 Line too long"
            assert client.say("NOOP") == "250 2.0.0 Ok"
        assert client.say("NOOP " + "x" * (wire.MAX_LINE - 7)) == "250 2.0.0 Ok"


def test_long_line_split_at_its_end() -> None:
    """The end of a long line is found even between two reads."""
    with running() as server, server.client() as client:
        client.hello()
        client.send(b"x" * 10_000 + b"\r")
        client.send(b"\nNOOP\r\n")
        assert client.reply() == "500 5.5.2 Line too long"
        assert client.reply() == "250 2.0.0 Ok"


def test_long_content_lines() -> None:
    """Lines of any length survive in a message."""
    with running() as server, server.client() as client:
        raw = b"x" * 3_000_000 + b"\r\n\0\x80\xff\r\n"
        assert client.hello().deliver("bob@example.org", raw=raw) == ["250 2.0.0"]
        assert server.courier.delivered[0][1] == raw.replace(b"\r\n", b"\n")


def test_many_messages_in_one_write() -> None:
    """Fifty pipelined transactions are answered in order."""
    with running() as server, server.client() as client:
        client.hello()
        for number in range(50):
            client.send(
                b"MAIL FROM:<>\r\nRCPT TO:<%d@x>\r\nRCPT TO:<full@x>\r\nDATA\r\n%d\r\n.\r\n"
                % (number, number)
            )
        for number in range(50):
            codes = [client.reply()[:3] for _ in range(4)]
            assert codes == ["250", "250", "250", "354"]
            assert client.reply().startswith(f"250 2.0.0 <{number}@x> ")
            assert client.reply().startswith("451 4.3.0 <full@x> ")
        assert [body for _, body in server.courier.delivered] == [b"%d\n" % n for n in range(50)]


def test_envelope() -> None:
    """The courier is told sender, recipient, client, queue id, peer and time; XFORWARD counts
    for one transaction."""
    with running() as server, server.client() as client:
        client.hello()
        client.say("XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 HELO=a+2Bb IDENT=4XyZ PROTO=ESMTP")
        client.deliver("bob@example.org")
        client.deliver("bob@example.org")
        (first, _), (second, _) = server.courier.delivered
        assert (first.sender, first.recipient) == ("alice@example.com", "bob@example.org")
        assert (first.client, first.queue_id) == (Origin("192.0.2.7", "", "a+b"), "4XyZ")
        assert (first.peer, first.protocol, first.original) == ("client.example", "LMTP", "")
        assert (second.client, second.queue_id) == (Origin(), "")
        assert second.received >= first.received > 1e9


def test_bad_xforward_changes_nothing() -> None:
    """Of an XFORWARD with one bad attribute none is taken, and RSET forgets the good ones."""
    with running() as server, server.client() as client:
        client.hello()
        assert client.say("XFORWARD IDENT=evil ADDR=nowhere").startswith("501 5.5.4")
        client.deliver("bob@example.org")
        client.say("XFORWARD IDENT=old")
        client.say("RSET")
        client.deliver("bob@example.org")
        assert [envelope.queue_id for envelope, _ in server.courier.delivered] == ["", ""]


def test_unknown_recipient_is_asked_again() -> None:
    """A refused recipient leaves the others of the transaction alone."""
    with running() as server, server.client() as client:
        client.hello().say("MAIL FROM:<>")
        assert client.say("RCPT TO:<unknown@x>") == "550 5.1.1 No such user here"
        assert client.say("RCPT TO:<bob@x>") == "250 2.1.5 Recipient ok"
        client.say("DATA")
        client.send(b".\r\n")
        assert client.codes(1) == ["250 2.0.0"]
        assert server.courier.recipients() == ["bob@x"]


def test_deadline() -> None:
    """Who hangs gets 451 in its place, the others 250, and nothing is committed later (P8)."""
    with running(deadline=0.3) as server, server.client() as client:
        codes = client.hello().deliver("a@x", "slow@x", "b@x", "hung@x")
        assert codes == ["250 2.0.0", "451 4.3.0", "250 2.0.0", "451 4.3.0"]
        server.courier.go.set()
        until(lambda: not server.courier.hanging)
        assert client.deliver("c@x") == ["250 2.0.0"]
    assert "slow@x" not in server.courier.recipients()


def test_half_close() -> None:
    """A client that closes its half in mid delivery gets its mail delivered, and its replies."""
    with running() as server, server.client() as client:
        client.hello().start("bob@x", "slow@x")
        until(lambda: bool(server.courier.hanging))
        client.sock.shutdown(socket.SHUT_WR)
        server.courier.go.set()
        assert [client.reply()[:12] for _ in range(2)] == ["250 2.0.0 <b", "250 2.0.0 <s"]
        assert client.line() == ""
        assert sorted(server.courier.recipients()) == ["bob@x", "slow@x"]


@pytest.mark.parametrize("abrupt", [False, True])
def test_client_goes_away(abrupt: bool) -> None:
    """A client that goes away behind the dot stops no delivery."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with running(sock, threads=1) as server:
            with Client(address) as client:
                client.hello().start("slow@x", "bob@x")
                until(lambda: bool(server.courier.hanging))
                if abrupt:  # RST
                    client.sock.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            with Client(address) as other:
                other.hello()
            server.courier.go.set()
            until(lambda: len(server.courier.delivered) == 2)
            with Client(address) as other:
                assert other.hello().deliver("carl@x") == ["250 2.0.0"]


@pytest.mark.parametrize("said", [b"QUIT\r\n", b"RSET\r\n", b"MAIL FROM:<b@x>\r\n"])
@pytest.mark.parametrize("dies", [True, False])
def test_said_with_the_message(said: bytes, dies: bool) -> None:
    """What came in one go with the message, as Postfix sends QUIT, shows nothing: who died before
    our replies has not had them; who is there has."""
    with running() as server:
        with server.client() as client:
            client.hello().start("slow@x", raw=b"hello\r\n")
            until(lambda: bool(server.courier.hanging))
            client.send(said)
            if not dies:
                server.courier.go.set()
                assert client.line().startswith("250 2.0.0 <slow@x>")
                assert client.say("NOOP")
        server.courier.go.set()
        until(lambda: server.courier.recipients() == ["slow@x"])
        if dies:
            until(lambda: server.courier.unknown == ["slow@x"])
    assert server.courier.unknown == (["slow@x"] if dies else [])


def test_silence_after_the_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing for long after the replies may be frozen: what was delivered is told to the
    courier, and its message is let go."""
    monkeypatch.setattr(lmtp, "HOLD", 0.0)
    monkeypatch.setattr(worker, "BEAT", 0.05)
    with running() as server, server.client() as client:
        client.hello().deliver("carl@x")
        client.start("bob@x")
        assert client.line().startswith("250 ")
        until(lambda: "bob@x" in server.courier.unknown)
        assert client.deliver("dave@x") == ["250 2.0.0"]


def test_one_copy_by_two_ways() -> None:
    """Who is named by two aliases gets one message: by the first alias, with all that was asked."""
    with running() as server, server.client() as client:
        client.hello().say("MAIL FROM:<a@x>")
        for way in (
            "NOTIFY=NEVER ORCPT=rfc822;bob@x",
            "NOTIFY=SUCCESS ORCPT=rfc822;sales@x",
            "NOTIFY=FAILURE ORCPT=rfc822;team@x",
        ):
            client.say(f"RCPT TO:<bob@x> {way}")
        client.say("RCPT TO:<carl@x> NOTIFY=NEVER")
        client.say("DATA")
        client.send(b"hello\r\n.\r\n")
        assert client.codes(4) == ["250 2.0.0"] * 4
        envelopes = {envelope.recipient: envelope for envelope, _ in server.courier.delivered}
        assert len(server.courier.delivered) == 2
        assert envelopes["bob@x"].original == "sales@x"
        assert envelopes["bob@x"].orcpt == "rfc822;sales@x"
        assert envelopes["bob@x"].notify == ("FAILURE", "SUCCESS")
        assert envelopes["carl@x"].notify == ("NEVER",)


@pytest.mark.parametrize("ending", ["", "QUIT", "RSET", "nonsense"])
def test_no_word_after_the_replies(ending: str) -> None:
    """Who goes without a word after the replies may not have had them: what was delivered then
    is told to the courier (P10)."""
    with running() as server:
        with server.client() as client:
            client.hello().start("bob@x", "locked@x", "carl@x", "bob@x")
            assert [client.line()[:3] for _ in range(4)] == ["250", "451", "250", "250"]
            if ending:
                client.say(ending)
        with server.client() as client:
            client.hello().deliver("dave@x")
        if ending:
            assert server.courier.unknown == []
        else:
            until(lambda: len(server.courier.unknown) == 2)
            assert sorted(server.courier.unknown) == ["bob@x", "carl@x"]


def test_eof_before_the_dot() -> None:
    """A message without its end is no message."""
    with running() as server:
        with server.client() as client:
            client.hello().say("MAIL FROM:<>")
            client.say("RCPT TO:<bob@x>")
            client.say("DATA")
            client.send(b"half a message\r\n.")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.line() == ""
        assert server.courier.delivered == []


@pytest.mark.parametrize("said", ["", "NOO", "MAIL FROM:<>\r\nRCPT TO:<bob@x>\r\nDATA\r\nhello"])
def test_idle(said: str) -> None:
    """Who says nothing is told so and dropped, in a command, between commands and in DATA."""
    with running(idle=0.2) as server, server.client() as client:
        client.hello()
        client.send(said.encode())
        lines = []
        while line := client.line():
            lines.append(line)
        assert lines[-1] == "421 4.4.2 Idle for too long"
        assert server.courier.delivered == []


def test_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that trickles for ever is cut off though the client is never idle."""
    monkeypatch.setattr(lmtp, "DATA_IDLES", 1)
    with running(idle=0.5) as server, server.client() as client:
        client.hello().say("MAIL FROM:<>")
        client.say("RCPT TO:<bob@x>")
        client.say("DATA")
        end = threading.Event()

        def trickle() -> None:
            while not end.wait(0.05):
                client.send(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert client.line() == "421 4.4.2 Idle for too long"
        finally:
            end.set()
            thread.join(10)


def test_no_idling_in_delivery() -> None:
    """The idle time does not run while we work."""
    with running(idle=0.2) as server, server.client() as client:
        client.hello().start("slow@x")
        until(lambda: bool(server.courier.hanging))
        threading.Timer(0.5, server.courier.go.set).start()
        assert client.line().startswith("250 2.0.0 <slow@x>")


def test_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no replies is dropped, and others are served meanwhile."""
    monkeypatch.setattr(wire, "LINGER", 0.1)
    with running(idle=0.3) as server, server.client() as deaf:
        deaf.hello()
        deaf.sock.setblocking(False)
        shout(deaf)
        with server.client() as client:
            assert client.hello().deliver("bob@x") == ["250 2.0.0"]
        until(lambda: shout(deaf) in (errno.EPIPE, errno.ECONNRESET))


def shout(client: Client) -> int:
    """Send until nothing more goes through; the reason."""
    while True:
        try:
            client.sock.send(b"NOOP\r\n" * 1000)
        except OSError as error:
            return error.errno or 0


def test_too_many_connections() -> None:
    """Connections over the limit get 421; a place that becomes free is given away."""
    with (
        running(max_connections=2) as server,
        server.client() as first,
        server.client() as second,
    ):
        first.hello()
        second.hello()
        with server.client() as third:
            assert third.line() == "421 4.3.2 Too many connections, try again later"
            assert third.line() == ""
        assert first.say("QUIT").startswith("221 2.0.0")
        assert first.line() == ""
        with server.client() as fourth:
            fourth.hello()


def test_too_many_of_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address that is not ours cannot take all connections."""
    monkeypatch.setattr(service, "MAX_PER_ADDRESS", 1)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with running(sock, trusted=()), Client(address) as first, Client(address) as second:
            first.hello()
            assert second.line().startswith("421 4.3.2 ")


def test_xforward_of_a_stranger() -> None:
    """XFORWARD is neither offered to who is not trusted nor taken."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with running(sock, trusted=("192.0.2.0/24",)), Client(address) as client:
            client.line()
            assert client.say("LHLO x") == "250 DSN"
            assert client.say("XFORWARD NAME=x") == "550 5.7.1 XFORWARD is not for you"


def test_xforward_over_loopback() -> None:
    """A client on the loopback interface may say XFORWARD."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with running(sock), Client(address) as client:
            assert client.hello().say("XFORWARD NAME=x") == "250 2.0.0 Ok"


def broken(*_: object) -> None:
    raise MemoryError("no detail of this must be seen")


def test_exception_behind_the_dot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug behind the dot is 451 for each recipient, and a traceback in the log."""
    with running() as server, server.client() as client:
        client.hello()
        monkeypatch.setattr(lmtp, "Message", broken)
        assert client.deliver(*RECIPIENTS) == ["451 4.3.0"] * 3
        assert "no detail" in caplog.text
        monkeypatch.undo()
        assert client.deliver(*RECIPIENTS) == ["250 2.0.0"] * 3


@pytest.mark.parametrize(("target", "name"), [(DataReader, "feed"), (Crew, "known")])
def test_exception_elsewhere(monkeypatch: pytest.MonkeyPatch, target: type, name: str) -> None:
    """A bug that may have lost our place in the stream is 421, and the end."""
    with running() as server, server.client() as client:
        client.hello()
        monkeypatch.setattr(target, name, broken)
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@x>\r\nDATA\r\nhello\r\n.\r\n")
        lines = []
        while line := client.line():
            lines.append(line)
        assert lines[-1] == "421 4.3.0 Internal error, try again later"


def test_drain() -> None:
    """A stop lets running transactions end and dismisses the others; nobody new is served."""
    with running() as server:
        with server.client() as idle, server.client() as busy, server.client() as opened:
            idle.hello().deliver("carl@x")
            opened.hello().say("MAIL FROM:<>")
            busy.hello().start("slow@x")
            until(lambda: bool(server.courier.hanging))
            server.stop()
            assert idle.line() == "421 4.3.2 Shutting down, try again later"
            assert idle.line() == ""
            with pytest.raises(ConnectionRefusedError):
                server.client()
            assert opened.say("RCPT TO:<bob@x>").startswith("250 ")
            assert opened.say("DATA").startswith("354 ")
            opened.send(b"hello\r\n.\r\nMAIL FROM:<>\r\n")
            assert opened.line().startswith("250 2.0.0 <bob@x>")
            assert opened.line().startswith("421 4.3.2 ")
            server.courier.go.set()
            assert busy.line().startswith("250 2.0.0 <slow@x>")
            assert busy.line().startswith("421 4.3.2 ")
            assert busy.line() == ""
        server.ended()
        assert sorted(server.courier.recipients()) == ["bob@x", "carl@x", "slow@x"]


def test_drain_of_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came just before a stop may deliver one message."""
    monkeypatch.setattr("mdaflow.serve.worker.BEGIN", 20.0)
    with running() as server:
        with server.client() as served, server.client() as new:
            served.hello().deliver("bob@x")
            new.hello()
            server.stop()
            assert served.line().startswith("421 4.3.2 ")
            new.start("bob@x")
            assert new.line().startswith("250 2.0.0 <bob@x>")
            assert new.line().startswith("421 4.3.2 ")
            assert new.line() == ""
        server.ended()


def test_drain_of_a_newcomer_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came just before a stop and does not begin is dismissed after a moment."""
    monkeypatch.setattr("mdaflow.serve.worker.BEGIN", 0.1)
    with running() as server:
        with server.client() as new:
            new.hello()
            server.stop()
            assert new.line().startswith("421 4.3.2 ")
            assert new.line() == ""
        server.ended()


def test_drain_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end in time is answered 451 or 421, and not committed."""
    monkeypatch.setattr("mdaflow.serve.worker.FINISH", 0.2)
    with running() as server:
        with server.client() as hanging, server.client() as opened:
            opened.hello().say("MAIL FROM:<>")
            hanging.hello().start("slow@x", "bob@x")
            until(lambda: bool(server.courier.hanging))
            server.stop()
            assert hanging.line().startswith("451 4.3.0 <slow@x>")
            assert hanging.line().startswith("250 2.0.0 <bob@x>")
            assert hanging.line().startswith("421 4.3.2 ")
            assert opened.line().startswith("421 4.3.2 ")
            server.courier.go.set()
        server.ended()
        assert server.courier.recipients() == ["bob@x"]


def test_room(caplog: pytest.LogCaptureFixture) -> None:
    """What would leave less than the reserve is put off before it is sent (P44), and logged."""
    caplog.set_level(logging.WARNING, "mdaflow")
    free = os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize
    with running(reserve=free // 2, max_size=1 << 50) as server, server.client() as client:
        client.hello()
        assert client.say("MAIL FROM:<> SIZE=1000").startswith("250 ")
        client.say("RSET")
        wanted = "452 4.3.1 Insufficient storage, try again later"
        assert client.say(f"MAIL FROM:<> SIZE={free}") == wanted
        assert client.say("RCPT TO:<bob@x>").startswith("503 ")
    with running(reserve=2 * free) as server, server.client() as client:
        assert client.hello().say("XFORWARD IDENT=4XyZ").startswith("250 ")
        assert client.say("MAIL FROM:<a@x>") == wanted
    assert "4XyZ: refused at MAIL: FROM:<a@x>: lmtp.spool: /tmp: " in caplog.text


def test_spool_full(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full in the middle of a message is 452 for each recipient, each with a line
    in the log, and the next message comes."""
    caplog.set_level(logging.INFO, "mdaflow")
    real = spool._write

    def fill(fd: int, block: bytes) -> None:
        if len(block) < spool.THRESHOLD // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, block)

    monkeypatch.setattr(spool, "_write", fill)
    with running() as server, server.client() as client:
        raw = b"x" * 1_000_000 + b"\r\n"
        assert client.hello().deliver(*RECIPIENTS, raw=raw) == ["452 4.3.1"] * 3
        assert client.deliver(*RECIPIENTS) == ["250 2.0.0"] * 3
        assert len(server.courier.delivered) == 3
    told = [vars(record).get("fields", {}) for record in caplog.records]
    lines = [(f["to"], f["status"], f["reason"]) for f in told if f]
    cause = "lmtp.spool: No space left on device"
    assert lines == [(recipient, "deferred", cause) for recipient in RECIPIENTS]


def test_no_descriptors_for_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When nobody can be let in, the door stays shut for a while, and then opens again."""
    monkeypatch.setattr(door, "SHUT", 0.2)
    real, times = socket.socket.accept, [3]

    def accept(sock: socket.socket) -> tuple[socket.socket, object]:
        if times[0]:
            times[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real(sock)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with running() as server, server.client() as client:
        assert client.hello().deliver("bob@x") == ["250 2.0.0"]
    told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert told == ["nobody is let in for 0.2 s: Too many open files"] * 3


def test_no_descriptor_is_left() -> None:
    """A hundred connections, ended in all ways, leave no descriptor behind."""
    with running() as server:
        use(server)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(25):
            use(server)
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def use(server: Running) -> None:
    with server.client() as client:
        client.hello().say("QUIT")
    with server.client() as client:
        client.hello().deliver("bob@x")
    with server.client() as client:
        client.hello().say("MAIL FROM:<>")
        client.send(b"RCPT TO:<bob@x>\r\nDATA\r\nhalf")
    with server.client() as client:
        client.line()


def test_reply_lines_are_short() -> None:
    """No reply is longer than 512 bytes with its CRLF, nor cut inside a character."""
    status = Status(250, "2.0.0", "ü" * 600)
    raw = reply.line(status, "ö@example.org", utf8=True)
    assert 508 <= len(raw) <= 510
    assert raw.decode().startswith("250 2.0.0 <ö@example.org> üü")
    assert len(reply.line(status)) == 510
    assert reply.line(status).startswith(b"250 2.0.0 \\xfc\\xfc")
