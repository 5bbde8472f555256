"""What kind of mail a message is."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail import nature
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

BOB = Envelope("ann@example.org", "Bob+x@example.com")
TO_BOB = b"From: Ann <ann@example.org>\nTo: bob@example.com\n"

TESTS = {
    "bounce": nature.bounce,
    "automatic": nature.automatic,
    "mailing_list": nature.mailing_list,
    "personal": nature.personal,
    "encrypted": nature.encrypted,
    "signed": nature.signed,
    "multipart": nature.multipart,
}


def kinds(raw: bytes, envelope: Envelope = BOB) -> str:
    """The names of what is true of a message."""
    message = Message(raw)
    return " ".join(name for name, test in TESTS.items() if test(message, envelope))


REPORT = b"Content-Type: multipart/report; report-type="

# header fields of a message to Bob | what is true of it
FIELDS = {
    b"": "personal",
    b"Auto-Submitted: no": "personal",
    b"Auto-Submitted: No (by hand); x=y": "personal",
    b"Auto-Submitted: auto-replied": "automatic",
    b"auto-submitted :\n  Auto-Generated; x": "automatic",
    b"Auto-Submitted:": "automatic",
    b"Auto-Submitted: no\nAuto-Submitted: auto-notified": "automatic",
    b"Precedence: bulk": "automatic",
    b"Precedence:  Junk ": "automatic",
    b"X-Precedence: auto_reply": "automatic",
    b"Precedence: first-class": "personal",
    b"Precedence: list": "mailing_list",
    b"X-Auto-Response-Suppress: DR, OOF, AutoReply": "automatic",
    b"X-Auto-Response-Suppress: None": "personal",
    b"X-Autoreply: yes": "automatic",
    b"X-Autorespond: vacation": "automatic",
    b"X-Cron-Env: <SHELL=/bin/sh>": "automatic",
    b"List-Id: <dev.example.org>": "mailing_list",
    b"List-Unsubscribe: <mailto:x@example.org>": "mailing_list",
    b"List-Post: NO": "mailing_list",
    b"Mailing-List: contact x@example.org": "mailing_list",
    b"X-Mailing-List: x": "mailing_list",
    b"X-List: x": "personal",
    b"Sender: MAILER-DAEMON": "bounce",
    b"Sender: Mail <Postmaster@example.org>": "bounce",
    b"Sender: postmaster-general@example.org": "personal",
    b"X-Failed-Recipients: x@example.org": "bounce",
    REPORT + b"delivery-status; boundary=b": "bounce automatic multipart",
    REPORT + b'"Delivery-Status"; boundary=b': "bounce automatic multipart",
    REPORT + b"disposition-notification": "automatic multipart",
    b"Content-Type: multipart/report": "automatic multipart",
    b"Content-Type: MULTIPART/Mixed; boundary=x": "personal multipart",
    b"Content-Type: text/plain; x=multipart/mixed": "personal",
    b"Content-Type: multipart": "personal",
    b"Content-Type: multipart/encrypted; boundary=b": "personal encrypted multipart",
    b"Content-Type: multipart/signed; boundary=b": "personal signed multipart",
    b"Content-Type: application/pkcs7-mime": "personal encrypted",
    b"Content-Type: application/x-pkcs7-mime;\n smime-type=Enveloped-Data; name=smime.p7m": (
        "personal encrypted"
    ),
    b"Content-Type: application/pkcs7-mime; smime-type=signed-data": "personal signed",
    b"Content-Type: application/pkcs7-mime; smime-type=certs-only": "personal",
}


@pytest.mark.parametrize(("field", "true"), FIELDS.items())
def test_fields(field: bytes, true: str) -> None:
    """What the header says of a message."""
    assert kinds(TO_BOB + field + (b"\n" if field else b"") + b"\nhello\n") == true


SENDERS = {
    "": "bounce",
    "MAILER-DAEMON": "bounce",
    "postmaster@example.org": "bounce",
    "owner-dev@example.org": "mailing_list",
    "dev-request@example.org": "mailing_list",
    "Dev-Bounces+bob=example.com@example.org": "mailing_list",
    "listserv@example.org": "mailing_list",
    "bounces@example.org": "personal",
    "ann@mailer-daemon.example": "personal",
}


@pytest.mark.parametrize(("sender", "true"), SENDERS.items())
def test_senders(sender: str, true: str) -> None:
    """What the sender of the envelope says of a message."""
    assert kinds(TO_BOB + b"\nhello\n", Envelope(sender, "bob@example.com")) == true


# recipient fields | own addresses | whether it is personal
RECIPIENTS = [
    (b"To: BOB@Example.COM\n", [], True),
    (b"To: x@example.org, Bob <bob+x@example.com>\n", [], True),
    (b"To: bob+y@example.com\n", [], False),
    (b"Cc: bob@example.com\n", [], True),
    (b"Bcc: bob@example.com\n", [], True),
    (b"To: x@example.org\nResent-To: bob@example.com\n", [], True),
    (b"Resent-Cc: bob@example.com\n", [], True),
    (b"Resent-Bcc: bob@example.com\n", [], True),
    (b"Reply-To: bob@example.com\n", [], False),
    (b"To: \"bob@example.com\" <x@example.org>\n", [], False),
    (b"To: robert@example.com\n", [], False),
    (b"To: robert@example.com\n", ["rob@x", "ROBERT@example.com"], True),
    (b"To: undisclosed-recipients:;\n", [""], False),
    (b"", [""], False),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "own", "true"), RECIPIENTS)
def test_personal(fields: bytes, own: list[str], true: bool) -> None:
    """Mail is personal when the header names one of the recipient's addresses."""
    message = Message(b"From: ann@example.org\n" + fields + b"\nhello\n")
    assert nature.personal(message, BOB, own) is true


def test_personal_delimiters() -> None:
    """What divides a detail from its user is for the site to say."""
    message = Message(b"To: bob@example.com\n\n")
    envelope = Envelope("ann@example.org", "bob-x@example.com")
    assert not nature.personal(message, envelope)
    assert nature.personal(message, envelope, delimiters="+-")
    assert not nature.personal(Message(b"To: x\n\n"), Envelope("ann@example.org", ""))


PGP = b"hello\n-----BEGIN PGP MESSAGE-----\n\nx\n"
CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n"
MIXED = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
BASE64 = b"Content-Transfer-Encoding: base64\n\n"

BODIES = {
    "inline": (b"\n" + PGP, "encrypted"),
    "inline, signed": (b"\n" + CLEAR, "signed"),
    "quoted": (b"\n> -----BEGIN PGP MESSAGE-----\n", ""),
    "encoded": (BASE64 + base64.encodebytes(PGP), "encrypted"),
    "a key": (b"\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n", ""),
    "in a part": (MIXED + b"\n" + PGP + b"\n--b--\n", "encrypted multipart"),
    "attached": (
        MIXED + b"Content-Disposition: attachment\n\n" + PGP + b"\n--b--\n", "multipart",
    ),
    "far behind": (b"\n" + b"x\n" * (nature.MAX_PGP // 2) + PGP, ""),
    "encrypted part": (
        MIXED + b"Content-Type: multipart/encrypted; boundary=c\n\n--c\n"
        b"Content-Type: application/pgp-encrypted\n\nVersion: 1\n--c\n\n--c--\n--b--\n",
        "encrypted multipart",
    ),
    "signed part": (
        MIXED + b"Content-Type: multipart/signed; boundary=c\n\n--c\n\nx\n--c\n"
        b"Content-Type: application/pgp-signature\n\nx\n--c--\n--b--\n",
        "signed multipart",
    ),
    "signature of S/MIME": (
        MIXED + b"\nx\n--b\nContent-Type: application/pkcs7-signature\n\nx\n--b--\n",
        "signed multipart",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "true"), BODIES.values(), ids=BODIES)
def test_bodies(raw: bytes, true: str) -> None:
    """What is encrypted or signed is seen in every part, and not in what is quoted."""
    assert kinds(raw) == true


NAMES = ["From", "Sender", "To", "Auto-Submitted", "Precedence", "List-Id", "Content-Type"]
VALUES = [
    *("", "no", "list", "bulk", "ann@example.org", "mailer-daemon", "bob@example.com", "(", '"'),
    *("multipart/report", "multipart/mixed; boundary=b", "; report-type=", "\n ", "\n--b\n", "\0"),
]
fields = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)).map(": ".join)
mails = st.one_of(
    st.binary(), st.lists(fields, max_size=8).map(lambda found: "\n".join(found).encode())
)


@given(mails, st.text(max_size=20), st.text(max_size=20))
@example(b"Content-Type: multipart/report;" + b";" * 100_000, "", "")
@example(b"Content-Type: multipart/report" + b"; report-type" * 10_000, "", "")
@example(b"Auto-Submitted:" + b" \n " * 100_000, "a", "b")
@example(b"", "a" * 100_000 + "-request" * 1000, "+" * 100_000)
def test_any_mail(raw: bytes, sender: str, recipient: str) -> None:
    """Any mail has a nature, and what is a bounce, automatic or of a list is never personal."""
    found = kinds(raw, Envelope(sender, recipient)).split()
    assert not ("personal" in found and {"bounce", "automatic", "mailing_list"} & set(found))
    assert sender or "bounce" in found
