"""Prints of messages: what makes two messages the same, or alike."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spams import WORDS, mail, text

from mdaflow.mail.message import Message
from mdaflow.scan.prints import DISTANCE, MAX_MESSAGE, distance, prints, similar, words

PICTURE = base64.encodebytes(bytes(range(256)) * 8).decode()


def same(one: bytes, other: bytes) -> bool:
    """Have two messages a print of the kind that only the same content has?"""
    first, second = ({p for p in prints(Message(raw)) if not p[1]} for raw in (one, other))
    return bool(first & second)


def parts(*each: str) -> bytes:
    body = "".join(f"--b\n{part}\n" for part in each)
    return f"Content-Type: multipart/mixed; boundary=b\n\n{body}--b--\n".encode()


def plain(body: str) -> str:
    return f"Content-Type: text/plain\n\n{body}"


def attached(type: str, content: str = PICTURE) -> str:
    disposition = "Content-Disposition: attachment; filename=x"
    return f"Content-Type: {type}\n{disposition}\nContent-Transfer-Encoding: base64\n\n{content}"


BODY = text(1)


@pytest.mark.parametrize(
    "other",
    [
        BODY.upper(),
        BODY.replace(" ", "\n  "),
        f"{BODY} 7718 x9k2 2026-11-21",
        f"{BODY} xkcdqwrtz {'Abacadae' * 4}",
        f"bob@example.org {BODY} <carol@example.net>",
    ],
    ids=["case", "space", "digits", "random", "addresses"],
)
def test_copies(other: str) -> None:
    """Copies that differ in case, space, numbers, random strings and addresses are the same."""
    assert same(mail(BODY), mail(other))


def test_urls() -> None:
    """Of a URL only the host counts."""
    link = f"{BODY} https://www.shop.example/"
    assert same(mail(link), mail(f"{link}offer?id=8123#x"))
    assert not same(mail(link), mail(f"{BODY} https://other.example/"))


def test_markup() -> None:
    """HTML is the text that it shows."""
    markup = f"<html><head><title>x</title></head><body><b>{BODY}</b><img src=x></body></html>"
    assert same(mail(BODY), mail(markup, "Content-Type: text/html\n"))


def test_other_texts() -> None:
    """Other words, or the same in another order, are another text."""
    assert not same(mail(BODY), mail(text(2)))
    assert not same(mail(BODY), mail(" ".join(reversed(BODY.split()))))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        mail(""),
        mail(" ".join(WORDS[:19])),
        mail("12345 67890 " * 100),
        mail("disk ok, load ok, mail ok\n" * 30),
        mail("-- \nAnn\nExample Ltd. +49 30 1234567\n"),
        parts(plain("short"), attached("image/png", "R0lGODlhAQABAAAAACw=")),
        parts(attached("application/pgp-signature")),
        mail(BODY) + b"x" * MAX_MESSAGE,
    ],
    ids=[
        "nothing",
        "empty",
        "no-body",
        "short",
        "digits",
        "table",
        "signature",
        "pixel",
        "pgp",
        "huge",
    ],
)
def test_nothing_to_compare(raw: bytes) -> None:
    """What says nothing about a message has no print."""
    assert prints(Message(raw)) == []


def test_attachments() -> None:
    """An attachment counts by its bytes; a picture only where there is no text."""
    assert same(
        parts(plain(text(1)), attached("application/pdf")),
        parts(plain(text(2)), attached("application/octet-stream")),
    )
    logo = attached("image/png")
    assert same(parts(plain("look"), logo), parts(plain("see"), logo))
    assert not same(parts(plain(text(1)), logo), parts(plain(text(2)), logo))


def test_similar_texts() -> None:
    """Texts that differ in a few words have simhashes that differ in a few bits."""
    changed = text(1, 400).split()
    changed[30], changed[300] = "pills", "cheap"
    texts = (text(1, 400), " ".join(changed), text(2, 400))
    one, other, far = (similar(b"".join(words(each))) for each in texts)
    assert 0 < distance(one, other) <= DISTANCE
    assert distance(one, far) > 2 * DISTANCE


def test_words_without_spaces() -> None:
    """Chinese, Japanese and Korean texts count by their characters, others by their words."""
    assert prints(Message(mail("我们的产品价格便宜质量好欢迎来电咨询谢谢您的支持与合作")))
    assert prints(
        Message(
            mail(
                "наши товары дешевле и лучше приглашаем вас посетить магазин завтра и сегодня " * 3
            )
        )
    )


@given(st.binary(max_size=2000))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes have prints that SQLite can hold."""
    for head in (b"", b"\n", b"Content-Type: text/html\n\n", b"Content-Type: multipart/x\n\n"):
        for look, value in prints(Message(head + raw * 3)):
            assert 0 <= look < 1 << 63
            assert -(1 << 63) <= value < 1 << 63


@given(st.lists(st.binary(min_size=8, max_size=8), min_size=3, max_size=40))
def test_simhash(hashes: list[bytes]) -> None:
    """It is that of the triples, taken one by one."""
    size = 8
    text, count = b"".join(hashes), len(hashes) - 2
    around = text + text
    triples = [
        [around[8 * n + i] ^ around[8 * n + 11 + i] ^ around[8 * n + 22 + i] for i in range(size)]
        for n in range(count)
    ]
    expected = sum(
        1 << 8 * byte + bit
        for byte in range(size)
        for bit in range(8)
        if 2 * sum(triple[byte] >> bit & 1 for triple in triples) > count
    )
    assert similar(text) == expected
