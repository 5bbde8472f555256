"""The layout of rules: golden pairs in tests/layout, and what holds for all programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdaflow.lang import ir
from mdaflow.lang.flow import driver, to_ir
from mdaflow.lang.flow.layout import WIDTH, layout
from mdaflow.lang.limits import DEFAULTS
from mdaflow.lang.source import Source, SourceError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted((ROOT / "tests/layout").glob("*.rules"))
SHIPPED = sorted([*(ROOT / "rules").glob("*.rules"), *(ROOT / "contrib").rglob("*.rules")])


def bare(node: Any) -> Any:
    """A program without places, and without the texts that its nodes were written as."""
    if isinstance(node, ir.Branch) and node.name == node.text:
        node = node._replace(name="")  # a rule without a name is called by its head
    fields = getattr(node, "_fields", None)
    if fields:
        kept = {name: getattr(node, name) for name in fields if name not in ("span", "text")}
        return type(node).__name__, {name: bare(value) for name, value in kept.items()}
    return [bare(inner) for inner in node] if isinstance(node, tuple) else node


def meaning(text: str) -> object:
    """The program of a text, and what is wrong with its form, without places."""
    program, problems = to_ir(Source(text))
    return bare(program), [problem.code for problem in problems]


def comments(text: str) -> list[str]:
    """The comments of a text, in their order."""
    tokens = list(driver.lex(text))
    ends = [0, *(token.end_pos for token in tokens)]
    starts = [*(token.start_pos for token in tokens), len(text)]
    gaps = "\n".join(text[end:start] for end, start in zip(ends, starts, strict=True))
    return [found.rstrip() for found in re.findall(r"#[^\n]*", gaps)]


def holds(text: str) -> None:
    """Everything that a layout promises."""
    found = layout(text)
    assert layout(found) == found
    assert meaning(found) == meaning(text)
    assert comments(found) == comments(text)
    assert found.endswith("\n") or not found
    assert not found.startswith("\n")
    assert not found.endswith("\n\n")


def wide(line: str) -> bool:
    """A line that could be shorter: more than a word, and what brackets hold."""
    return len(line) > WIDTH and len(re.findall(r'"(?:[^"\\]|\\.)*"|[^\s"]+', line)) > 4


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    """A text is laid out as the file beside it."""
    text, want = path.read_text(), path.with_suffix(".want").read_text()
    assert layout(text) == want
    holds(text)
    assert not any(wide(line) for line in want.splitlines() if "/" not in line)


def test_goldens_are_there() -> None:
    """Every wanted text has its source."""
    wanted = sorted(path.with_suffix(".rules") for path in (ROOT / "tests/layout").glob("*.want"))
    assert wanted == GOLDEN
    assert len(GOLDEN) >= 6


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_rules(path: Path) -> None:
    """The rules that are shipped are laid out already."""
    text = path.read_text()
    holds(text)
    assert layout(text) == text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ""),
        (" \n\r\n\t", ""),
        ("# only this", "# only this\n"),
        ("\n\n#a\n\n\n#b\n\n", "#a\n\n#b\n"),
        ("keep", "keep\n"),
        ("\ufeffkeep".encode(), "keep\n"),
        (
            b"keep # a\r\n\r\n\r\nif a exists {\r\n    stop\r\n}\r\n",
            "keep  # a\n\nif a exists {\n    stop\n}\n",
        ),
        ('deliver to "ü" # ü'.encode(), 'deliver to "ü"  # ü\n'),
    ],
)
def test_small(text: str | bytes, want: str) -> None:
    """What has little in it; bytes are UTF-8, and Windows line ends become newlines."""
    assert layout(text) == want


def test_width() -> None:
    """A hundred columns are a line; one more is not, but comments do not count."""
    head, tail = 'if subject is "', '" { keep }'
    text = head + "x" * (WIDTH - len(head) - len(tail)) + tail
    assert layout(text) == f"{text}\n"
    assert layout(f"{text} # note") == f"{text}  # note\n"
    assert layout(text.replace("xx", "xxx", 1)).count("\n") == 3


def test_line_ends_in_strings() -> None:
    """The value of a string stays what it is, even if that is CR LF."""
    text = 'if a exists { reject """\r\n  a\r\n\r\n  b\r\n  """ }'
    assert layout(text) == ('if a exists {\n    reject """\r\n    a\r\n\r\n    b\r\n    """\n}\n')
    holds(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("deliver nowhere", "rules:1:9"),
        ("keep ;", "rules:1:6"),
        ("if subject is 'x' { keep }", "rules:1:15"),
        ("keep \x00", "rules:1:6"),
        (b"keep \xff", "rules:1:6"),
        ("if a { " * 40 + "}" * 40, "rules:1:"),
        (b"#" * (DEFAULTS.file + 1), "rules:1:1: larger than 2 MiB"),
        ("if a {" * 31 + "keep " * 100_000 + "}" * 31, "rules:1:1: larger than 2 MiB"),
    ],
)
def test_errors(text: str | bytes, complaint: str) -> None:
    """What is no program, or would be too large a one, is an error with its place."""
    with pytest.raises(SourceError) as error:
        layout(text)
    assert complaint in str(error.value)


def test_names_may_be_unknown() -> None:
    """Only syntax counts: what words mean is not asked."""
    text = 'if nobody.knows is "it" { deliver to "\\q{" }\n'
    assert layout(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "if " + "(" * 5000 + "a or b" + ")" * 5000 + " { keep }",
        "if " + "(a or b and " * 3000 + "a" + ")" * 3000 + " { keep }",
        "if " + "not " * 5000 + "a { keep }",
        "if " + " or ".join(['a in ["' + "b" * 100 + '"]'] * 2000) + " { keep }",
        "if a { }" + " elif a { }" * 4000,
        "if a " + "# c\n" * 5000 + "and b # d\n" * 5000 + "{ keep }",
        'test "x" { given ' + ", ".join(["a = 1"] * 5000) + "}",
        "flag [" + '"a" # b\n , # c\n' * 5000 + "]",
        'reply """' + "\n  x" * 20_000 + '\n """',
        "keep" + "\n" * 1_000_000,
    ],
)
def test_large(text: str) -> None:
    """What is large or deep in one way is laid out like anything else."""
    found = layout(text)
    assert layout(found) == found
    assert comments(found) == comments(text)


# all programs

words = st.sampled_from(
    ['"x"', '"{subject|first 3}"', '"\\u{e4}{{}}"', '""', '"' + "long " * 12 + '"', '"# no note"']
)
long_strings = st.one_of(
    st.sampled_from(['"""one line"""', '"""\n x"""', '"""\n\\n    x\n    """', '"""   """']),
    st.lists(
        st.sampled_from(["", " ", "  x", "    x {subject}", "        x", "\t\tx", "\r", "  \\\\n"]),
        max_size=4,
    ).flatmap(
        lambda lines: st.sampled_from(["", "  ", "    ", "\t", "        "]).map(
            lambda indent: '"""' + "\n".join([*lines[:1], *lines, indent]) + '"""'
        )
    ),
)
strings = st.one_of(words, words, long_strings)
items = st.one_of(
    st.lists(words, max_size=4).map(lambda found: " ".join(["[", *_commas(found), "]"])),
    st.lists(words, min_size=1).map(lambda found: " ".join(["[", *_commas(found), ", ]"])),
)
durations = st.sampled_from(["30 days", "1minute", "2\n\thours"])
names = st.sampled_from(["a", "b.c", "wörd", "subject", "from", "header", "expire", "score"])
separators = st.one_of(
    *[st.just(" ")] * 5,
    st.sampled_from(["\n", "\r\n", "\n\n\n", "\t "]),
    st.sampled_from(["  # end\n", "# end\r\n\n", "\n# own\n", " # a\n#b \n\n  # c # d\n\n"]),
)


def _commas(found: list[str]) -> list[str]:
    return [word for item in found for word in (",", item)][1:]


def phrase(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """Parts behind each other; NUL is where a separator goes."""
    found = [st.just(part.replace(" ", "\0")) if isinstance(part, str) else part for part in parts]
    return st.tuples(*found).map("\0".join)


def spaced(text: str) -> str:
    """Where a word of what was drawn whole ends."""
    return re.sub(r" (?=[\[\],])|(?<=[\[\],]) ", "\0", text)


lists = items.map(spaced)
subjects = st.one_of(
    names,
    phrase("every raw", names),
    phrase("header", words),
    phrase("header", lists),
)
values = st.one_of(
    strings,
    lists,
    phrase("all exactly", lists),
    durations,
    st.sampled_from(["5M", r"/a(b)? #[/\]]\/x/cs", "known"]),
)
comparisons = st.one_of(
    subjects,
    phrase(subjects, st.sampled_from(["is", "is\0not", "not\0contains", "starts\0with"]), values),
    phrase(subjects, st.sampled_from(["matches", "not\0in", "=", "!=", ">="]), values),
    phrase(subjects, "between", values, "and", values),
    phrase(subjects, "exists"),
    st.sampled_from(["true", "false"]),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        phrase("not", inner),
        phrase("(", inner, ")"),
        phrase("attachment where (", inner, ")"),
        phrase(inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=8,
)
actions = st.one_of(
    phrase("deliver to", strings, "with flags", lists, "expire", durations),
    phrase("keep with flag", words),
    phrase("forward to", lists),
    phrase("pipe to", lists, "within", durations, "locked", words),
    phrase("reply", strings, "subject", words, "every", durations, "from", words),
    phrase("reply", strings, "html", strings, "as", words, "between", words, "and", words),
    phrase("remember", words, "for", durations),
    st.sampled_from(["keep", "discard", "learn\0spam"]),
)
simple = st.one_of(
    actions,
    phrase("also keep"),
    phrase("set", names, "=", st.one_of(strings, lists)),
    phrase("set header", words),
    phrase("remove header", words, "matches", strings),
    phrase("score", names, "+= 2.5"),
    phrase("score", names, "-= 1 per match of /x/ in", subjects, "at most 10"),
    phrase("filter through", lists, "within", durations),
    phrase(st.sampled_from(["flag", "unflag"]), st.one_of(words, lists)),
    st.just("stop"),
)
statements = st.recursive(
    simple,
    lambda inner: st.one_of(
        phrase(inner, inner),
        phrase("if", conditions, "{", inner, "}"),
        phrase("if", conditions, "{", inner, "} else {", inner, "}"),
        phrase("if", conditions, "{ } elif", conditions, "{", inner, "} else { }"),
    ),
    max_leaves=5,
)
tests = phrase(
    'test "t" { message',
    strings,
    "given",
    names,
    "=",
    lists,
    ",",
    names,
    words,
    "= 5M expect not",
    actions,
    'expect rule "R" }',
)
pieces = st.one_of(
    statements,
    phrase("rule", words, "when", conditions, "{", statements, "}"),
    phrase("rule when", conditions, "{", statements, "} otherwise {", statements, "}"),
    phrase("list", names, "=", lists),
    phrase("list", names, "from", words),
    phrase("import", words),
    phrase("alias", words, "to", lists),
    tests,
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Programs with anything that can stand between their words."""
    program = "\0".join(["", *draw(st.lists(pieces, max_size=4)), ""])
    first, *rest = program.split("\0")
    return first + "".join(draw(separators) + word for word in rest)


@given(texts())
@settings(max_examples=200)
@example("if a # b\n { # c\n keep }")
@example('flag ["a" # b\n , # c\n ]')
def test_layout(text: str) -> None:
    """A layout changes no meaning and no comment, and to do it again changes nothing."""
    holds(text)


SOUP = [
    *("if", "a", "{", "}", "else", "keep", "#c\n", "\n", '"x"', "[", "]", ",", "rule", "when", "("),
    *(
        ")",
        "and",
        "or",
        "not",
        "is",
        '"""\nx\n """',
        "5",
        "days",
        "/a/",
        "'",
        ";",
        "\x00",
        "between",
    ),
    *("test", "expect", "given", "=", "list", "\r\n", "ü", "\u2028", "\ufeff", "deliver", "to"),
]


@given(
    st.one_of(
        st.binary(max_size=100),
        st.text(max_size=80),
        st.lists(st.sampled_from(SOUP), max_size=25).map(" ".join),
    )
)
@example("#\x1c\n#a\u2028b\rc")
def test_any_text(text: str | bytes) -> None:
    """Any bytes and any text can be laid out, or have problems with places."""
    try:
        found = layout(text)
    except SourceError as error:
        assert error.problems  # noqa: PT017
        return
    holds(found if isinstance(text, bytes) else text)
