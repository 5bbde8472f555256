"""Letters that we write ourselves: automatic replies and notices (RFC 5322, RFC 2045).

Whatever the strings are, they can neither end a line nor begin a field: controls become
spaces, addresses must be strict paths, message ids must look like ones. Text beyond ASCII
becomes encoded words (RFC 2047), a body quoted-printable UTF-8 without controls, an address stays
UTF-8 as it is (RFC 6532). With HTML a letter has both forms (RFC 2046 section 5.1.4). Other
people's mail is never written here. No I/O.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence

from .path import parse_path
from .trace import date as date_of

MAX_TEXT = 64 << 10
"""Characters of a body, or of its HTML; the rest is cut off."""
MAX_FIELD = 250
"""Characters of a field's text, so that a line of ASCII needs no folding."""
MAX_REFERENCES = 10

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BOUNDARY = "=_mdaflow"  # no line of quoted-printable text can begin so (RFC 2045 section 6.7)
_NAME = re.compile(r"[!-9;-~]{1,70}")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9 ]*")
_ID = re.compile(r"<[!-;=?-~]{1,250}>")


def compose(
    *,
    sender: str,
    recipient: str,
    subject: str,
    text: str,
    date: float,
    message_id: str,
    references: Sequence[str] = (),
    fields: Mapping[str, str] | None = None,
    html: str = "",
) -> bytes:
    """A letter, with LF line ends.

    `sender` and `recipient` are `a@b` or `Name <a@b>`, `date` is in seconds since the epoch,
    `references` are message ids, the one that is answered last, `fields` further header fields;
    `html` says the same as `text`, for those who read that.
    Raises ValueError for an address, a message id or a field name that is none.
    """
    header = {
        "From": _mailbox(sender),
        "To": _mailbox(recipient),
        "Subject": _text("Subject", subject),
        "Date": date_of(date),
        "Message-ID": _message_id(message_id),
        **_threading([_message_id(r) for r in references[-MAX_REFERENCES:]]),
        **{_name(name): _text(name, value) for name, value in (fields or {}).items()},
        "MIME-Version": "1.0",
    }
    lines = [f"{name}: {value}\n" for name, value in header.items()]
    body = _part("plain", text)
    if html:
        lines.append(f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"\n')
        parts = [b"", b"\n" + body, b"\n" + _part("html", html), b"--\n"]
        body = f"\n--{_BOUNDARY}".encode().join(parts)
    return "".join(lines).encode() + body


def is_address(text: str) -> bool:
    """It is a strict path of RFC 5321 and nothing else, and not the null one."""
    try:
        return text != "" and parse_path(f"<{text}>".encode()) == (text, b"")
    except ValueError:
        return False


def message_ids(text: str) -> list[str]:
    """The message ids in a field like References."""
    return _ID.findall(text)


def _threading(references: list[str]) -> dict[str, str]:
    if not references:
        return {}
    return {"In-Reply-To": references[-1], "References": "\n ".join(references)}


def _message_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ValueError(f"not a message id: {text[:100]!r}")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"not a field name: {text[:100]!r}")
    return text


def address_of(mailbox: str) -> str:
    """The address of `a@b` or `Name <a@b>`, whether it is one or not."""
    _, bracket, address = mailbox.rpartition("<")
    return address.removesuffix(">") if bracket and mailbox.endswith(">") else mailbox


def _mailbox(text: str) -> str:
    """An address, with a display name or without, as From and To have it."""
    address = address_of(text)
    if not is_address(address):
        raise ValueError(f"not an address: {text[:100]!r}")
    phrase = "" if address == text else one_field(text.rpartition("<")[0]).strip('" ')
    if not _PLAIN_PHRASE.fullmatch(phrase):
        phrase = _encoded("From", phrase)
    return f"{phrase} <{address}>" if phrase else address


def _text(name: str, text: str) -> str:
    line = one_field(text)
    return line if line.isascii() and "=?" not in line else _encoded(name, line)


def one_field(text: str) -> str:
    """Text as it can stand in a field."""
    return _UNSAFE.sub(" ", text[:MAX_FIELD]).strip()


def _encoded(name: str, line: str) -> str:
    from email.header import Header  # 10 ms, and only for what is written in other letters

    return Header(line, "utf-8", header_name=name).encode(linesep="\n")


def _part(subtype: str, text: str) -> bytes:
    """A text with the fields that say what it is."""
    lines = text[:MAX_TEXT].replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    coded = binascii.b2a_qp(_CONTROL.sub("", lines).encode("utf-8", "replace"))
    about = f"Content-Type: text/{subtype}; charset=utf-8\nContent-Transfer-Encoding: "
    return about.encode() + b"quoted-printable\n\n" + coded
