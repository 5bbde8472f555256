"""What holds for all rules and all mail, tried on many."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import READ, programs, soup

from mdaflow.deliver.mailbox import components, parse_mailbox
from mdaflow.engine.context import Fact, Settings
from mdaflow.engine.plan import EvaluationError, Plan, Unanswerable
from mdaflow.engine.run import Stage, run
from mdaflow.engine.texts import folder
from mdaflow.errors import PermFail
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.dump import dump, load
from mdaflow.lang.flow import driver, grammar
from mdaflow.lang.limits import Limits
from mdaflow.lang.source import MAX_PROBLEMS, SourceError
from mdaflow.lang.subjects import SUBJECTS, type_of
from mdaflow.mail.address import MAX_ADDRESSES, parse_addresses
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.header import MAX_FIELD, decode_words
from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored, trace_fields

# Rules


def compiled(text: str) -> ir.Program:
    """A program that is right."""
    return compile_rules(text, read=READ.__getitem__)


def program(text: str | bytes) -> ir.Program | None:
    """The program of a text; None when it is none."""
    try:
        return compile_rules(text)
    except SourceError as error:
        problems = error.problems
    assert 0 < len(problems) <= MAX_PROBLEMS
    assert all(p.message and p.span.line > 0 < p.span.column for p in problems)
    return None


@given(st.one_of(st.binary(max_size=200), soup.map(str.encode), st.text(max_size=80)))
@example(b"\xef\xbb\xbfkeep")
@example(b'if header "\xed\xa0\x80" exists { }')
def test_any_text_is_a_program_or_has_problems(text: bytes | str) -> None:
    """Any bytes as rules give a program that can be run, or problems with places."""
    found = program(text)
    if found is not None:
        assert run(found, Message(b"Subject: x\n\n")).actions


REPEATED = [
    *("(", "if ", "if (", "{", "[", '"', "/", "not ", "a.", "\\", '"""', "rule { ", 'log "', "'"),
    *("; ", "elif true { } ", "true or ", "#", "#\n", "}", 'test "x" { ', "attachment where ("),
    *("\\u{", "{a|", "{{", "[a", "(a*)*", "&&", "1.", "9", 'import "x" ', "\r", "\ufeff", "é"),
    *("“x", "=?", "in [", 'given a = "', "\\", "}}", "0x", "\t", "-", "*", "?", "keep"),
]
BEFORE = [
    *("", "if ", "if subject matches /", 'log "', "list l = [", 'test "t" { given a = ', "keep "),
]


@pytest.mark.parametrize("before", BEFORE)
def test_texts_of_one_sign_end_soon(before: str) -> None:
    """What is said a thousand times is a program, or has problems, soon."""
    for sign in REPEATED:
        program(before + sign * 2000)


@cache
def lark() -> Any:
    return grammar.build()


def shape(node: Any) -> object:
    """A tree of either parser with the offsets of all its nodes."""
    if node is None:
        return None
    if isinstance(node, str):
        token: Any = node
        return token.type, token.start_pos, token.end_pos, str(node)
    place = node.meta
    offsets = getattr(place, "start_pos", 0), getattr(place, "end_pos", 0)
    return str(node.data), offsets, [shape(child) for child in node.children]


@given(st.one_of(programs, soup))
@example("")
@example('if true { } elif a exists { } else { } rule "x" when b in ["a",] {} otherwise {}')
def test_both_parsers_are_one(text: str) -> None:
    """The quick parser gives what Lark gives: the same tree with the same places, or none."""
    from lark.exceptions import UnexpectedInput

    try:
        wanted = shape(lark().parse(text))
    except UnexpectedInput:
        wanted = None
    assert shape(driver.parse(text)) == wanted


@given(programs)
def test_programs_survive_their_dump(text: str) -> None:
    """What is right is a program; dumped and loaded again it is the same, with all its places."""
    found = compiled(text)
    again = load(dump(found))
    assert again == found
    assert repr(again) == repr(found)


# Mail

LINES = [
    *(b"From: Ann <ann@example.com>", b"Subject: =?utf-8?q?a=20b?= =?x?b?/w==?=", b"To: a@b, c"),
    *(b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: text/html; charset=utf-7"),
    *(b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: base64", b"--b", b"--b--"),
    *(b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*1=x", b"", b" folded"),
    *(b"Content-Transfer-Encoding: x-uuencode", b"begin 644 a", b"#0V%T", b"end", b"QUJD", b"="),
    *(b"Return-Path: <x>", b"X-mdaflow-Loop: 1", b"x-MDAFLOW-a : 2", b"From a Sat", b">From b"),
    *(b"Content-Type: text/plain; charset*=utf-8'a'%; charset*1=x", b"\x00\xff\xed\xa0\x80", b":"),
    *(b"<p>a<b>c</b><!-- <script>", b"&#xd800;&#99999999999999;&amp", b'To: (((<<"\\', b"a b: c"),
    *(b"Content-Transfer-Encoding: quoted-printable", b"=C3=", b"=BC", b"\tX-mdaflow-b: c", b"\r"),
    *(b"Subject: Hello", b"X-A: a b", b"x-a: 17 people", b"X-A: ann@example.com", b"List-Id: <x>"),
    *(b"Date: Thu, 19 Nov 2026 23:30:05 -0500", b"Date: soon", b"Auto-Submitted: auto-replied"),
    *(b"Received: from a (b [192.0.2.1]) by c", b"Authentication-Results: x; spf=pass; dkim=fail"),
    *(b"Content-Type: image/png; name=x.png", b"Content-Type: text/plain; name=notes.txt"),
]
mails = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(LINES)).map(b"\n".join))

said = st.one_of(
    st.sampled_from(["x", "hello", "a@b", "Ann <ann@example.com>", "", "../..", "a\r\nX-Evil: 1"]),
    st.text(max_size=20),
)
octets = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("text", "address"), said),
    "number": st.floats(allow_nan=False, width=32),
    "truth": st.booleans(),
    "moment": st.sampled_from(["2026-12-20", "2026-12-20 10:00", "1970-01-01T00:00Z", "never"]),
    "day": st.sampled_from(["2026-12-20", "x"]),
    "clock": st.sampled_from(["22:00", "06:30:15", "x"]),
}
"""What a fact of each type can be."""
KINDS = {
    **{
        (f"{name}.{part}" if part else name, "x-a" * kind.argument): type_of(name, part)
        for name, kind in SUBJECTS.items()
        for part in ("", *kind.parts)
    },
    **{(name, ""): "truth" for name in ir.QUESTIONS},
}
"""What can be given -> its type."""
given_facts = st.lists(
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda key: st.tuples(st.just(key), st.lists(OF_TYPE[KINDS[key]], max_size=3))
    ),
    max_size=4,
).map(dict)
ASKED = {
    **{name: kind.type for name, kind in SUBJECTS.items() if kind.asked},
    **dict.fromkeys(("attachment.type", "list"), "text"),
    **dict.fromkeys(ir.QUESTIONS, "truth"),
}
"""What the world is asked -> the type of its answer."""


def answers_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Some answers, none, or nobody to ask."""
    return st.one_of(st.lists(values, max_size=3), st.none(), st.just(Unanswerable("out of order")))


worlds = st.fixed_dictionaries(
    {},
    optional={
        **{name: answers_of(OF_TYPE[kind]) for name, kind in ASKED.items()},
        "attachment.inner": answers_of(st.lists(said, max_size=2)),
        "filter": st.one_of(mails.map(lambda raw: [raw]), st.none(), st.just(Unanswerable("no"))),
    },
)
ways = st.builds(
    Settings,
    st.sampled_from(["+", "", "+-", "\ud800", "."]),
    st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata"), None]),
    st.sampled_from([(), ("x",), ("mx.example.org", "X")]),
    st.sampled_from([(), ("ann@example.com", ""), ("a@b",)]),
    st.sampled_from([5.0, 0.0, -1.0]),
    st.sampled_from([Limits(cpu=1e6), Limits(actions=2, forwards=1, cpu=1e6)]),
)
arrivals = st.builds(
    Envelope,
    octets,
    st.one_of(octets, st.just("ann@example.com")),
    octets,
    st.builds(Client, octets, octets, octets),
    received=st.one_of(st.just(0.0), st.floats(-1e13, 1e13)),
)


def whole(plan: Plan) -> object:
    """All that a Plan says but its trace, and the bytes of each message that is in it."""
    messages = [a.message and b"".join(a.message.under(a.message.head)) for a in plan.actions]
    actions = [replace(action, message=None) for action in plan.actions]
    return actions, messages, replace(plan, actions=(), trace=())


@given(st.lists(programs, max_size=3), mails, arrivals, worlds, ways, given_facts)
@settings(max_examples=300)
def test_runs_never_fail(
    texts: Sequence[str],
    raw: bytes,
    envelope: Envelope,
    world: dict[str, Any],
    way: Settings,
    facts: dict[tuple[str, str], list[Any]],
) -> None:
    """Whatever comes, a user's rules make a Plan, and those of a site do, or say what is wrong;
    both are the same whether somebody asks why or not.
    """

    def ask(fact: Fact) -> Sequence[Any] | None:
        answer = world.get(fact.name)
        if isinstance(answer, Exception):
            raise answer
        found: Sequence[Any] | None = answer
        return found

    def decide(owners: Sequence[str], *, trace: bool) -> object:
        stages = [Stage(p, owner) for p, owner in zip(compiled_all, owners, strict=False)]
        message = Message(raw)
        try:
            plan = run(stages, message, envelope, ask, trace=trace, settings=way, given=facts)
        except EvaluationError as error:
            assert "site" in owners
            return str(error)
        assert plan.deciding
        assert plan.outcome
        assert all(str(each).isprintable() for each in (*plan.trace, *plan.errors, *plan.actions))
        assert len(plan.actions) <= way.limits.actions + 1
        return whole(plan)

    compiled_all = [compiled(text) for text in texts]
    for owners in (["user"] * 3, ["site", "user", "site"]):
        assert decide(owners, trace=True) == decide(owners, trace=False)


def everything() -> str:
    """Rules that look at everything there is."""
    lines = []
    for name, kind in SUBJECTS.items():
        argument = ' "Subject"' if kind.argument else ""
        hole = " Subject" if kind.argument else ""
        for part in ("", *kind.parts):
            word = f"{name}.{part}" if part else name
            test = _TEST_OF[type_of(name, part)]
            lines.append(f'if {test.format(f"{word}{argument}")} {{ set v = "x" }}')
            lines.append(f'set v = "{{v}}{{{word}{hole}|first 9}}"')
        if kind.raw:
            lines.append(f'if not every raw {name}{argument} matches "*?" {{ set v = "y" }}')
    return 'set v = ""\n' + "\n".join(lines) + '\nalso deliver to "x/{v}"\n'


_TEST_OF = {
    **dict.fromkeys(("text", "address"), r"{0} exists and {0} matches /(?P<g>\S)/"),
    "number": "{0} exists and {0} between 1 and 5",
    "truth": "{0} and not {0}",
    "moment": '{0} > "2026-12-20" or {0} = "1970-01-01 00:00"',
    "day": '{0} between "1970-01-01" and "2026-12-20"',
    "clock": '{0} between "22:00" and "06:00"',
}
EVERYTHING = Stage(compile_rules(everything()))


def looked_up(fact: Fact) -> Sequence[Any] | None:
    """The types of attachments, and nothing else."""
    if fact.name != "attachment.type":
        return None
    return [part.type for part in fact.message.attachments]


@given(mails)
@settings(max_examples=150)
@example(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 5000)
@example(b"Content-Type: message/rfc822\n\n" * 200)
@example(b"Content-Type: multipart/mixed;boundary=a\n\n--a\n" * 200)
@example(b"Subject: =?utf-7?q?+2AA-?=\n\n")
@example(b"Content-Type: text/html\n\n&#" + b"9" * 5000 + b";")
@example(b"Content-Type: text/plain; name*=utf-7''+2AA-\n\n")
def test_any_bytes_are_mail(raw: bytes) -> None:
    """Any bytes are a message with all its views, and rules make a Plan of it: traced or not."""
    message = Message(raw)
    assert message.size == len(raw)
    assert all(raw[part.start : part.end] is not None for part in message.parts)
    message.body.encode()
    [(part.content(), part.text.encode(), part.name.encode()) for part in message.parts]
    plan = run(EVERYTHING, message, Envelope("a@b", "c@d"), looked_up, trace=True)
    assert plan.trace
    assert not plan.errors
    assert all(str(event).isprintable() for event in plan.trace)
    again = run(EVERYTHING, Message(raw), Envelope("a@b", "c@d"), looked_up)
    assert whole(plan) == whole(again)


# Edits

values = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "x" * 200, "a b " * 40, "é" * 60, "a\r\nX-Evil: 1\r\n\r\nbody"]),
    st.sampled_from(["=?x?q?y?=", "=?utf-8?q?=0A?=", " a ", "x" * 20_000]),
)
names = st.sampled_from(["X-A", "x-a", "Subject", "To", "X-New"])
header_edits = st.lists(
    st.tuples(st.sampled_from(["add", "set", "remove"]), names, values), min_size=1, max_size=4
)
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\n]+(?:\n[ \t][^\n]*)*(?:\n|\Z)|[^\n]*(?:\n|\Z)")


def quoted(text: str) -> str:
    """A text as a string of the language."""
    return '"' + "".join(f"\\u{{{ord(c):x}}}" if c != "\0" else "" for c in text) + '"'


def pieces_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields and other lines of a header: (name in lower case, bytes)."""
    found = ((m[1] or b"").lower() for m in _FIELD.finditer(head))
    return [(name, m[0]) for name, m in zip(found, _FIELD.finditer(head), strict=True) if m[0]]


@given(header_edits, mails)
def test_edits_touch_only_what_they_name(edits: list[tuple[str, str, str]], raw: bytes) -> None:
    """Of an edited message all is stored as it came but the fields that were named (P14), and
    what was written begins no line of its own (P15).
    """
    lines = [
        f'remove header "{name}"' if verb == "remove" else f"{verb} header {quoted(f'{name}: {v}')}"
        for verb, name, v in edits
    ]
    plan = run(compile_rules("\n".join(lines)), Message(raw))
    assert not plan.errors
    came, message = Message(raw), plan.deciding.message or Message(raw)
    chunks = b"".join(message.under(message.head))
    body = raw[came.header_end :]
    assert chunks.endswith(body)
    gap = chunks[len(message.head) : len(chunks) - len(body)]
    alone = came.header_end == 0 and raw[:1] not in (b"", b"\n")
    assert gap == (b"\n" if alone and message.head else b"")
    named = {name.lower().encode() for _, name, _ in edits}
    old, new = pieces_of(came.head), pieces_of(message.head)
    assert [p for n, p in new if n not in named] == [p for n, p in old if n not in named]
    written = [p for n, p in new if n in named and (n, p) not in old]
    assert all(re.fullmatch(rb"[!-~]+:(?:[ -~]*\n[ ])*[ -~]*\n", piece) for piece in written)
    assert all(len(line) <= 998 for piece in written for line in piece.split(b"\n"))


@given(names, values, mails)
def test_what_is_set_is_read_again(name: str, value: str, raw: bytes) -> None:
    """A field that is set stands once and says what was written, but for runs of spaces."""
    setting = f"set header {quoted(f'{name}: {value}')}"
    plan = run(compile_rules(f'{setting} reject "[{{header {name}}}]"'), Message(raw))
    written = value.replace("\0", "").lstrip()[:MAX_FIELD]
    words = re.split(r"[\x00- \x7f-\x9f\u2028\u2029]+", written)
    assert f"[{' '.join(words).strip(' ')}]".startswith(plan.deciding.text.removesuffix("]"))
    assert len(value) > 10_000 or len(plan.deciding.text) == len(" ".join(words).strip(" ")) + 2
    message = plan.deciding.message or Message(raw)
    assert len(message.header(name)) == 1


# Headers of ours

anything = st.text(st.characters(), max_size=30)
hostile = st.one_of(
    anything,
    st.sampled_from(
        ["a\r\nX-Evil: 1", "a\n\nbody", "a\x00b", "a\u2028b", "a\x85b", "a\ud800\udc80b"]
    ),
)
envelopes = st.builds(
    Envelope,
    hostile,
    hostile,
    hostile,
    st.builds(Client, hostile, hostile, hostile),
    peer=hostile,
    received=st.integers(0, 1 << 33),
)
OURS = re.compile(
    rb"Return-Path: <[^\n]*>\nDelivered-To: [^\n]*\n(?:X-Original-To: [^\n]*\n)?"
    rb"Received: [^\n]*by mx \(mdaflow\) with LMTP id 1\n\tfor <[^\n]*>; [^\n]* \+0000\n"
)


@given(envelopes)
def test_nothing_in_an_envelope_begins_a_line(envelope: Envelope) -> None:
    """Our fields are those and no others, whatever the envelope says (P15)."""
    prefix = trace_fields(envelope, "mx", "1")
    assert OURS.fullmatch(prefix)
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]", prefix)
    prefix.decode()


def without_ours(raw: bytes) -> bytes:
    """The slow and simple way to take fields of our namespace out of a header."""
    out: list[bytes] = []
    lines = (
        raw.splitlines(keepends=True) if b"\r" not in raw else re.findall(rb"[^\n]*\n|[^\n]+", raw)
    )
    ours = False
    for at, line in enumerate(lines):
        if line == b"\n":
            return b"".join([*out, *lines[at:]])
        if not (line[:1] in (b" ", b"\t") and at > 0):
            name, colon, _ = line.lower().partition(b":")
            name = name.rstrip(b" \t")
            ours = bool(colon) and (name == b"return-path" or name.startswith(b"x-mdaflow-"))
            ours = ours and b" " not in name and b"\t" not in name
        if not ours:
            out.append(line)
    return b"".join(out)


@given(mails)
@example(b"X-mdaflow-a: 1\n two\nSubject: x\nreturn-path:\n\nX-mdaflow-b: body\n")
@example(b"X-mdaflow-a: 1")
@example(b"no header\nX-mdaflow-a: 1\n")
@example(b" folded\nX-mdaflow-a: 1\n\n")
def test_what_is_stored_is_what_came(raw: bytes) -> None:
    """Behind our fields every byte is as it came, but for older fields of ours (P14)."""
    message, prefix = Message(raw), b"Return-Path: <>\nX-mdaflow-Own: 1\n"
    whole = b"".join(stored(message, prefix))
    assert whole.startswith(prefix)
    rest = whole[len(prefix) :]
    if message.header_end == 0:
        assert rest in (raw, b"\n" + raw)
        assert not rest or rest.startswith(b"\n")
    else:
        assert rest == without_ours(raw)
    again = Message(whole)
    assert again.header_end >= len(prefix)
    assert again.header("Return-Path") == ["<>"]
    if not raw.startswith((b"From ", b">From ")):
        assert again.raw_body.removeprefix(b"\n") == message.raw_body.removeprefix(b"\n")


# Decoding


ADDRESS_SIGNS = [b'"', b"<", b">", b"(", b")", b",", b";", b":", b"@", b"\\", b" ", b"\n ", b"\xff"]
WORD_SIGNS = ["=?utf-8?q?", "=?x?b?", "=?utf-7?b?", "=?", "?=", "=C3", "w7w=", "_", " ", "=", "*en"]


def signs(*known: Any) -> st.SearchStrategy[Any]:
    """Texts of such signs."""
    return st.lists(st.sampled_from(known), max_size=60).map(known[0][:0].join)


@given(st.one_of(st.binary(max_size=300), signs(*ADDRESS_SIGNS, b"a", b"b.c")))
@example(b"," * 20_000)
@example(b"a," * 5_000)
@example(b"(" * 16_000 + b"a@b")
@example(b"a@b" + b" " * 16_000 + b"c")
@example(b'"' + b'\\"' * 8_000)
@example(b"<" * 16_000)
def test_any_bytes_are_addresses(raw: bytes) -> None:
    """Any bytes are a list of addresses, which together are no longer than the bytes."""
    found = parse_addresses(raw)
    assert len(found) <= MAX_ADDRESSES
    assert sum(len(a.address) for a in found) <= len(raw)
    for address in found:
        (address.name + address.local + address.domain).encode()


@given(st.one_of(anything, signs(*WORD_SIGNS, "\t", "?", "a")))
@example("=?" * 10_000)
@example("=?utf-8?q?a?= " * 5_000)
@example("=?utf-8?q?a?=" + " " * 20_000)
def test_any_text_can_be_decoded(text: str) -> None:
    """Any text can be decoded; without encoded words it stays as it is."""
    found = decode_words(text)
    if not re.search(r"=\?[^?\s]+\?[bq]\?", text, re.IGNORECASE):
        assert found == text
    found.encode("utf-8", "strict" if text.isascii() else "replace")


@given(st.text(min_size=1), st.lists(st.integers(0, 60)), st.sampled_from(["utf-8", "utf-16-be"]))
def test_words_are_joined_before_they_are_decoded(text: str, cuts: list[int], charset: str) -> None:
    """Text is the same again wherever its bytes were divided into encoded words."""
    raw = text.encode(charset)
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    parts = [raw[a:b] for a, b in pairwise(places)]
    words = [f"=?{charset}?b?{base64.b64encode(part).decode()}?=" for part in parts]
    assert decode_words(f"<{' '.join(words)}> x") == f"<{text}> x"


@given(st.text(st.sampled_from("<>/!-\"'= \nabp&;#x1"), max_size=200))
@example("<!--" * 20_000)
@example("<a b='" * 20_000)
@example("<script>" * 20_000)
@example("<p a=" * 20_000)
def test_any_text_is_html(markup: str) -> None:
    """Any text can be read as HTML; what has no markup keeps its words."""
    found = text_of_html(markup)
    if not re.search("[<&]", markup):
        assert found.split() == markup.split()
    assert len(found) <= len(markup)


# Folders

pieces = st.lists(
    st.tuples(st.one_of(anything, st.text(st.sampled_from("./^|~\\ \x00-aI"))), st.just(True)),
    max_size=4,
)


@given(pieces, st.booleans(), st.sampled_from("/.^|~"))
def test_folders_from_mail_are_safe(
    found: list[tuple[str, bool]], below: bool, separator: str
) -> None:
    """What comes from the mail makes one level, which can be a folder unless nothing is in it."""
    box = parse_mailbox(f"maildir:Mail:SEPARATOR={separator}", "/home/bob")
    above = ((f"lists{separator}", False),) if below else ()
    name = folder((*above, ("", True), *found), separator)
    assert name.isprintable() or not name.isascii()
    if name == f"lists{separator}":
        with pytest.raises(PermFail):
            components(box, name)
        return
    levels = components(box, name)
    assert len(levels) == (2 if below else 1 if levels else 0)
    assert not any(level.startswith((".", "~")) or level != level.strip() for level in levels)
