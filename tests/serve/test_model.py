"""The LMTP server against a model of RFC 2033 and 5321: any commands, in any order and pieces.

The model knows of a command only what it says and whether it is well formed; what the server
answers, delivers and remembers follows from the state. Commands gather in `_sending` and go
out when a step says so, in segments that the server reads one by one.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lmtpd import Running, running

from mdaflow.serve import lmtp, wire

MAX_SIZE, MAX_RECIPIENTS = 150_000, 5
MAX_USELESS = 15

Delivery = tuple[str, str, tuple[str, ...], bytes]
"""Sender, recipient, NOTIFY, content."""

TOO_MUCH = "421 4.7.0 "
OK, RECIPIENT_OK, SAVED = "250 2.0.0 ", "250 2.1.5 ", "250 2.0.0 "
WRONG_ORDER, TOO_BIG = "503 5.5.1 ", "552 5.3.4 "
BAD_LINE, TOO_MANY = "500 5.5.2 ", "452 4.5.3 "

# What the courier of lmtpd.py says, at RCPT and after DATA.
CHECKED = {"unknown@x": "550 5.1.1 ", "nocheck@x": "451 4.3.0 "}
REFUSED = {
    "full@x": "451 4.3.0 ",
    "locked@x": "451 4.2.0 ",
    "loop@x": "554 5.4.6 ",
    "rejected@x": "550 5.7.1 ",
}
DELIVERED = ["a@x", "b@x", '"q r"@x']

SENDERS = {
    "FROM:<>": "",
    "from:<alice@example.com>": "alice@example.com",
    "FROM: <a@x> SIZE=100 BODY=8BITMIME": "a@x",
    "FROM:<@relay.example:a@x> SMTPUTF8 RET=hdrs ENVID=one": "a@x",
}
BAD_SENDERS = {
    "": "501 5.5.4 ",
    "<a@x>": "501 5.5.4 ",
    "FROM:<a@x> SIZE=many": "501 5.5.4 ",
    "FROM:<a@x> BODY=7BIT BODY=7BIT": "501 5.5.4 ",
    "FROM:<a@x> RET=ALL": "501 5.5.4 ",
    "FROM:<a@x": "553 5.1.7 ",
    "FROM:a@x": "553 5.1.7 ",
    "FROM:<a\x01@x>": "553 5.1.7 ",
    "FROM:<a@x> MAGIC=1": "555 5.5.4 ",
    f"FROM:<a@x> SIZE={MAX_SIZE + 1}": TOO_BIG,
}
BAD_RECIPIENTS = {
    "": "501 5.5.4 ",
    "FROM:<a@x>": "501 5.5.4 ",
    "TO:<a@x> =": "501 5.5.4 ",
    "TO:<a@x> NOTIFY=NEVER,FAILURE": "501 5.5.4 ",
    "TO:<>": "553 5.1.3 ",
    "TO:<a@@x>": "553 5.1.3 ",
    "TO:<a@x> MAGIC=1": "555 5.5.4 ",
}
ALWAYS = {  # the same in every state
    "NOOP": OK,
    "noop with words": OK,
    "VRFY root": "252 2.5.0 ",
    "HELP": "214 2.0.0 ",
    "LHLO": "501 5.5.4 ",
    "LHLO two words": "501 5.5.4 ",
    "RSET now": "501 5.5.4 ",
    "QUIT now": "501 5.5.4 ",
    "DATA now": "501 5.5.4 ",
    "EHLO client.example": "500 5.5.1 ",
    "BDAT 10 LAST": "500 5.5.1 ",
    "": "500 5.5.1 ",
    "MAIL\0FROM:<a@x>": BAD_LINE,
    "NOOP\nQUIT": BAD_LINE,
    "NOOP\rQUIT": BAD_LINE,
    "NOOP".ljust(wire.MAX_LINE - 2, "x"): "500 5.5.1 ",  # the longest that is a line at all
    "NOOP".ljust(wire.MAX_LINE - 1, "x"): BAD_LINE,
    "NOOP".ljust(3 * wire.MAX_LINE, "x"): BAD_LINE,
}
NOTIFY: dict[str, tuple[str, ...]] = {
    "": (),
    " NOTIFY=never": ("NEVER",),
    " ORCPT=rfc822;o@x NOTIFY=SUCCESS,DELAY": ("SUCCESS", "DELAY"),
}
COUNTED = {"500", "501", "502", "503", "504", "555"}
"""Too many of these end the connection."""
USEFUL = {"MAIL", "RCPT", "DATA"}
"""So do too many commands that are not these, up to the next message."""

pieces = st.sampled_from(
    [b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"\n.\n", b"\r.\r", b"\xff", b"QUIT\r\n"]
)
recipients = st.sampled_from([*DELIVERED, *sorted(REFUSED), *sorted(CHECKED)])
contents = st.lists(pieces, max_size=12).map(b"".join) | st.builds(
    lambda piece, size: piece * (size // len(piece)),
    st.sampled_from([b"\r\n", b".", b"\r\n.", b"x" * 72 + b"\r\n"]),
    st.sampled_from([60_000, 65_537, MAX_SIZE, MAX_SIZE + 3]),
)
cuts = st.lists(st.integers(-30, 100), max_size=20) | st.sampled_from(
    [range(200), range(-200, 0), [-4096, 4096, 8192, 65_536]]
)
"""Where segments end, from the beginning or the end of what is sent."""


class Session(RuleBasedStateMachine):
    """Connections to one server, one at a time, and what they should see."""

    server: ClassVar[Running]

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[Delivery] = []
        self.server.courier.delivered.clear()
        self._connect()

    def _connect(self) -> None:
        self.client = self.server.client()
        self.replies = ["220 "]
        self.sending = b""
        self.greeted = self.over = False
        self.errors = self.useless = 0
        self._reset()

    def _reset(self) -> None:
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.notify: dict[str, tuple[str, ...]] = {}
        self.refused = 0

    def _say(self, line: str, reply: str) -> None:
        """Queue a command, and what it should be answered with."""
        self.sending += line.encode() + b"\r\n"
        verb = line.partition(" ")[0].upper()
        idle = verb not in USEFUL
        refused = verb == "RCPT" and reply in (TOO_MANY, *CHECKED.values())
        self.useless += idle and reply != BAD_LINE
        # a client that pipelines cannot know that it has no recipients
        self.errors += reply[:3] in COUNTED and line.upper() != "DATA"
        self.refused += refused
        self.over = (
            self.errors > lmtp.MAX_ERRORS
            or (self.useless > MAX_USELESS and idle and reply != BAD_LINE)
            or self.refused > MAX_RECIPIENTS
        )
        self.replies.append(TOO_MUCH if self.over else reply)

    # --- the commands -----------------------------------------------------------------------

    @precondition(lambda self: not self.over)
    @rule(name=st.sampled_from(["client.example", "[192.0.2.1]", "x"]))
    def lhlo(self, name: str) -> None:
        self._say(f"LHLO {name}", "250 ")
        self.greeted = True
        self._reset()

    @precondition(lambda self: not self.over)
    @rule(argument=st.sampled_from(sorted(SENDERS) + sorted(BAD_SENDERS)))
    def mail(self, argument: str) -> None:
        if not self.greeted or self.sender is not None:
            self._say(f"MAIL {argument}", WRONG_ORDER)
        elif argument in SENDERS:
            self._say(f"MAIL {argument}", "250 2.1.0 ")
            self.sender = SENDERS[argument]
        else:
            self._say(f"mail {argument}", BAD_SENDERS[argument])

    @precondition(lambda self: not self.over)
    @rule(argument=st.sampled_from(sorted(BAD_RECIPIENTS)))
    def bad_rcpt(self, argument: str) -> None:
        reply = WRONG_ORDER if self.sender is None else BAD_RECIPIENTS[argument]
        self._say(f"RCPT {argument}", reply)

    @precondition(lambda self: not self.over)
    @rule(recipient=recipients, parameters=st.sampled_from(sorted(NOTIFY)))
    def rcpt(self, recipient: str, parameters: str) -> None:
        if self.sender is None:
            reply = WRONG_ORDER
        elif len(self.recipients) >= MAX_RECIPIENTS:
            reply = TOO_MANY
        else:
            reply = CHECKED.get(recipient, RECIPIENT_OK)
        self._say(f"RCPT TO:<{recipient}>{parameters}", reply)
        if reply == RECIPIENT_OK:
            self.recipients.append(recipient)
            self.notify.setdefault(recipient, NOTIFY[parameters])

    @precondition(lambda self: not self.over)
    @rule(content=contents)
    def data(self, content: bytes) -> None:
        if not self.recipients:
            self._say("DATA", WRONG_ORDER)
            return
        self._say("DATA", "354 ")
        if content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        self.sending += stuffed + b".\r\n"
        if len(content) > MAX_SIZE:
            self.replies += [f"{TOO_BIG}<{one}> " for one in self.recipients]
        else:
            self.replies += [f"{REFUSED.get(one, SAVED)}<{one}> " for one in self.recipients]
            self.wanted += [
                (self.sender or "", one, notify, content.replace(b"\r\n", b"\n"))
                for one, notify in self.notify.items()
                if one not in REFUSED
            ]
        self._reset()
        self.useless = 0

    @precondition(lambda self: not self.over and self.greeted)
    @rule(to=st.lists(recipients, max_size=MAX_RECIPIENTS + 2), content=contents)
    def transaction(self, to: list[str], content: bytes) -> None:
        """What a sane client does; without it few examples would come to a delivery."""
        self.rset()
        steps = [partial(self.mail, "FROM:<>")]
        steps += [partial(self.rcpt, recipient, "") for recipient in to]
        steps += [partial(self.data, content)]
        for step in steps:
            if not self.over:
                step()

    @precondition(lambda self: not self.over)
    @rule()
    def rset(self) -> None:
        self._say("RSET", OK)
        self._reset()

    @precondition(lambda self: not self.over)
    @rule(line=st.sampled_from(sorted(ALWAYS)))
    def always(self, line: str) -> None:
        self._say(line, ALWAYS[line])

    @precondition(lambda self: not self.over)
    @rule(argument=st.sampled_from(["ADDR=192.0.2.7 IDENT=4x", "ADDR=nowhere"]))
    def xforward(self, argument: str) -> None:
        good = OK if "4x" in argument else "501 5.5.4 "
        self._say(f"XFORWARD {argument}", good if self.sender is None else WRONG_ORDER)

    # --- the ends ---------------------------------------------------------------------------

    @precondition(lambda self: not self.over)
    @rule()
    def quit(self) -> None:
        self._say("QUIT", "221 2.0.0 ")
        self.over = True

    @precondition(lambda self: self.recipients and not self.over)
    @rule(content=contents)
    def leave_in_data(self, content: bytes) -> None:
        self._say("DATA", "354 ")
        self.sending += b"x" + content.replace(b"\r\n.", b"\r\n..")
        self.send([])
        self._hang_up()
        self._connect()

    @precondition(lambda self: self.over)
    @rule(more=st.sampled_from([b"", b"NOOP\r\n", b"MAIL FROM:<>\r\nRCPT"]))
    def again(self, more: bytes) -> None:
        """Nothing that comes behind the end is answered."""
        self.sending += more
        self._hang_up()
        self._connect()

    # --- the wire ---------------------------------------------------------------------------

    @rule(cuts=cuts)
    def send(self, cuts: Iterable[int]) -> None:
        """Send what is queued in pieces, and look at the replies and deliveries so far."""
        size = len(self.sending)
        places = sorted({0, size} | {n % size for n in cuts if -size < n < size})
        for begin, end in pairwise(places):
            self.client.send(self.sending[begin:end])
            taken(self.client.sock)
        self.sending = b""
        for reply in self.replies:
            line = self.client.reply()
            assert line.startswith(reply), (line, reply)
        self.replies = []
        found = [(e.sender, e.recipient, e.notify, raw) for e, raw in self.server.courier.delivered]
        assert sorted(found) == sorted(self.wanted)

    def _hang_up(self) -> None:
        """Nothing is left to come."""
        with self.client:
            self.send([])
            if not self.over:
                self.client.sock.shutdown(socket.SHUT_WR)
            assert self.client.line() == ""

    def teardown(self) -> None:
        try:
            self._hang_up()
        finally:
            self.client.close()


def taken(sock: socket.socket) -> None:
    """Wait until the peer has read all, so that what is sent next is another segment to it."""
    end = time.monotonic() + 10
    while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]:
        assert time.monotonic() < end, "the server reads no more"
        time.sleep(0)


def test_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies, their number and order, and deliveries are those of the model."""
    monkeypatch.setattr(lmtp, "MAX_USELESS", MAX_USELESS)
    monkeypatch.setattr(lmtp, "PAUSE", 0)
    with running(max_size=MAX_SIZE, max_recipients=MAX_RECIPIENTS) as server:
        Session.server = server
        run_state_machine_as_test(
            Session,
            settings=settings(
                max_examples=100,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
