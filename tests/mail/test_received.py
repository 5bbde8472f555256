"""The client in the topmost Received field."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.received import client
from mdaflow.mail.trace import trace_fields

DATE = "; Sat, 21 Nov 2026 10:05:30 +0100"

# a field | the client: address, name, HELO
FIELDS = {
    # Postfix
    "from he.lo (n.ame [192.0.2.1]) by mx (Postfix) with ESMTP id 1 for <a@b>": (
        "192.0.2.1", "n.ame", "he.lo",
    ),
    "from he.lo (unknown [192.0.2.1])\n\t(using TLSv1.3 with cipher X (256/256 bits))\n\tby mx": (
        "192.0.2.1", "", "he.lo",
    ),
    "from [192.0.2.9] (n.ame [192.0.2.1])\n (Authenticated sender: bob)\n by mx": (
        "192.0.2.1", "n.ame", "[192.0.2.9]",
    ),
    "from he.lo (n.ame [IPv6:2001:DB8:0:0::1]) by mx (Postfix)": (
        "2001:db8::1", "n.ame", "he.lo",
    ),
    "from he.lo (unknown [IPv6:::ffff:192.0.2.1]) by mx": ("192.0.2.1", "", "he.lo"),
    # Sendmail
    "from he.lo (n.ame [192.0.2.1] (may be forged))\n\tby mx (8.17/8.17) with ESMTP id 1": (
        "192.0.2.1", "n.ame", "he.lo",
    ),
    "from he.lo ([192.0.2.1]) by mx (8.17/8.17)": ("192.0.2.1", "", "he.lo"),
    "from he.lo (IDENT:bob@n.ame [192.0.2.1]) by mx": ("192.0.2.1", "n.ame", "he.lo"),
    "from he.lo (bob@[192.0.2.1]) by mx": ("192.0.2.1", "", "he.lo"),
    # Exim
    "from n.ame ([192.0.2.1] helo=he.lo)\n\tby mx with esmtps (TLS1.3) (Exim 4.96)": (
        "192.0.2.1", "n.ame", "he.lo",
    ),
    "from n.ame ([2001:db8::1]:2525 helo=[192.0.2.9] ident=bob)\n by mx (Exim 4.96)": (
        "2001:db8::1", "n.ame", "[192.0.2.9]",
    ),
    "from n.ame ([192.0.2.1])\n\tby mx with esmtps (TLS1.3) tls X\n\t(Exim 4.96)": (
        "192.0.2.1", "n.ame", "n.ame",
    ),
    "from [192.0.2.1] (helo=he.lo) by mx with smtp (Exim 4.96)": ("192.0.2.1", "", "he.lo"),
    "from [192.0.2.1] (port=2525 helo=[192.0.2.9]) by mx": ("192.0.2.1", "", "[192.0.2.9]"),
    "from [192.0.2.1] by mx with smtp (Exim 4.96)": ("192.0.2.1", "", ""),
    # none
    **dict.fromkeys(
        [
            *("", "x", "by mx (Postfix, from userid 1000)", "(from bob@localhost) by mx (8.17)"),
            *("from bob by mx with local (Exim 4.96)", "from he.lo (n.ame) by mx"),
            *("from he.lo (n.ame [192.0.2.256]) by mx", "from he.lo (n.ame [192.0.2.01]) by mx"),
            *("from he.lo (n.ame [192.0.2]) by mx", "from he.lo (n.ame [IPv6:2001::1::]) by mx"),
            *("from he.lo (n.ame [::1%eth0]) by mx", "from he.lo (n.ame [a:b]) by mx"),
            "from he.lo by mx (n.ame [192.0.2.1])",
            "from he.lo (x) (n.ame [192.0.2.1]) by mx",
            "from he.lo (helo=x [192.0.2.9]) by mx",
            "from [192.0.2.9] (n.ame) by mx",
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("field", "expected"), FIELDS.items())
def test_fields(field: str, expected: tuple[str, str, str] | None) -> None:
    """The client is what our MTA says of it; in a form that is not known there is none."""
    message = Message(f"Received: {field}{DATE}\n\n".encode())
    assert client(message) == (expected and Client(*expected))


def test_topmost() -> None:
    """Fields of mdaflow are passed over; below the next one anything may have been written."""
    mta = b"Received: from he.lo (n.ame [192.0.2.1]) by mx (Postfix)\n"
    local = b"Received: by mx (Postfix, from userid 1000)\n"
    ours = b"".join(
        trace_fields(envelope, "mx", "1")
        for envelope in (
            Envelope("a@b", "c@d", client=Client("192.0.2.8", "x (y)", "z ([192.0.2.7])")),
            Envelope("a@b", "c@d", peer="relay x"),
            Envelope("a@b", "c@d", client=Client("192.0.2.6", "x", "y"), released=True),
            Envelope("a@b", "c@d"),
        )
    )
    assert client(Message(ours + b"A: 1\n" + mta + local)) == Client("192.0.2.1", "n.ame", "he.lo")
    assert client(Message(ours + local + mta)) is None
    assert client(Message(ours)) is None
    assert client(Message(mta.replace(b"he.lo", b"(mdaflow)") + mta)) is None
    assert client(Message(b"")) is None


SIGNS = [
    "from",
    "by",
    " ",
    "(",
    ")",
    "[",
    "]",
    "192.0.2.1",
    ":",
    "helo=",
    "@",
    "(mdaflow) with ",
    "x",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(SIGNS), max_size=30).map("".join)))
@example("from x (" + "[" * 200_000)
@example("from x (" + "a@" * 200_000)
@example("from x " + "(y [1.2.3.4]" * 50_000)
@example("from [" + ":" * 1_000 + "]")
@example("from [" + "1" * 1_900 + ".1.1.1] by ")
def test_any_text(field: str) -> None:
    """Any text has a client with an address, or none."""
    raw = f"Received: {field}\n\n".encode("utf-8", "surrogatepass")
    found = client(Message(raw))
    assert found is None or (found.ip and not set(found.ip) - set("0123456789abcdef:."))
    assert found is None or not any(set(text) & set(" ()\n") for text in (found.name, found.helo))
