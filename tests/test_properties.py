"""What holds for all rules and all mail, tried on many."""

from __future__ import annotations

import base64
import re
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdaflow.deliver.mailbox import components
from mdaflow.engine.facts import Fact
from mdaflow.engine.plan import Plan
from mdaflow.engine.run import Stage, run
from mdaflow.engine.texts import folder
from mdaflow.lang import compile_rules, ir
from mdaflow.lang.dump import dump, load
from mdaflow.lang.flow import driver, grammar
from mdaflow.lang.source import MAX_PROBLEMS, SourceError
from mdaflow.lang.subjects import SUBJECTS
from mdaflow.mail.address import MAX_ADDRESSES, parse_addresses
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.header import decode_words
from mdaflow.mail.html import text_of_html
from mdaflow.mail.message import Message
from mdaflow.mail.trace import stored, trace_fields

# Rules

KEYWORDS = re.findall(
    r"\S+",
    "rule list if elif else otherwise when set also deliver to keep discard reject defer with flag "
    "flags unflag stop and or not is contains starts ends matches in exists between every all "
    "exactly raw true false from subject header size a b.c",
)
SIGNS = [
    *("{", "}", "(", ")", "[", "]", ",", "=", "!=", "<", ">=", '"a"', '"{1}"', '"""x\n"""', "5"),
    *("10K", "2 days", "/a(b)/c", "#c\n", "\n", ";", "'x'", "“x”", '"open', "/open", '"""', "5x"),
    *("&&", "\\", "\x00", "ü", '"\\Seen"', '"\\\\Seen"', '"{subject|lower}"', "{", "}"),
]
soup = st.lists(st.sampled_from([*KEYWORDS, *SIGNS]), max_size=25).map(" ".join)

names = st.sampled_from(["a", "b", "wörd"])
strings = st.sampled_from(
    [
        '"x"',
        '"a*b?"',
        '"{subject|first 3}/{from.user|slug}"',
        '"\\u{e4}{{}}"',
        '""',
        '"""\n  x\n """',
    ]
)
folders = st.sampled_from(['"x"', '"lists/{subject|slug}"', '"{v}/{subject}"', '"INBOX"'])
plain = st.sampled_from(['"x"', '"a*"', '"@example.org"', '""'])
flags = st.sampled_from(['"\\\\Seen"', '["\\\\Seen", "\\\\Draft",]', "[]"])
items = st.lists(plain, max_size=3).map(lambda found: f"[{', '.join(found)}]")
spaces = st.sampled_from([" ", "\n", "  # note\n", "\t\r\n"])
subjects = st.sampled_from(
    ["from", "to.domain", "every cc", "subject", "raw subject", 'header "X-A"', 'header ["A", "B"]']
)
numbers = st.sampled_from(
    ["size", "lines", "from.count", "attachment.size", "every attachment.size"]
)


def sentence(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """Parts with spaces between them."""
    found = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(spaces, *found).map(lambda words: words[0].join(words[1:]))


values = st.one_of(
    strings, items, sentence("all", items), sentence("exactly", strings), st.just("known")
)
comparisons = st.one_of(
    sentence(subjects, st.sampled_from(["is", "is not", "contains", "not starts with"]), values),
    sentence(subjects, st.sampled_from(["ends with", "matches", "not matches"]), values),
    sentence(subjects, "matches", st.sampled_from(["/a(b)?/", r"/[^]\/]\d/cs", "exactly /x/"])),
    sentence(subjects, st.sampled_from(["in", "not in"]), st.one_of(items, st.just("known"))),
    sentence(subjects, st.sampled_from(["exists", "not exists"])),
    sentence(numbers, st.sampled_from(["=", "!=", "<", ">="]), st.sampled_from(["5", "1.5K"])),
    sentence(numbers, "between", "1", "and", "3 days"),
    st.sampled_from(["true", "false"]),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        sentence("not", inner),
        sentence("(", inner, ")"),
        sentence(inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=5,
)
simple = st.one_of(
    sentence("deliver to", folders),
    sentence("deliver to", folders, 'with flag "\\\\Seen" with flags ["\\\\Seen", "\\\\Draft",]'),
    sentence("also deliver to", folders, "with flags []"),
    sentence("reject", strings),
    sentence(st.sampled_from(["flag", "unflag"]), flags),
    sentence("set v =", strings),
    st.sampled_from(["keep", "also keep", "discard", "defer", "stop", "reject"]),
)
statements = st.recursive(
    simple,
    lambda inner: st.one_of(
        sentence("if", conditions, "{", inner, "}"),
        sentence("if", conditions, "{", inner, inner, "} else {", inner, "}"),
        sentence("if", conditions, "{ } elif", conditions, "{", inner, "} else { }"),
    ),
    max_leaves=4,
)
rules = st.one_of(
    statements,
    sentence('rule "R" when', conditions, "{", statements, "}"),
    sentence("rule when", conditions, "{", statements, "} otherwise {", statements, "}"),
    sentence("rule {", statements, "}"),
)
texts = st.lists(rules, max_size=4).map(
    lambda found: "\n".join(['list known = ["x"] set v = "y"', *found])
)


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


@given(st.one_of(texts, soup))
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


@given(texts)
def test_programs_survive_their_dump(text: str) -> None:
    """A program that is dumped and loaded again is the same, with all its places."""
    found = program(text)
    if found is not None:
        again = load(dump(found))
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
]
mails = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(LINES)).map(b"\n".join))


def everything() -> str:
    """Rules that look at everything there is."""
    lines = []
    for name, kind in SUBJECTS.items():
        argument = ' "Subject"' if kind.argument else ""
        hole = " Subject" if kind.argument else ""
        for part in ("", *kind.parts):
            word = f"{name}.{part}" if part else name
            number = kind.type == "number" or part in ("count", "size")
            test = "between 1 and 5" if number else r"matches /(?P<g>\S)/"
            lines.append(
                f'if {word}{argument} exists and {word}{argument} {test} {{ set v = "x" }}'
            )
            lines.append(f'set v = "{{v}}{{{word}{hole}|first 9}}"')
        if kind.raw:
            lines.append(f'if not every raw {name}{argument} matches "*?" {{ set v = "y" }}')
    return 'set v = ""\n' + "\n".join(lines) + '\nalso deliver to "x/{v}"\n'


EVERYTHING = Stage(compile_rules(everything()))


def ask(fact: Fact) -> list[str]:
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
    plan = run(EVERYTHING, message, Envelope("a@b", "c@d"), ask, trace=True)
    assert plan.trace
    assert all(str(event).isprintable() for event in plan.trace)
    assert same(plan, run(EVERYTHING, Message(raw), Envelope("a@b", "c@d"), ask))


def same(one: Plan, other: Plan) -> bool:
    """Equal but for the trace."""
    return (one.actions, one.errors, one.implicit_keep) == (
        other.actions, other.errors, other.implicit_keep,
    )  # fmt: skip


@given(texts, mails)
def test_a_trace_changes_nothing(text: str, raw: bytes) -> None:
    """A Plan is the same whether somebody asks why or not, and never empty."""
    found = program(text)
    if found is None:
        return
    stage = Stage(found)
    plan = run(stage, Message(raw), ask=ask, trace=True)
    assert plan.actions
    assert same(plan, run(stage, Message(raw), ask=ask))
    assert same(plan, run(load(dump(found)), Message(raw), ask=ask, trace=True))


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
    st.tuples(st.one_of(anything, st.text(st.sampled_from("./~\\ \x00-aI"))), st.just(True)),
    max_size=4,
)


@given(pieces, st.booleans())
def test_folders_from_mail_are_safe(found: list[tuple[str, bool]], below: bool) -> None:
    """What comes from the mail makes one level, which is a folder that can be."""
    name = folder(((("lists/", False),) if below else ()) + tuple(found))
    assert name.isprintable() or not name.isascii()
    levels = components(name)
    assert len(levels) <= 1 + below
    assert not any(level.startswith((".", "~")) or level != level.strip() for level in levels)
