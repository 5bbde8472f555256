"""Receipts, read as any mail program reads them."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.envelope import Envelope
from mdaflow.mail.receipt import MAX_HEAD, Relay, Wishes, compose, without_success

ENVELOPE = Envelope(
    "ann@example.com",
    "bob@example.org",
    envid="QQ+314=9",
    orcpt="rfc822;sales+2Bx@example.org",
    received=1762003500.0,
    notify=("SUCCESS",),
)
HEAD = b"Received: by a\n\tfor b\nSubject: hello\nMessage-ID: <1@x>\n"
RELAY = Relay("127.0.0.1", "250 2.0.0 Ok: queued as 4XYZ", False, ("carl@x.org",))


def written(
    envelope: Envelope = ENVELOPE, head: bytes = HEAD, action: str = "delivered", **more: Any
) -> bytes:
    about = {"hostname": "mx.example.org", "date": 1762003501.0, "message_id": "<r.1@mx>", **more}
    return compose(envelope, head, action, **about)


def read(raw: bytes) -> tuple[EmailMessage, list[EmailMessage]]:
    """A receipt and its parts, in which nothing is wrong."""
    mail = message_from_bytes(raw, policy=default)
    assert isinstance(mail, EmailMessage)
    parts = [part for part in mail.iter_parts() if isinstance(part, EmailMessage)]
    assert [part.defects for part in (mail, *mail.walk())] == [[]] * (1 + len(list(mail.walk())))
    return mail, parts


def status(part: EmailMessage) -> list[dict[str, str]]:
    """The groups of fields of a message/delivery-status."""
    groups = part.get_payload()
    assert isinstance(groups, list)
    return [dict(group.items()) for group in groups if isinstance(group, Message)]


def test_every_field() -> None:
    """All that RFC 3461 section 6 and RFC 3464 section 2 ask for is there, and nothing else."""
    mail, (text, report, head) = read(written())
    assert {name: str(value) for name, value in mail.items()} == {
        "From": "Mail Delivery System <MAILER-DAEMON@mx.example.org>",
        "To": "ann@example.com",
        "Subject": "Your message was delivered",
        "Date": "Sat, 01 Nov 2025 13:25:01 +0000",
        "Message-ID": "<r.1@mx>",
        "Auto-Submitted": "auto-replied (delivery status)",
        "MIME-Version": "1.0",
        "Content-Type": ('multipart/report; report-type="delivery-status"; boundary="=_mdaflow"'),
    }
    assert text.get_content_type() == "text/plain"
    assert "was delivered to\n\n    <bob@example.org>\n" in text.get_content()
    assert report.get_content_type() == "message/delivery-status"
    assert status(report) == [
        {
            "Reporting-MTA": "dns; mx.example.org",
            "Original-Envelope-Id": "QQ+314=9",
            "Arrival-Date": "Sat, 1 Nov 2025 13:25:00 +0000",
        },
        {
            "Original-Recipient": "rfc822; sales+x@example.org",
            "Final-Recipient": "rfc822; bob@example.org",
            "Action": "delivered",
            "Status": "2.0.0",
        },
    ]
    assert head.get_content_type() == "text/rfc822-headers"
    assert head.get_content().encode() == HEAD


def test_least() -> None:
    """What was not said is not told (RFC 3461 section 6.3)."""
    _, (_, report) = read(written(Envelope("ann@example.com", "bob@example.org"), b""))
    assert [list(group) for group in status(report)] == [
        ["Reporting-MTA"],
        ["Final-Recipient", "Action", "Status"],
    ]


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]"), ("mx.example.org", "mx.example.org")],
)
def test_relayed(host: str, name: str) -> None:
    """A relay is named with what it said (RFC 3461 section 6.3)."""
    _, (_, report, _) = read(written(action="relayed", relay=RELAY._replace(host=host)))
    about = status(report)[1]
    assert about["Action"] == "relayed"
    assert about["Remote-MTA"] == f"dns; {name}"
    assert about["Diagnostic-Code"] == "smtp; 250 2.0.0 Ok: queued as 4XYZ"


def test_targets_are_not_told() -> None:
    """Whom an address stands for stays here."""
    for action in ("expanded", "relayed", "delivered"):
        assert b"carl" not in written(action=action, relay=RELAY)


def test_local_name() -> None:
    """A name that is no domain is not said to be one (RFC 3461 section 6.3)."""
    _, (_, report, _) = read(written(hostname="mail"))
    assert status(report)[0]["Reporting-MTA"] == "x-local-hostname; mail"


@pytest.mark.parametrize(
    ("orcpt", "told"),
    [
        ("rfc822;a+2Bb@x", "rfc822; a+b@x"),
        ("rfc822;+C3+BC@x", "rfc822; +C3+BC@x"),
        ("utf-8;jürgen@x", r"utf-8; j\x{FC}rgen@x"),
        (r"UTF-8;j\x{FC}rgen@x", r"UTF-8; j\x{FC}rgen@x"),
        ("x400;/C+3Dde/S+3Dm+20n", "x400; /C=de/S=m n"),
    ],
)
def test_original(orcpt: str, told: str) -> None:
    """The original recipient is decoded where that is ASCII."""
    _, (_, report, _) = read(written(Envelope("a@b", "c@d", orcpt=orcpt)))
    assert status(report)[1]["Original-Recipient"] == told


def test_beyond_ascii() -> None:
    """A recipient beyond ASCII has the type utf-8, the text for people shows it as it is."""
    raw = written(Envelope("änn@example.com", "jürgen@bücher.example"))
    mail, (text, report, _) = read(raw)
    assert status(report)[1]["Final-Recipient"] == r"utf-8; j\x{FC}rgen@b\x{FC}cher.example"
    assert "<jürgen@bücher.example>" in text.get_content()
    assert str(mail["To"]) == "änn@example.com"
    assert raw.split(b"\n\n", 1)[1].isascii()


@pytest.mark.parametrize(
    "head",
    [
        b"Subject: caf\xc3\xa9\nX: \xff\n",
        b"X-Long: " + b"x" * 2000 + b"\n",
        b"X: a\0b\x7f\n",
        b"--=_mdaflow: x\nX: y\n",
        b"--=_mdaflow--:\nX: y \n",
    ],
)
def test_header_comes_back(head: bytes) -> None:
    """A header that is not plain text comes back whole, and as lines that any MTA takes."""
    raw = written(head=head)
    _, (_, _, part) = read(raw)
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert part.get_payload(decode=True) == head
    assert max(map(len, raw.split(b"\n"))) < 200


@pytest.mark.parametrize("line", [b"X: y\n", b"X" * 100_000])
def test_size(line: bytes) -> None:
    """At most 16 KiB come back, in whole lines where there are lines."""
    _, (_, _, part) = read(written(head=line * 20_000))
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert MAX_HEAD - len(b"X: y\n") <= len(payload) <= MAX_HEAD + 1
    assert payload.endswith(b"\n")


@pytest.mark.parametrize(
    ("envelope", "more"),
    [
        (Envelope("", "bob@example.org"), {}),
        (Envelope("ann@x\nBcc: eve@x", "bob@example.org"), {}),
        (ENVELOPE, {"hostname": "mx\nBcc: eve@x"}),
        (ENVELOPE, {"message_id": "<1@x>\nBcc: eve@x"}),
    ],
)
def test_refused(envelope: Envelope, more: dict[str, Any]) -> None:
    """There is no receipt to the null sender, nor with what is no address and no id."""
    with pytest.raises(ValueError, match=r"^not a"):
        written(envelope, **more)


WILD = st.text(st.sampled_from("a@;+\\{}=.x\n\r\0 :-\u2028\u202eü\ud800\U0001f600"), max_size=30)


@given(
    st.builds(Envelope, st.just("ann@x.org"), WILD, envid=WILD, orcpt=WILD),
    st.lists(st.sampled_from([b"\n", b"\r", b"--=_mdaflow", b"--\n", b": a", b"\xff", b"\0"])).map(
        b"".join
    ),
    st.sampled_from(["delivered", "relayed", "expanded"]),
    WILD,
)
def test_any_strings(envelope: Envelope, head: bytes, action: str, answer: str) -> None:
    """Any strings and any header make a well-formed receipt with the lines that are ours."""
    raw = written(envelope, head, action, relay=RELAY._replace(answer=answer, host=answer))
    mail, (text, report, *rest) = read(raw)
    assert not re.search(rb"[^\t\n -~]", raw)
    assert len(mail.keys()) == 8
    about, recipient = status(report)
    assert set(about) <= {"Reporting-MTA", "Original-Envelope-Id"}
    assert [*recipient][-(5 if action == "relayed" else 3) :][:3] == [
        "Final-Recipient", "Action", "Status",
    ]  # fmt: skip
    assert recipient["Action"] == action
    assert text.get_content().count("\n") <= 9
    expected = head.replace(b"\r", b" ").removesuffix(b"\n") + b"\n"
    assert [part.get_payload(decode=True) for part in rest] == ([expected] if head else [])


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ((), ()),
        (("NEVER",), ("NEVER",)),
        (("SUCCESS",), ("NEVER",)),
        (("FAILURE", "SUCCESS", "DELAY"), ("FAILURE", "DELAY")),
    ],
)
def test_without_success(asked: tuple[str, ...], left: tuple[str, ...]) -> None:
    """What is left of the wishes never asks for more than the sender did."""
    assert without_success(asked) == left


def test_wishes() -> None:
    """Wishes are parameters, in ASCII; none are no parameters."""
    wishes = Wishes("HDRS", "QQ+ 1", ("SUCCESS", "DELAY"), "utf-8;jü+2B@x")
    assert wishes.of_mail == " RET=HDRS ENVID=QQ+2B+201"
    assert wishes.of_rcpt == r" NOTIFY=SUCCESS,DELAY ORCPT=utf-8;j\x{FC}+2B@x"
    assert Wishes().of_mail == Wishes().of_rcpt == ""
