"""What is wrong with a text that is no program: every syntax error, and what was expected.

After an error the parser goes on at the next statement that begins a line, or behind the
block it was in: tokens are skipped to that point and the parser's stack is cut back until it
takes the one that stands there. A brace that was forgotten before a statement is put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from mdaflow.lang.source import MAX_PROBLEMS, Problem, Source, Span, near, one_of

from . import grammar

if TYPE_CHECKING:
    from lark import Lark, Token

_STATEMENTS = frozenset(
    ("IF", "SET", "DELIVER", "KEEP", "DISCARD", "REJECT", "DEFER", "FLAG", "UNFLAG", "STOP", "ALSO")
)
_OUTSIDE = frozenset(("RULE", "LIST"))
_MISPLACED = frozenset(("WORD", "WHEN", "ELSE", "ELIF", "OTHERWISE"))
"""What begins no statement, and at the beginning of a line was meant to."""
_SYNC = _STATEMENTS | _OUTSIDE | {"RBRACE"}
"""Where the parser can go on."""

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
    (_STATEMENTS, "a statement"),
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
# Words of other filters, and what they are here.
_FOREIGN = {
    "fileinto": "; did you mean 'deliver to'?",
    "move": "; did you mean 'deliver to'?",
    "copy": "; did you mean 'also deliver to'?",
    "addflag": "; did you mean 'flag'?",
    "setflag": "; did you mean 'flag'?",
    "elsif": "; did you mean 'elif'?",
    **dict.fromkeys(("redirect", "forward", "vacation", "pipe"), "; rules cannot send mail"),
}
_LAST_WORD = re.compile(r"(\w+)\s*\Z")


@cache
def _lark() -> Lark:
    return grammar.build()


def explain(source: Source) -> tuple[Any, list[Problem]]:
    """The tree without the statements that could not be read, and all problems.

    The tree is None when nothing can be made of the text.
    """
    return _Explainer(source).explain()


class _Explainer:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.junk: dict[int, Token] = {}
        """The first of a line: what else is wrong there follows from it."""
        self.closed = 0
        """Blocks that we ended, whose brace may still come."""

    def explain(self) -> tuple[Any, list[Problem]]:
        from lark.exceptions import UnexpectedToken  # the only one: the lexer takes any character

        lark = _lark()
        for token in lark.lex(self.source.text):
            if token.type in JUNK and token.line not in self.junk and len(self.junk) < MAX_PROBLEMS:
                self.junk[token.line or 0] = token
        tree = None
        with suppress(UnexpectedToken):
            tree = lark.parse(self.source.text, on_error=self.error)
        for token in self.junk.values():
            self.problems.append(Problem(self.span(token), JUNK[token.type]))
        return tree, self.problems

    def span(self, token: Token) -> Span:
        start = token.start_pos or 0
        return self.source.span(start, start + len(token))

    def error(self, error: Any) -> bool:
        """Report a syntax error and bring the parser to a place where it can go on."""
        token, parser = error.token, error.interactive_parser
        if token.type == "RBRACE" and self.closed:
            self.closed -= 1
            return True
        brace = self.report(token, parser)
        return len(self.problems) < MAX_PROBLEMS and self.recover(token, parser, brace)

    def report(self, token: Token, parser: Any) -> bool:
        """Say what is wrong with a token; False when a brace on its line is none."""
        problem = self.problem(token, parser)
        said = self.junk.get(problem.span.line)
        if said and said.type == "UNKNOWN" and problem.span.column < (said.column or 0):
            said = self.junk.pop(problem.span.line) and None  # it may follow from this one
        if said is None:
            self.problems.append(problem)
            return True
        return said.count("{") > said.count("}")

    def problem(self, token: Token, parser: Any) -> Problem:
        """What is wrong with a token, as a sentence."""
        accepted: set[str] = parser.accepts()
        expected, span = _expected(accepted), self.span(token)
        if token.type in _OUTSIDE and "RBRACE" in accepted:
            open_blocks = [v for v in parser.parser_state.value_stack if _is_brace(v)]
            self.closed += len(open_blocks)
            return Problem(span, f"'{token}' cannot stand in a block: is a '}}' missing before it?")
        if token.type == "$END" or (self.begins_line(token) and not accepted >= _STATEMENTS):
            what = "file" if token.type == "$END" else "line"
            return Problem(
                self.end_before(token), f"the {what} ends too early: expected {expected}"
            )
        shown = str(token) if len(token) <= 40 else f"{token[:40]}…"
        hint = self.hint(token, accepted)
        return Problem(span, f"unexpected '{shown}': expected {expected}{hint}")

    def hint(self, token: Token, accepted: set[str]) -> str:
        start = token.start_pos or 0
        before = _LAST_WORD.search(self.source.text[max(0, start - 40) : start])
        if before and (before[1], token.type) in _HINTS:
            return _HINTS[before[1], token.type]
        quoted = "STRING" in accepted and not accepted & {"WORD", "IS", "IF", "WHEN"}
        if token.type == "WORD" and quoted:
            return f'; a text stands in quotes: "{token[:40]}"'
        if token.type == "WORD" and token in _FOREIGN:
            return _FOREIGN[token]
        words = [name.lower() for name in accepted - JUNK.keys() - _NAMES.keys()]
        return near(str(token), words) if token.type == "WORD" else ""

    def begins_line(self, token: Token) -> bool:
        start = token.start_pos or 0
        return not self.source.text[self.source.text.rfind("\n", 0, start) + 1 : start].strip()

    def end_before(self, token: Token) -> Span:
        """The last character of the text before a token: what is missing there."""
        text = self.source.text
        end = len(text) if token.type == "$END" else token.start_pos or 0
        for line in reversed(text[:end].split("\n")):
            if line.strip() and not line.lstrip().startswith("#"):
                end -= len(line) - len(line.rstrip())
                break
            end -= len(line) + 1
        return self.source.span(max(0, end - 1), max(0, end))

    def recover(self, first: Token, parser: Any, brace: bool) -> bool:
        """Go on behind a wrong token; False when that is nowhere."""
        accepted = parser.accepts()
        if brace and first.type in _STATEMENTS - {"IF"} and "LBRACE" in accepted:
            parser.feed_token(first.new_borrow_pos("LBRACE", "{", first))
            parser.feed_token(first)
            return True
        between = accepted >= _STATEMENTS  # two statements: so each line begins one
        for token in self.line_starts(first, parser):
            if token.type in _SYNC and _cut_back(parser, token.type):
                parser.feed_token(token)
                return True
            if between and token.type in _MISPLACED and token is not first:
                self.report(token, parser)
            if len(self.problems) >= MAX_PROBLEMS:
                return False
        return _cut_back(parser, "$END")

    def line_starts(self, first: Token, parser: Any) -> Iterator[Token]:
        """The tokens from here on that begin a line outside of blocks, and braces that end one."""
        depth, line = 0, 0 if self.begins_line(first) else first.line or 0
        for token in chain([first], parser.lexer_thread.lex(parser.parser_state)):
            begins, line = (token.line or 0) > line, token.end_line or 0
            if token.type == "LBRACE":
                depth += 1
            elif token.type == "RBRACE" and depth:
                depth -= 1
            elif not depth and (begins or token.type == "RBRACE"):
                yield token


def _is_brace(value: Any) -> bool:
    return getattr(value, "type", "") == "LBRACE"


def _expected(accepted: set[str]) -> str:
    names = set(accepted) - JUNK.keys()
    words: list[str] = []
    for members, title in _GROUPS:
        if members <= names:
            words.append(title)
            names -= members | _IN_GROUP[title]
    words += sorted({_NAMES.get(name, f"'{name.lower()}'") for name in names})
    return one_of(words) or "nothing more"


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
