"""Letters of ours: whatever the strings are, they stay where they were put."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.letter import compose, message_ids
from mdaflow.mail.message import Message

LETTER: dict[str, Any] = {
    "sender": "bob@example.org",
    "recipient": "ann@example.com",
    "subject": "Away",
    "text": "Back on the 5th.",
    "date": 1762003500.0,
    "message_id": "<1@mx.example.org>",
}
NAMES = [b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type"]
NAMES += [b"content-transfer-encoding"]


def write(**changes: Any) -> Message:
    return Message(compose(**(LETTER | changes)))


def read(message: Message) -> EmailMessage:
    """The letter as another program reads it."""
    found = email.message_from_bytes(message.raw, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def test_letter() -> None:
    """A plain letter, byte by byte."""
    assert write().raw.decode() == (
        "From: bob@example.org\n"
        "To: ann@example.com\n"
        "Subject: Away\n"
        "Date: Sat, 1 Nov 2025 13:25:00 +0000\n"
        "Message-ID: <1@mx.example.org>\n"
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: quoted-printable\n"
        "\n"
        "Back on the 5th.\n"
    )


def test_text_beyond_ascii() -> None:
    """Subject, name and text in any script are read back, and the wire is ASCII."""
    text = "Zurück am 5.\n\n  eingerückt \n.\nFrom mir\n" + "lang " * 100 + "\n日本語\n"
    message = write(subject="Größe 日本語 " * 8, text=text, sender='"Jürgen, M." <bob@example.org>')
    assert message.raw.isascii()
    assert max(map(len, message.raw.split(b"\n"))) <= 78
    found = read(message)
    assert found["Subject"] == ("Größe 日本語 " * 8).strip()
    assert found.get_content() == text
    (sender,) = found["From"].addresses
    assert (sender.display_name, sender.addr_spec) == ("Jürgen, M.", "bob@example.org")


def test_address_beyond_ascii() -> None:
    """An address that is not ASCII stays as it is (RFC 6532)."""
    message = write(recipient="jürgen@bücher.example")
    assert message.addresses("To")[0].address == "jürgen@bücher.example"


@pytest.mark.parametrize("address", ['"a b"@x.org', "a@[IPv6:::1]", "=?utf-8?q?root?=@x.org"])
def test_strange_address(address: str) -> None:
    """A strange but correct address is written as it is."""
    assert write(recipient=address).header("To", raw=True) == [address]


@pytest.mark.parametrize("field", ["sender", "recipient"])
@pytest.mark.parametrize(
    "address",
    [
        "",
        "<>",
        "bob",
        "a@b\nBcc: c@d",
        "a@b, c@d",
        "a@b <c",
        "x <a@b>\n",
        "<a@b> <c@d>>",
        "\ud800@b",
    ],
)
def test_bad_address(field: str, address: str) -> None:
    """What is no address is refused."""
    with pytest.raises(ValueError, match="not an address"):
        write(**{field: address})


@pytest.mark.parametrize("ids", [["x"], ["<a@b>\nBcc: c@d"], ["<a b>"], ["<" + "a" * 400 + ">"]])
def test_bad_message_id(ids: list[str]) -> None:
    """What is no message id is refused."""
    with pytest.raises(ValueError, match="message id"):
        write(references=ids)
    with pytest.raises(ValueError, match="message id"):
        write(message_id=ids[0])


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\n", "Ü"])
def test_bad_field_name(name: str) -> None:
    """What is no field name is refused."""
    with pytest.raises(ValueError, match="field name"):
        write(fields={name: "x"})


def test_thread() -> None:
    """The last reference is the one that is answered; only so many are kept."""
    ids = [f"<{n}@x>" for n in range(30)]
    message = write(references=ids)
    assert message.header("In-Reply-To") == ["<29@x>"]
    assert message.header("References") == [" ".join(ids[-10:])]


def test_message_ids() -> None:
    """Message ids are found in whatever is between them."""
    assert message_ids(" <a@b>\t<c@d>,junk <e f> <<g@h>> <\n>") == ["<a@b>", "<c@d>", "<g@h>"]


def test_encoded_word_is_text() -> None:
    """What looks like an encoded word is a text that looks like one."""
    assert read(write(subject="=?utf-8?q?a?= b"))["Subject"] == "=?utf-8?q?a?= b"


def test_long_texts() -> None:
    """A field and a text are cut off at a bound."""
    message = write(subject="x" * 100_000, text="y" * 1_000_000, sender=f"{'n' * 9999} <a@b.c>")
    assert message.size < 100_000
    assert max(map(len, message.raw.split(b"\n"))) < 998


ANYTHING = st.text(st.characters() | st.sampled_from("\r\n\0\x0b\x85\u2028:=?<>\ud800"))


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_no_injection(subject: str, text: str, value: str, name: str) -> None:
    """Whatever the strings, the letter has its fields, each once, and a body of ASCII."""
    name = name.replace("<", "").replace(">", "")
    sender = f"{name} <bob@example.org>"
    message = write(subject=subject, text=text, fields={"X-A": value}, sender=sender)
    assert sorted(message.fields) == sorted([*NAMES, b"x-a"])
    assert all(len(values) == 1 for values in message.fields.values())
    assert message.raw.isascii()
    assert b"\r" not in message.raw
    assert b"\0" not in message.raw
    assert [a.address for a in message.addresses("From")] == ["bob@example.org"]
    assert message.raw.endswith(b"\n")
