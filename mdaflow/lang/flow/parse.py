"""Text to tree. Every syntax error is reported, each with what could have stood there.

After an error the parser goes on at the next statement that begins a line, or behind the
block it was in: tokens are skipped to that point and the parser's stack is cut back until it
takes the one that stands there.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from mdaflow.lang.source import MAX_PROBLEMS, Problem, Source, near, one_of

from . import driver, grammar

if TYPE_CHECKING:  # Lark is for errors
    from lark import Lark, Token
    from lark.exceptions import UnexpectedToken

MAX_PIECES = 200_000
"""Words, strings and signs of a text; it takes some 10 µs to read one."""

_FILE_WORDS = ("rule", "list")
_STATEMENT_WORDS = (
    "if", "set", "deliver", "keep", "discard", "reject", "defer", "flag", "unflag", "stop", "also",
)  # fmt: skip
_SYNC = frozenset(word.upper() for word in (*_FILE_WORDS, *_STATEMENT_WORDS))
_OUTSIDE = frozenset(word.upper() for word in _FILE_WORDS)

JUNK = {
    "OPEN_LONG": 'this long string is not closed; end it with """',
    "BAD_NUMBER": "this is no number; write 10, 2.5, 5K, 5M or 30 days",
    "QUOTE": 'this string is not closed; end it with " on the same line, or use """',
    "SINGLE_QUOTED": 'strings are written in double quotes: "…"',
    "CURLY_QUOTED": 'these quotes are typographic; write straight ones: "…"',
    "OPEN_REGEX": "this regular expression is not closed; end it with / on the same line",
    "C_OPERATOR": "this operator is not of this language; write and, or, not, =, !=",
    "SEMICOLON": "statements need no ';'; leave it out",
    "UNKNOWN": "this character means nothing here",
}

# What could stand at a place, in words; groups first, so that a list of 15 words becomes one.
_GROUPS = (
    (frozenset(word.upper() for word in _STATEMENT_WORDS), "a statement"),
    (frozenset({"QUANTIFIER", "RAW", "NOT", "LPAR", "TRUE", "FALSE"}), "a condition"),
    (frozenset({"WORD", "FROM", "TO"}), "a subject"),
    (frozenset({"IS", "CONTAINS", "COMPARE"}), "an operator (is, contains, matches, in, = …)"),
    (frozenset({"EXACTLY", "REGEX", "NUMBER"}), "a value"),
)
_IN_GROUP = {
    "a condition": {"WORD", "FROM", "TO"},
    "an operator (is, contains, matches, in, = …)": {
        "NOT", "EQUAL", "STARTS", "ENDS", "MATCHES", "IN", "EXISTS", "BETWEEN", "STRING", "LSQB",
    },
    "a value": {"ALL", "STRING", "LONG_STRING", "DURATION", "LSQB", "WORD"},
    "a statement": set(),
    "a subject": set(),
}  # fmt: skip
_NAMES = {
    "$END": "the end of the file", "LBRACE": "'{'", "RBRACE": "'}'", "LPAR": "'('", "RPAR": "')'",
    "LSQB": "a list […]", "RSQB": "']'", "COMMA": "','", "EQUAL": "'='", "COMPARE": "a comparison",
    "STRING": "a string", "LONG_STRING": "a string", "REGEX": "a /regular expression/",
    "NUMBER": "a number", "DURATION": "a time", "WORD": "a word", "QUANTIFIER": "'every'",
}  # fmt: skip
# What is often written: the word before, what comes -> what is meant.
_HINTS = {
    ("else", "IF"): "; did you mean 'elif'?",
    ("header", "WORD"): '; a name stands in quotes, header "X"',
}
_LAST_WORD = re.compile(r"(\w+)\s*\Z")
_PIECE = re.compile(r'#[^\n]*|"(?:[^"\\\n]|\\.)*+"|[\w.]+|[^\w\s]')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@cache
def _lark() -> Lark:
    return grammar.build()


def parse_tree(source: Source) -> tuple[Any, list[Problem]]:
    """The tree of a text, without the statements that could not be read, and all problems.

    The tree is None when nothing can be made of the text.
    """
    if control := _CONTROL.search(source.text):
        at = control.start()
        return None, [Problem(source.span(at, at + 1), "a control character has no place here")]
    if len(source.text) > MAX_PIECES and sum(1 for _ in _PIECE.finditer(source.text)) > MAX_PIECES:
        start = source.span(0, 0)
        return None, [Problem(start, f"more than {MAX_PIECES:,} words; a shorter file is needed")]
    was_enabled = gc.isenabled()
    gc.disable()  # a large tree is all live: collecting it again and again doubles the time
    try:
        tree = driver.parse(source.text)
        return _explain(source) if tree is None else (tree, [])
    finally:
        if was_enabled:
            gc.enable()


def _explain(source: Source) -> tuple[Any, list[Problem]]:
    from lark.exceptions import UnexpectedToken

    problems: list[Problem] = []
    spoiled: dict[int, bool] = {}  # lines where one thing is said already: was a { lost in it?
    for token in _lark().lex(source.text):
        if token.type in JUNK:
            span = source.span(token.start_pos or 0, token.end_pos or 0)
            problems.append(Problem(span, JUNK[token.type]))
            spoiled[span.line] = token.count("{") > token.count("}")

    def on_error(error: Exception) -> bool:
        assert isinstance(error, UnexpectedToken)  # the lexer takes any character
        problem = _problem(error, source)
        line = problem.span.line
        if line not in spoiled:
            problems.append(problem)
        return len(problems) < MAX_PROBLEMS and _recover(
            error, source.text, spoiled.get(line, True)
        )

    try:
        return _lark().parse(source.text, on_error=on_error), problems
    except UnexpectedToken:
        return None, problems


def _problem(error: UnexpectedToken, source: Source) -> Problem:
    token = error.token
    start = token.start_pos or 0
    parser: Any = error.interactive_parser
    accepted: set[str] = parser.accepts()
    expected = _expected(accepted)
    span = source.span(start, start + len(token))
    if token.type in _OUTSIDE and "RBRACE" in accepted:
        return Problem(span, f"'{token}' cannot stand in a block: is a '}}' missing before it?")
    missing = _end_of_line_before(token, source.text)
    if missing is not None and (token.type == "$END" or not accepted >= _SYNC - _OUTSIDE):
        found = "the file ends" if token.type == "$END" else "the line ends"
        end = source.span(missing - 1, missing)
        return Problem(end, f"{found} too early: expected {expected}")
    words = [name.lower() for name in accepted - JUNK.keys() - _NAMES.keys()]
    before = _LAST_WORD.search(source.text[max(0, start - 40) : start])
    hint = _HINTS.get((before[1] if before else "", token.type), "")
    if not hint and token.type == "WORD":
        hint = near(str(token), words)
    shown = str(token) if len(token) <= 40 else f"{token[:40]}…"
    return Problem(span, f"unexpected '{shown}': expected {expected}{hint}")


def _end_of_line_before(token: Token, text: str) -> int | None:
    """Where the text before a token ends, when the token begins a line: what is missing there."""
    before = text if token.type == "$END" else text[: token.start_pos]
    if token.type != "$END" and not _begins_line(token, text):
        return None
    *lines, last = before.split("\n")
    end = len(before)
    for line in [last, *reversed(lines)]:
        if line.strip() and not line.lstrip().startswith("#"):
            return end - len(line) + len(line.rstrip())
        end -= len(line) + 1
    return None


def _begins_line(token: Token, text: str) -> bool:
    start = token.start_pos or 0
    return not text[text.rfind("\n", 0, start) + 1 : start].strip()


def _expected(accepted: set[str]) -> str:
    names = set(accepted) - JUNK.keys()
    words: list[str] = []
    for members, title in _GROUPS:
        if members <= names:
            words.append(title)
            names -= members | _IN_GROUP[title]
    words += sorted({_NAMES.get(name, f"'{name.lower()}'") for name in names})
    return one_of(words) or "nothing more"


def _recover(error: UnexpectedToken, text: str, brace: bool) -> bool:
    """Bring the parser to a place where it can go on; false when there is none.

    `brace`: where one is missing it is put in.
    """
    parser: Any = error.interactive_parser
    first = error.token
    if brace and first.type in _SYNC - _OUTSIDE and "LBRACE" in parser.accepts():
        parser.feed_token(first.new_borrow_pos("LBRACE", "{", first))  # the one that was forgotten
        parser.feed_token(first)
        return True
    depth, line = 0, 0 if _begins_line(first, text) else first.line or 0
    for token in chain([first], _rest(parser)):
        begins_line = token.line > line
        line = token.end_line or token.line or 0
        if token.type == "LBRACE":
            depth += 1
        elif token.type == "RBRACE" and depth:
            depth -= 1
        elif not depth and (
            token.type == "RBRACE" or (begins_line and token.type in _SYNC)
        ) and _cut_back(parser, token.type):  # fmt: skip
            parser.feed_token(token)
            return True
    return _cut_back(parser, "$END")


def _rest(parser: Any) -> Iterator[Token]:
    yield from parser.lexer_thread.lex(parser.parser_state)


def _cut_back(parser: Any, wanted: str) -> bool:
    """Drop what was begun and not ended, until a token of this type fits."""
    state = parser.parser_state
    saved = list(state.state_stack), list(state.value_stack)
    table = state.parse_conf.states
    # looking into the table costs nothing; `accepts` tells the truth, at the price of a trial
    while wanted not in table[state.state_stack[-1]] or wanted not in parser.accepts():
        if len(state.state_stack) == 1:
            state.state_stack[:], state.value_stack[:] = saved
            return False
        state.state_stack.pop()
        state.value_stack.pop()
    return True
