"""Tokens: what a classifier counts of a message, and what it must not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.mail.message import Message
from mdaflow.scan.tokens import MAX_TOKENS, key, keys, tokens

HEAD = "From: Ann <ann@shop.example.net>\nTo: Bob <bob@example.org>\nSubject: Hello\n"


def of(body: str, head: str = HEAD) -> list[str]:
    return tokens(Message(f"{head}\n{body}".encode()))


def of_html(body: str) -> list[str]:
    return of(body, f"{HEAD}Content-Type: text/html; charset=utf-8\n")


@pytest.mark.parametrize(
    ("body", "token"),
    [
        ("Cheap watches", "cheap"),
        ("Cheap watches", "cheap watches"),
        ("Don't stop", "don't"),
        ("the \u200bv\u200bi\u200ba pill", "via"),
        ("ｃｈｅａｐ", "cheap"),
        ("buy V I A G R A now", "apart:viagra"),
        ("buy v.i.a.g.r.a now", "apart:viagra"),
        ("only $1,299.00 today", "money:$4"),
        ("only €99", "money:€2"),
        ("by 50% less", "number:00%"),
        ("for version r2d2", "r0d0"),
        ("see http://www.shop.example.com/a.php?x=1", "url:example.com"),
        ("see http://www.shop.example.com/a.php?x=1", "url:.com"),
        ("see http://www.shop.example.co.uk/", "url:example.co.uk"),
        ("see http://shop.example.com?to=bob@x.example", "url:example.com"),
        ("see http://192.0.2.1:8080/", "url-is:address"),
        ("see http://192.0.2.1:8080/", "url-is:port8080"),
        ("see http://bank.example@evil.example/", "url-is:with-user"),
        ("see www.example.com", "url:example.com"),
        ("write to joe@mail.example.com.", "address:example.com"),
        ("日本語", "日本"),
        ("日本語", "本語"),
        ("ok 日本 ok", "日本"),
        ("สวัสดี", "สว"),
        ("Привет", "script:CYRILLIC"),
        ("x" * 45, "long:x4"),
        ("Dear bob, hello", "recipient:"),
    ],
)
def test_text(body: str, token: str) -> None:
    """A text gives its words, pairs of them, and what is like words."""
    assert token in of(body)


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("Subject: Free Money", "subject:free"),
        ("Subject: Free Money", "subject:free money"),
        ("Subject: =?koi8-r?B?8NLJ18XU?=", "subject:привет"),
        ("Subject: =?koi8-r?B?8NLJ18XU?=", "subject-in:koi8-r"),
        ("Subject: BUY IT NOW!!", "subject-is:shouted"),
        ("Subject: BUY IT NOW!!", "subject-is:!!"),
        ("Subject: Re: this", "subject-is:reply"),
        ("Subject: now     xq13", "subject-is:gap"),
        ("From: Ann Lee <ann@a.example.net>", "from:ann@a.example.net"),
        ("From: Ann Lee <ann@a.example.net>", "from:.example.net"),
        ("From: Ann Lee <ann@a.example.net>", "name:lee"),
        ("From: ann@a.example.net", "name:"),
        ("From: a@example.net\nReply-To: b@example.com", "reply-to:other"),
        ("From: a@example.net\nReply-To: b@EXAMPLE.net", "reply-to:same"),
        ("X-Mailer: Mailer 5.01", "mailer:mailer 0.0"),
        ("In-Reply-To: <x@y>", "has:in-reply-to:1"),
        ("Subject: a\nSubject: b", "has:subject:2"),
        ("Content-Type: text/plain; charset=Big5", "charset:big5"),
        ("Content-Type: application/x; name=a.EXE", "attached:exe"),
    ],
)
def test_header(field: str, token: str) -> None:
    """A header gives its author, subject, program and shape."""
    assert token in tokens(Message(f"{field}\n\nhello\n".encode()))


@pytest.mark.parametrize(
    ("markup", "token"),
    [
        ("<p>Click <a href='http://a.example.com/x.html'>here</a>", "click here"),
        ("<p>Click <a href='http://a.example.com/x.html'>here</a>", "url:example.com"),
        ("<form action=http://evil.example/>", "url:evil.example"),
        ("<FORM action=x>", "html:form"),
        ("<span style='color:red; Display: none'>", "style:display:none"),
        ("<img src=cid:1>", "url:cid"),
    ],
)
def test_html(markup: str, token: str) -> None:
    """HTML gives its text, where it leads, and what hides or acts."""
    assert token in of_html(markup)


def test_html_is_no_offence() -> None:
    """How a text is marked up says nothing."""
    plain, marked = of_html("cheap"), of_html("<table bgcolor=red><font size=7><b>cheap</b>")
    assert plain == marked


def test_what_is_no_token() -> None:
    """What names a mailbox, a time or a collection is no token."""
    added = (
        "Received: from a.collector.example by b.collector.example\n"
        "Delivered-To: collector@example.org\nMessage-ID: <1@collector.example>\n"
        "List-Id: <collector.example>\nX-Spam-Status: Yes, collector\nX-Collector: 1\n"
        "Return-Path: <collector@example.org>\n"
    )
    dates = "Date: Mon, 1 Jan 2001 00:00:00 +0000\n", "Date: Tue, 2 Feb 2022 10:10:10 +0900\n"
    with_id = HEAD + "Message-ID: <2@x>\n"
    assert of("hi", with_id + dates[0]) == of("hi", HEAD + added + dates[1])
    assert not [token for token in of("hi", HEAD) if "bob" in token]


LONG = "This is what the author of the message wrote to all, and it is long enough for a text.\n"


@pytest.mark.parametrize("line", ["-- ", "--", "_" * 47, "-" * 24, "=" * 20])
def test_end(line: str) -> None:
    """What a list or a signature adds behind a line is none of the text."""
    assert of(f"{LONG}{line}\nLinux Users http://lists.example.org/\n") == of(LONG)


@pytest.mark.parametrize(
    "text", [f"Hi\n-- \n{LONG}", f"{LONG * 40}-- \n{'more ' * 300}", f"{LONG}- more\n"]
)
def test_no_end(text: str) -> None:
    """What is most of a text, or long, is no end of it, whatever is above it."""
    assert tokens(Message(f"\n{text}".encode())) != tokens(Message(f"\n{LONG}".encode()))


def test_pairs() -> None:
    """Words make a pair when nothing else is between them."""
    found = of("one 2 three http://example.com four five\n")
    assert [token for token in found if " " in token] == ["four five"]


def test_bounded() -> None:
    """A message has at most so many tokens, and those of its header are among them."""
    many = of(
        " ".join(f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefghij" for c in "klmnopqrst")
    )
    assert len(many) == MAX_TOKENS
    assert "subject:hello" in many


def test_keys_stay() -> None:
    """A token has the same key on every machine and in every version."""
    assert key("cheap") == 609209305434301445
    assert len(keys(Message(HEAD.encode()))) == len(of(""))


@given(st.binary(max_size=2000))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes give tokens, none twice, that all have keys."""
    for head in (b"", b"Content-Type: text/html\n\n"):
        found = tokens(Message(head + raw))
        assert len(found) == len(set(found)) <= MAX_TOKENS
        assert all(-(2**63) <= key(token) < 2**63 for token in found)
