"""What MAIL and RCPT say, and how they are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.errors import PermFail
from mdaflow.mail.path import CONTROL
from mdaflow.serve.arguments import MAX_ENVID, MAX_ORCPT, Recipient, Sender, recipient, sender

LIMIT = 1000


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (b"", Sender("a@b")),
        (b"SIZE=1000 BODY=8bitmime smtputf8", Sender("a@b", utf8=True, size=1000)),
        (b"RET=FULL ENVID=QQ314159", Sender("a@b", ret="FULL", envid="QQ314159")),
        (b"ret=hdrs envid=a+2Bb+20c", Sender("a@b", ret="HDRS", envid="a+b c")),
        (b"ENVID=" + b"x" * MAX_ENVID, Sender("a@b", envid="x" * MAX_ENVID)),
        (b"ENVID=<1.x@y>;(a)", Sender("a@b", envid="<1.x@y>;(a)")),
    ],
)
def test_sender(parameters: bytes, said: Sender) -> None:
    """Each parameter is read as its RFC says; what was not said is empty."""
    assert sender(b"FROM:<a@b> " + parameters, LIMIT) == said


def test_null_sender() -> None:
    """The null sender may have parameters, too."""
    assert sender(b"from: <> RET=HDRS", LIMIT) == Sender("", ret="HDRS")


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        (b"SIZE=1001", "552 5.3.4"),
        (b"SIZE=" + b"9" * 21, "501 5.5.4"),
        ("SIZE=٣".encode(), "501 5.5.4"),
        (b"SIZE", "501 5.5.4"),
        (b"BODY=BINARYMIME", "501 5.5.4"),
        (b"SMTPUTF8=1", "501 5.5.4"),
        (b"RET", "501 5.5.4"),
        (b"RET=NONE", "501 5.5.4"),
        (b"RET=FULL ret=FULL", "501 5.5.4"),
        (b"ENVID", "501 5.5.4"),
        (b"ENVID=a ENVID=a", "501 5.5.4"),
        (b"ENVID=" + b"x" * (MAX_ENVID + 1), "501 5.5.4"),
        (b"ENVID=a+2", "501 5.5.4"),
        (b"ENVID=a+0Ab", "501 5.5.4"),
        (b"ENVID=a+0D+0Ab", "501 5.5.4"),
        (b"ENVID=a+00", "501 5.5.4"),
        (b"ENVID=+C3+BC", "501 5.5.4"),
        ("ENVID=ü".encode(), "501 5.5.4"),
        (b"NOTIFY=NEVER", "555 5.5.4"),
        (b"AUTH=<>", "555 5.5.4"),
        (b"X-Y=\xff", "501 5.5.4"),
    ],
)
def test_sender_refused(parameters: bytes, reply: str) -> None:
    """What is malformed, too long, twice or unknown is refused (RFC 3461 section 5.1)."""
    with pytest.raises(PermFail) as failure:
        sender(b"FROM:<a@b> " + parameters, LIMIT)
    assert str(failure.value.status).startswith(reply)
    assert len(str(failure.value.status)) < 80


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (b"", {}),
        (b"NOTIFY=NEVER", {"notify": ("NEVER",)}),
        (b"notify=Delay,success", {"notify": ("DELAY", "SUCCESS")}),
        (b"NOTIFY=SUCCESS,SUCCESS", {"notify": ("SUCCESS",)}),
        (b"NOTIFY=SUCCESS,FAILURE,DELAY", {"notify": ("SUCCESS", "FAILURE", "DELAY")}),
        (b"ORCPT=rfc822;C+2Bx@D", {"original": "C+x@D", "orcpt": "rfc822;C+2Bx@D"}),
        (b'ORCPT=RFC822;"c+20d"@e', {"original": '"c d"@e', "orcpt": 'RFC822;"c+20d"@e'}),
        (b"ORCPT=rfc822;c", {"original": "", "orcpt": "rfc822;c"}),
        (b"ORCPT=rfc822;<c@d>", {"original": "", "orcpt": "rfc822;<c@d>"}),
        (b"ORCPT=rfc822;a;b@c", {"original": "", "orcpt": "rfc822;a;b@c"}),
        (b"ORCPT=x400;/S+3Dm;c@d", {"original": "", "orcpt": "x400;/S+3Dm;c@d"}),
        (rb"ORCPT=utf-8;j\x{FC}@d", {"original": "jü@d", "orcpt": r"utf-8;j\x{FC}@d"}),
        ("ORCPT=utf-8;jü@d".encode(), {"original": "jü@d", "orcpt": "utf-8;jü@d"}),
        (b"ORCPT=utf-8;j+C3+BC@d", {"original": "jü@d", "orcpt": "utf-8;j+C3+BC@d"}),
    ],
)
def test_recipient(parameters: bytes, said: dict[str, str]) -> None:
    """NOTIFY is a list; ORCPT is kept as it was sent, and decoded where it is an address."""
    assert recipient(b"TO:<a@b> " + parameters, utf8=True) == Recipient("a@b", **said)  # type: ignore[arg-type]


def test_longest() -> None:
    """All lengths of RFC 3461 section 5.4 are taken."""
    value = "rfc822;" + "x" * (MAX_ORCPT - len("rfc822;"))
    line = f"TO:<a@b> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={value}".encode()
    assert recipient(line).orcpt == value
    with pytest.raises(PermFail):
        recipient(line + b"x")


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        (b"NOTIFY", "501 5.5.4"),
        (b"NOTIFY=", "501 5.5.4"),
        (b"NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        (b"NOTIFY=NEVER,NEVER,NEVER,NEVER,NEVER", "501 5.5.4"),
        (b"NOTIFY=SUCCESS,", "501 5.5.4"),
        (b"NOTIFY=ALWAYS", "501 5.5.4"),
        (b"NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
        (b"ORCPT", "501 5.5.4"),
        (b"ORCPT=a@b", "501 5.5.4"),
        (b"ORCPT=;a@b", "501 5.5.4"),
        (b"ORCPT=rfc822;", "501 5.5.4"),
        (b"ORCPT=rfc(822;a@b", "501 5.5.4"),
        (b"ORCPT=rfc822;a+0Ab@c", "501 5.5.4"),
        (b"ORCPT=rfc822;a+00@c", "501 5.5.4"),
        (b"ORCPT=rfc822;a+FF@c", "501 5.5.4"),
        ("ORCPT=rfc822;ü@c".encode(), "501 5.5.4"),
        (b"ORCPT=x400;a+0Ab", "501 5.5.4"),
        (rb"ORCPT=utf-8;a\x{0A}@c", "501 5.5.4"),
        ("ORCPT=utf-8;\u202ea@c".encode(), "501 5.5.4"),
        (b"ORCPT=utf-8;\xfc@c", "501 5.5.4"),
        (b"RET=FULL", "555 5.5.4"),
        (b"SIZE=1", "555 5.5.4"),
    ],
)
def test_recipient_refused(parameters: bytes, reply: str) -> None:
    """What is malformed, too long, twice or unknown is refused, and nothing is folded."""
    with pytest.raises(PermFail) as failure:
        recipient(b"TO:<a@b> " + parameters, utf8=True)
    assert str(failure.value.status).startswith(reply)
    assert len(str(failure.value.status)) < 80


def test_unitext_without_smtputf8() -> None:
    """ORCPT is ASCII unless SMTPUTF8 was said (RFC 6533 section 3)."""
    with pytest.raises(PermFail, match="SMTPUTF8"):
        recipient("TO:<a@b> ORCPT=utf-8;jü@d".encode(), utf8=False)


def test_no_recipient() -> None:
    """RCPT needs an address."""
    with pytest.raises(PermFail) as failure:
        recipient(b"TO:<>")
    assert str(failure.value.status) == "553 5.1.3 No address"


WORDS = rb"= ; , + 0A 41 NOTIFY= ORCPT= ENVID= RET= utf-8 rfc822 SUCCESS NEVER FULL \x{41}"
PIECE = st.sampled_from([*WORDS.split(), b" ", b"\xc3\xbc", b"\xff", b"\0", b"\x85"])


@given(st.lists(PIECE, max_size=12).map(b"".join), st.booleans())
def test_any_bytes(parameters: bytes, utf8: bool) -> None:
    """Any bytes give bounded values without controls, or a 501, 553 or 555."""
    said: list[object] = []
    for read in (lambda a: sender(b"FROM:" + a, LIMIT), lambda a: recipient(b"TO:" + a, utf8)):
        try:
            said += read(b"<a@b> " + parameters)
        except PermFail as failure:
            said.append(failure.status.code)
    texts = [value for value in said if isinstance(value, str)]
    assert not any(CONTROL.search(text) or len(text) > MAX_ORCPT for text in texts)
    assert {value for value in said if isinstance(value, int)} <= {0, 501, 553, 555}
