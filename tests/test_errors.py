"""Bad rules: each problem at its place and in its words, all of them and no others.

In tests/errors/*.rules a comment beside the line says what is wrong with it, or one next to
it when the line leaves no room: `# error: COLUMN: message`, `# error above: ...`, `below`. A first
line `# may: deliver keep` says which actions are allowed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdaflow.lang import MAX_FILE, check, compile_rules, ir
from mdaflow.lang.flow import lower, parse
from mdaflow.lang.source import MAX_PROBLEMS, SourceError

FILES = sorted((Path(__file__).parent / "errors").glob("*.rules"))
_NOTE = re.compile(r"# error(?: (above|below))?: (\d+): (.*?)(?=  # error|$)")
_LINE = {"above": -1, "below": 1, None: 0}


def problems(text: str | bytes, actions: tuple[str, ...] = ir.ACTIONS) -> list[str]:
    """What is wrong with a text: line, column and message."""
    with pytest.raises(SourceError) as caught:
        compile_rules(text, "r", actions)
    found = caught.value.problems
    assert "\n".join(map(str, found)) in str(caught.value) or caught.value.source
    return [f"{p.span.line}:{p.span.column}: {p.message}" for p in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bad_rules_give_their_problems_and_no_others(path: Path) -> None:
    """Each bad file gives exactly the problems that are written in it."""
    text = path.read_text("utf-8")
    may = re.match(r"# may: (.*)\n", text)
    wanted = [
        f"{number + _LINE[note[1]]}:{note[2]}: {note[3]}"
        for number, line in enumerate(text.splitlines(), 1)
        for note in _NOTE.finditer(line)
    ]
    assert wanted, "the file says no error"
    assert problems(text, tuple(may[1].split()) if may else ir.ACTIONS) == wanted


def test_the_line_is_shown_with_a_caret() -> None:
    """The text of all problems shows each line with carets below the place, tabs kept."""
    with pytest.raises(SourceError) as caught:
        compile_rules('keep\n\tif\tsubjct is "a" {}\nif size > 5x {}\n', "my.rules")
    assert str(caught.value).splitlines() == [
        "my.rules:2:5: unknown subject 'subjct'; did you mean 'subject'?",
        '    \tif\tsubjct is "a" {}',
        "    \t  \t^^^^^^",
        "my.rules:3:11: this is no number; write 10, 2.5, 5K, 5M or 30 days",
        "    if size > 5x {}",
        "              ^^",
    ]


def test_a_long_line_is_cut_around_the_place() -> None:
    """Of a long line the part around the place is shown, of a long word its beginning."""
    with pytest.raises(SourceError) as caught:
        compile_rules(f"if true {{ {' ' * 5000} if {'x' * 5000} exists {{}} }}")
    message, line, carets = str(caught.value).splitlines()
    assert message.startswith("rules:1:5015: unknown subject 'xxx")
    assert len(message) < 600
    assert line.strip().startswith("if xxx")
    assert (carets.index("^"), len(carets), len(line)) == (line.index("x"), 124, 124)


def test_no_control_character_of_the_file_reaches_the_terminal() -> None:
    """What was written as an escape is not printed as what it stands for."""
    with pytest.raises(SourceError) as caught:
        compile_rules('flag "\\u{1b}[2J\\u{202e}"')
    first = str(caught.value).splitlines()[0]
    assert first.isprintable()
    assert "unknown flag '\ufffd[2J\ufffd'" in first


@pytest.mark.parametrize("char", ["\0", "\x1b", "\x7f", "\x85", "\x9b"])
def test_control_characters(char: str) -> None:
    """A file with control characters is none, wherever they stand."""
    assert problems(f"keep\n# {char}") == ["2:3: a control character has no place here"]


def test_not_utf8() -> None:
    """A file in another charset is told where it is no UTF-8."""
    wrong = 'keep # ü\ndeliver to "Gr'.encode() + 'üße"'.encode("latin-1")
    assert problems(wrong) == ["2:15: this is not UTF-8; save the file as UTF-8"]


def test_byte_order_mark_and_line_ends_of_windows() -> None:
    """A file that was written on Windows is as good as another."""
    text = '\ufeffrule "x" when size > 5 {\r\n\tdeliver to "a" # x\r\n}\r\n'.encode()
    (branch,) = compile_rules(text).body
    assert isinstance(branch, ir.Branch)
    assert (branch.text, branch.span[1:]) == ('rule "x" when size > 5', (1, 1, 3, 2))


def test_many_problems() -> None:
    """Of very many problems the first ones are said."""
    found = problems("if subjct exists {}\n" * 1000)
    assert len(found) == MAX_PROBLEMS
    assert found[-1].startswith(f"{MAX_PROBLEMS}:4: unknown subject 'subjct'")
    assert len(problems("deliver\n" * 1000)) == MAX_PROBLEMS
    assert len(problems(";\n" * 1000)) == MAX_PROBLEMS


def deep(before: str, inside: str, after: str, levels: int) -> str:
    return before * levels + inside + after * levels


LIMITS = {
    "file": ("#" * (MAX_FILE + 1), "1:1: larger than 2 MiB"),
    "words": (
        "keep " * (parse.MAX_PIECES + 1),
        "1:1: more than 200,000 words; a shorter file is needed",
    ),
    "rules": (
        "rule{}" * (lower.MAX_RULES + 1),
        "1:60001: more than 10,000 rules in one file",
    ),
    "blocks": (
        deep("if true {\n", "keep", "}", lower.MAX_DEPTH + 1),
        "33:9: this is nested more than 32 levels deep",
    ),
    "conditions": (
        "if " + deep("not ", "true", "", lower.MAX_DEPTH + 1) + " {}",
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
    (problem,) = problems(text)
    assert problem.endswith(message) if message[0] == ":" else problem == message


NEARLY = {
    "blocks": deep("if true {", "keep", "}", lower.MAX_DEPTH),
    "conditions": "if " + deep("not ", "true", "", lower.MAX_DEPTH) + " {}",
    "parentheses": "if " + deep("(", "size > 5", ")", 1000) + " {}",
    "elif": "if true {}" + "elif true {}" * lower.MAX_ELIFS,
    "long chains": "if " + " or ".join(["size > 5 and true"] * 2000) + " {}",
}


@pytest.mark.parametrize("text", NEARLY.values(), ids=NEARLY)
def test_below_the_limits(text: str) -> None:
    """What is just allowed compiles."""
    assert compile_rules(text).body


@pytest.mark.parametrize(
    "text",
    [
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
        "if size > " + "9" * 5000 + " or size > 1.x {}",
        "if not " * 2_000,
        "a\n" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_have_an_end(text: str) -> None:
    """No text makes the lexer go back over it again and again, or breaks a limit of Python."""
    assert problems(text)
