"""Bad rules: each problem at its place and in its words, all of them and no others.

In tests/errors/*.rules a comment beside the line says what is wrong with it, or one next to
it when the line leaves no room: `# error: COLUMN: message`, `# error above: ...`, `below`. A first
line `# may: deliver keep` says what the owner may do. Together with the texts below, which are
too large or are no text, they earn every message that there is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mdaflow.lang import MAX_FILE, check, compile_rules, files, ir
from mdaflow.lang.flow import driver, grammar, hints, lower, parse
from mdaflow.lang.limits import DEFAULTS
from mdaflow.lang.messages import ERRORS
from mdaflow.lang.source import MAX_PROBLEMS, Problem, SourceError

FILES = sorted((Path(__file__).parent / "errors").glob("*.rules"))
_NOTE = re.compile(r"# error(?: (above|below))?: (\d+): (.*?)(?=  # error|$)")
_LINE = {"above": -1, "below": 1, None: 0}

Files = tuple[tuple[str, bytes], ...]


@cache
def found(
    text: str | bytes, powers: tuple[str, ...] = ir.POWERS, others: Files | None = ()
) -> tuple[Problem, ...]:
    """What is wrong with a text in a file `rules/r`, beside which there are others, or none."""

    def read(path: str) -> bytes:
        if path in dict(others or ()):
            return dict(others or ())[path]
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    with pytest.raises(SourceError) as caught:
        compile_rules(text, "rules/r", powers, None if others is None else read)
    return caught.value.problems


def said(problems: tuple[Problem, ...]) -> list[str]:
    """Line, column and message; with the file if it is another one."""
    return [f"{p.span.line}:{p.span.column}: {p.message}" for p in problems]


def powers_of(text: str) -> tuple[str, ...]:
    may = re.match(r"# may: (.*)\n", text)
    return tuple(may[1].split()) if may else ir.POWERS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bad_rules_give_their_problems_and_no_others(path: Path) -> None:
    """Each bad file gives exactly the problems that are written in it."""
    text = path.read_text("utf-8")
    wanted = [
        f"{number + _LINE[note[1]]}:{note[2]}: {note[3]}"
        for number, line in enumerate(text.split("\n"), 1)
        for note in _NOTE.finditer(line)
    ]
    assert wanted, "the file says no error"
    assert said(found(text, powers_of(text))) == wanted


# What is shown


def shown(text: str) -> list[str]:
    """The lines that the author of a text sees."""
    with pytest.raises(SourceError) as caught:
        compile_rules(text, "my.rules")
    return str(caught.value).split("\n")


def test_the_line_is_shown_with_a_caret() -> None:
    """The text of all problems shows each line with carets below the place, tabs kept."""
    assert shown('keep\n\tif\tsubjct is "a" {}\r\nif size > 5x {}\r\nlist a =\r\n') == [
        "my.rules:2:5: unknown subject 'subjct'; did you mean 'subject'?",
        '    \tif\tsubjct is "a" {}',
        "    \t  \t^^^^^^",
        "my.rules:3:11: this is no number; write 10, 2.5, 5K, 5M or 30 days",
        "    if size > 5x {}",
        "              ^^",
        'my.rules:4:8: the file ends too early: expected a list ["…"]',
        "    list a =",
        "           ^",
    ]


def test_a_long_line_is_cut_around_the_place() -> None:
    """Of a long line the part around the place is shown, of a long word its beginning."""
    message, line, carets = shown(f"if true {{ {' ' * 5000} if {'x' * 5000} exists {{}} }}")
    assert message.startswith("my.rules:1:5015: unknown subject 'xxx")
    assert len(message) < 600
    assert line.strip().startswith("if xxx")
    assert (carets.index("^"), len(carets), len(line)) == (line.index("x"), 124, 124)
    (message, *_) = shown(f'keep """\n{"x" * 500}"""')
    assert message == (
        f"my.rules:1:6: unexpected '\"\"\" {'x' * 36}…': expected 'expire', 'with' or a statement"
    )


def test_nothing_of_the_file_moves_the_terminal() -> None:
    """Neither the message nor the line shows what controls a terminal, or turns its direction."""
    lines = shown('flag "\\u{1b}[2J\\u{202e}\\u{7f}" # \u202e\u2028\ufeff')
    assert all(line.isprintable() for line in lines)
    assert "unknown flag '\ufffd[2J\ufffd\ufffd'" in lines[0]
    assert lines[1].endswith("# \ufffd\ufffd\ufffd")


# Bytes and files

_CONTROL = ["2:3: a control character has no place here"]
BYTES = {
    **{f"control {ord(char)}": (f"keep\n# {char}", _CONTROL) for char in "\0\x1b\x7f\x85\x9b"},
    "latin-1": (
        'keep # ü\ndeliver to "Gr'.encode() + 'üße"'.encode("latin-1"),
        ["2:15: this is not UTF-8; save the file as UTF-8"],
    ),
    "utf-16": ("keep".encode("utf-16"), ["1:1: this is not UTF-8; save the file as UTF-8"]),
    "a surrogate": (b"keep\xed\xa0\x80", ["1:5: this is not UTF-8; save the file as UTF-8"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_text(name: str) -> None:
    """A file with control characters or of another charset is told where."""
    text, wanted = BYTES[name]
    assert said(found(text)) == wanted


def test_byte_order_mark_and_line_ends_of_windows() -> None:
    """A file that was written on Windows is as good as another."""
    text = '\ufeffrule "x" when size > 5 {\r\n\tdeliver to "a" # x\r\n}\r\n'.encode()
    (branch,) = compile_rules(text).body
    assert isinstance(branch, ir.Branch)
    assert (branch.text, branch.span[1:]) == ('rule "x" when size > 5', (1, 1, 3, 2))


def chain(length: int) -> Files:
    """Files of which each imports the next."""
    names = [f"rules/{number}" for number in range(length)]
    return tuple((name, f'import "{n + 1}"'.encode()) for n, name in enumerate(names))


IMPORTS: dict[str, tuple[str, Files | None, list[str]]] = {
    "in no file": (
        'import "a"\nlist b from "b"',
        None,
        [
            "rules/r:1:8: this text is in no file, so it cannot name others",
            "rules/r:2:13: this text is in no file, so it cannot name others",
        ],
    ),
    "outside": (
        'import "../a"\nimport "/etc/passwd"\nimport "a/../../b"\nimport ""\nlist c from "/c"',
        (),
        [
            "rules/r:1:8: '../a' is not below the folder of the first file",
            "rules/r:2:8: '/etc/passwd' is not below the folder of the first file",
            "rules/r:3:8: 'a/../../b' is not below the folder of the first file",
            "rules/r:4:8: '' is not below the folder of the first file",
            "rules/r:5:13: '/c' is not below the folder of the first file",
        ],
    ),
    "missing": (
        'import "a"\nlist b from "b.txt"',
        (),
        [
            "rules/r:1:8: 'rules/a' cannot be read: No such file or directory",
            "rules/r:2:13: 'rules/b.txt' cannot be read: No such file or directory",
        ],
    ),
    "itself": ('import "./r"', (), ["rules/r:1:8: './r' imports itself"]),
    "in a circle": (
        'import "sub/a"',
        (("rules/sub/a", b'keep\nimport "../r"'),),
        ["rules/sub/a:2:8: '../r' imports itself"],
    ),
    "deep": (
        'import "0"',
        chain(20),
        [f"rules/{DEFAULTS.imports - 1}:1:8: imports are more than {DEFAULTS.imports} levels deep"],
    ),
    "many": (
        'import "a"\n' * (files.MAX_IMPORTS + 1),
        (("rules/a", b"keep"),),
        [f"rules/r:{files.MAX_IMPORTS + 1}:8: more than {files.MAX_IMPORTS} imports"],
    ),
    "large": (
        'import "a"',
        (("rules/a", b"#" * MAX_FILE),),
        ["rules/r:1:8: all files are larger together than 2 MiB"],
    ),
    "wrong": (
        'import "a"\nkepe',
        (("rules/a", b'delivr to "x"\nif subjct is "a" { keep }'), ("rules/b", b"\xff")),
        [
            "rules/a:1:1: unexpected 'delivr': expected a statement; did you mean 'deliver'?",
            "rules/a:2:4: unknown subject 'subjct'; did you mean 'subject'?",
            "rules/r:2:1: unexpected 'kepe': expected a statement; did you mean 'keep'?",
        ],
    ),
    "not UTF-8": (
        'import "a"',
        (("rules/a", b"keep\n\xff"),),
        ["rules/a:2:1: this is not UTF-8; save the file as UTF-8"],
    ),
    "what could not be read is not looked for": (
        "import a\nlist b from c\nimport 'x'",
        (),
        [
            "rules/r:1:8: unexpected 'a': expected a string; a text stands in quotes: \"a\"",
            "rules/r:2:13: unexpected 'c': expected a string; a text stands in quotes: \"c\"",
            'rules/r:3:8: strings are written in double quotes: "…"',
        ],
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_imports(name: str) -> None:
    """Problems of imported files are told with their file, those of an import where it stands."""
    text, others, wanted = IMPORTS[name]
    assert [f"{p.span}: {p.message}" for p in found(text, ir.POWERS, others)] == wanted


# Limits


def deep(before: str, inside: str, after: str, levels: int) -> str:
    return before * levels + inside + after * levels


LIMITS = {
    "file": ("#" * (MAX_FILE + 1), "1:1: larger than 2 MiB"),
    "ten megabytes": ("keep\n" * (2 << 20), "1:1: larger than 2 MiB"),
    "words": (
        "keep " * (parse.MAX_PIECES + 1),
        "1:1: more than 200,000 words; a shorter file is needed",
    ),
    "words that look like comments": (
        f"if subject matches /#/ {{ {'keep ' * parse.MAX_PIECES} }} x",
        "1:1: more than 200,000 words; a shorter file is needed",
    ),
    "rules": (
        "rule{}" * (DEFAULTS.rules + 1),
        "1:60001: more than 10,000 rules in one file",
    ),
    "blocks": (
        deep("if true {\n", "keep", "}", DEFAULTS.nesting + 1),
        "33:9: this is nested more than 32 levels deep",
    ),
    "ten thousand blocks": (
        deep("if true {", "keep", "}", 10_000),
        "1:297: this is nested more than 32 levels deep",
    ),
    "conditions": (
        "if " + deep("not ", "true", "", DEFAULTS.nesting + 1) + " {}",
        "1:132: this is nested more than 32 levels deep",
    ),
    "ten thousand negations": (
        "if " + deep("not ", "true", "", 10_000) + " {}",
        "1:132: this is nested more than 32 levels deep",
    ),
    "elif": (
        "if true {}\n" + "elif true {}\n" * (lower.MAX_ELIFS + 1),
        "1:1: more than 100 elif; write rules instead",
    ),
    "elif in elif": (
        deep("if true {} elif true {}\nelse {", "", "}", 20)
        .replace("else {}", "elif true {} " * (lower.MAX_ELIFS - 19)),
        "20:7: more than 100 elif; write rules instead",
    ),
    "pattern": (
        r"if subject matches /(\pL{100}){10}/ {}",
        "1:20: not a regular expression of RE2: pattern too large - compile failed",
    ),
    "glob": (
        f'if subject matches "*{"x" * 200_000}" {{}}',
        "1:20: this pattern is too large",
    ),
    "lists": (
        "list known = [" + '"a", ' * 1000 + "]\n" + "if subject contains known {}\n" * 501,
        "502:21: the lists of all tests up to this one are too long together",
    ),
    "patterns": (
        "if subject matches /\\pL+/ {}\n" * (check.MAX_INSTRUCTIONS // 500),
        ": all patterns up to this one are too large together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str) -> None:
    """What would cost too much is refused with one problem."""
    text, message = LIMITS[name]
    (problem,) = said(found(text))
    assert problem.endswith(message) if message[0] == ":" else problem == message


NEARLY = {
    "blocks": deep("if true {", "keep", "}", DEFAULTS.nesting),
    "conditions": "if " + deep("not ", "true", "", DEFAULTS.nesting) + " {}",
    "parentheses": "if " + deep("(", "size > 5", ")", 10_000) + " {}",
    "elif": "if true {}" + "elif true {}" * lower.MAX_ELIFS,
    "long chains": "if " + " or ".join(["size > 5 and true"] * 2000) + " {}",
}


@pytest.mark.parametrize("text", NEARLY.values(), ids=NEARLY)
def test_below_the_limits(text: str) -> None:
    """What is just allowed compiles."""
    assert compile_rules(text).body


def test_many_problems() -> None:
    """Of very many problems the first ones are said."""
    problems = said(found("if subjct exists {}\n" * 1000))
    assert len(problems) == MAX_PROBLEMS
    assert problems[-1].startswith(f"{MAX_PROBLEMS}:4: unknown subject 'subjct'")
    for line in ("deliver\n", ";\n", "foo\n", "if a && b\n", 'log "\n', "@\n", "}\n{\n"):
        assert len(found(line * 1000)) <= MAX_PROBLEMS


HOSTILE = [
    "1" * 100_000 + "x",
    '"""\n' + '\\"""\n' * 20_000,
    "if subject matches /" + "[^a]" * 20_000,
    "if subject matches /" + "[]a]" * 20_000,
    'set x = "{a' + " " * 100_000 + '}"',
    'set x = "{subject|' + "9" * 100_000 + '}"',
    'set x = "{subject|first ' + "9" * 5000 + '}"',
    "'" * 50_000,
    "(" * 50_000,
    "{" * 50_000,
    "}" * 50_000,
    "if size > " + "9" * 5000 + " or size > 1.x {}",
    "if not " * 2_000,
    "if " * 50_000,
    "if " + "not " * 50_000,
    "if " + "(" * 50_000,
    "if true {\n" * 20_000 + "foo\n" * 300,
    ("if " + "not " * 300 + "a b {}\n") * 200,
    'test "x" {\nfoo\n' + "keep\n" * 50_000,
    "a\n" * 20_000,
    "a " * 50_000,
    "&& " * 50_000,
    "@ " * 50_000,
    "/* " * 50_000,
    'log "{\n' * 20_000,
    "list a = [" + '"b" ' * 50_000,
    "if from is " + "x y " * 40_000 + "\n",
    "if " + "a." * 50_000,
    "rule {\n" * 20_000,
    "if true {} else " * 20_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_have_an_end(text: str) -> None:
    """No text takes time that grows faster than it, or breaks a limit of Python."""
    problems = found(text)
    assert 0 < len(problems) <= MAX_PROBLEMS
    assert all(len(str(problem)) < 600 for problem in problems)


# One mistake, one message

SOUND = r"""
import "known"
list friends = ["a@example.com", "b@example.com"]
list blocked from "known"
alias "sales" to ["ann", "bob@example.org"]
rule "Board" when from in known and subject starts with "x" { flag "\\Seen" deliver to "Board" }
rule "y" when header "X" matches /<([^.>]+)/ { deliver to "lists/{1}" } otherwise { keep }
if size > 5M or (attachment.count > 20 and not spam) { keep } elif true { stop } else { stop }
set a = "{subject|lower}"
also deliver to "a" with flags ["\\Seen"] expire 30 days
keep expire 2 hours with flag "a"
reject "no"
quarantine
forward to ["a@b.example", "c@d.example"]
pipe to ["prog", "arg"] within 30 seconds locked "x"
reply "text" subject "s" every 7 days from "a@b.example"
notify "a@b.example" "text"
remember "key" for 7 days
learn spam
unflag ["\\Seen", "a"]
add header "X: v"
remove header "X" matches /a/
score z += 2.5 per match of /re/ in body at most 10
filter through ["prog"] within 30 seconds
if attachment where (type is "application/pdf" and size < 5M) { keep }
if every to in known and raw header ["X", "Y"] not contains all ["a"] { keep }
if received between "2026-12-20" and "2027-01-05" or listed in "zone" { keep }
test "t" { message "x.eml" given spam = false, size = 0 expect deliver to "Board" with flag "a" }
""".strip().split("\n")
BEFORE, BEHIND = 'list known = ["a@b.example"]\nscore z += 1\n', '\nlog "x"\nif size > 5 { keep }\n'


def spoilt(line: str) -> Iterator[str]:
    """A line without one of its words, with it twice, with its words in another order, with
    another one, or only up to it; braces stay in their places."""
    tokens = list(driver.lex(line))
    for one, two in zip(tokens, [*tokens[1:], None], strict=True):
        start, end, rest = line[: one.start_pos], line[one.end_pos :], str(one)
        if rest in "{}":
            continue
        yield start + end
        yield f"{start}{rest} {rest}{end}"
        yield from (f"{start}{word}{end}" for word in (" foo ", ' "q" ', " 5 ", ", ", " deliver "))
        if "{" not in start:
            yield start
        if two is not None and two not in ("{", "}"):
            yield f"{start}{two} {rest} {line[two.end_pos :]}"


@pytest.mark.parametrize("line", SOUND, ids=lambda line: line.split()[0])
def test_a_mistake_is_said_once(line: str) -> None:
    """However a word of a line is spoilt, what is said is said of this line, once, and is short."""

    def read(path: str) -> bytes:
        if path == "known":
            return b""
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    compile_rules(BEFORE + line + BEHIND, read=read)
    for wrong in spoilt(line):
        try:
            compile_rules(BEFORE + wrong + BEHIND, read=read)
        except SourceError as error:
            problems = error.problems
            assert {problem.span.line for problem in problems} == {3}, wrong
            assert len(problems) == 1, wrong
            assert len(problems[0].message) < 250, wrong


# The tables


def test_every_message_is_earned() -> None:
    """Each message that there is can be had, by the texts of this file and of tests/errors."""
    texts = [path.read_text("utf-8") for path in FILES]
    earned = [found(text, powers_of(text)) for text in texts]
    earned += [found(text) for text, _ in [*LIMITS.values(), *BYTES.values()]]
    earned += [found(text, ir.POWERS, others) for text, others, _ in IMPORTS.values()]
    assert {problem.code for problems in earned for problem in problems} == ERRORS.keys()


def test_hints_speak_the_language() -> None:
    """What is proposed for words of other languages are words of this one."""
    keywords = grammar.load()["words"]
    for meant, others in hints.MEANT:
        assert set(meant.split()) <= keywords.keys()
        assert meant not in others.split()
