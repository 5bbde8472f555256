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
    [
        "IF",
        "SET",
        "DELIVER",
        "KEEP",
        "DISCARD",
        "REJECT",
        "DEFER",
        "FORWARD",
        "QUARANTINE",
        "PIPE",
        "REPLY",
        "NOTIFY",
        "LOG",
        "REMEMBER",
        "LEARN",
        "FLAG",
        "UNFLAG",
        "ADD",
        "REMOVE",
        "FILTER",
        "SCORE",
        "STOP",
        "ALSO",
    ]
)
_OUTSIDE = frozenset(["RULE", "LIST", "IMPORT", "ALIAS", "TEST"])
_MISPLACED = frozenset(("WORD", "WHEN", "ELSE", "ELIF", "OTHERWISE"))
"""What begins no statement, and at the beginning of a line was meant to."""
_SYNC = _STATEMENTS | _OUTSIDE | {"RBRACE"}
"""Where the parser can go on."""

JUNK = {
    "OPEN_LONG": "open-long-string",
    "BAD_NUMBER": "no-number",
    "QUOTE": "open-string",
    "SINGLE_QUOTED": "single-quotes",
    "CURLY_QUOTED": "curly-quotes",
    "LINE_COMMENT": "line-comment",
    "OPEN_REGEX": "open-regex",
    "C_OPERATOR": "c-operator",
    "SEMICOLON": "semicolon",
    "UNKNOWN": "meaningless",
}
"""What is never right -> the message about it."""

# What could stand at a place, in words; groups first, so that a list of 15 words becomes one.
_GROUPS = (
    (_STATEMENTS, "a statement"),
    (frozenset({"EVERY", "RAW", "NOT", "LPAR", "TRUE", "FALSE"}), "a condition"),
    (frozenset({"IS", "CONTAINS", "COMPARE"}), "an operator (is, contains, matches, in, = …)"),
    (frozenset({"EXACTLY", "REGEX", "NUMBER"}), "a value"),
    (frozenset({"STRING", "NUMBER", "DURATION", "TRUE"}), "a value"),
)
_IN_GROUP = {
    "a condition": {"WORD"},
    "an operator (is, contains, matches, in, = …)": {
        "NOT", "EQUAL", "STARTS", "ENDS", "MATCHES", "IN", "EXISTS", "BETWEEN", "STRING", "LSQB",
        "SUCCEEDS", "WHERE",
    },
    "a value": {"ALL", "STRING", "LONG_STRING", "DURATION", "LSQB", "WORD", "FALSE"},
    "a statement": set(),
}  # fmt: skip
_NAMES = {
    "$END": "the end of the file", "LBRACE": "'{'", "RBRACE": "'}'", "LPAR": "'('", "RPAR": "')'",
    "LSQB": "a list […]", "RSQB": "']'", "COMMA": "','", "EQUAL": "'='", "COMPARE": "a comparison",
    "STRING": "a string", "LONG_STRING": "a string", "REGEX": "a /regular expression/",
    "NUMBER": "a number", "DURATION": "a time", "WORD": "a word", "CHANGE": "'+=' or '-='",
}  # fmt: skip
_NAME_WORDS = frozenset(
    [
        "AT",
        "EXPIRE",
        "FLAGS",
        "FOR",
        "FROM",
        "HEADER",
        "LIST",
        "LOCKED",
        "MATCH",
        "MESSAGE",
        "MOST",
        "OF",
        "SCORE",
        "SUBJECT",
        "SUCCEEDS",
        "THROUGH",
        "TO",
        "WHERE",
    ]
)
"""Keywords that are names elsewhere: `_word` of the grammar."""
_RESERVED = frozenset(
    [
        "ALL",
        "ALSO",
        "AND",
        "BETWEEN",
        "CONTAINS",
        "ENDS",
        "EVERY",
        "EXACTLY",
        "EXISTS",
        "FALSE",
        "IN",
        "IS",
        "MATCHES",
        "NOT",
        "RAW",
        "STARTS",
        "TRUE",
        "WITH",
        "WHEN",
        "OTHERWISE",
        "RULE",
        "IMPORT",
        "ALIAS",
        "TEST",
        "GIVEN",
        "EXPECT",
        "ELSE",
        "ELIF",
        "WITHIN",
        "PER",
        "OR",
    ]
) | (_STATEMENTS - {"SCORE"})
# What is often written: the word before, what comes -> what is meant.
_HINTS = {
    ("else", "IF"): "; did you mean 'elif'?",
    ("header", "WORD"): '; a name stands in quotes, header "X"',
}
# Words of other languages, and what they are here.
_FOREIGN = {
    "fileinto": "; did you mean 'deliver to'?",
    "move": "; did you mean 'deliver to'?",
    "save": "; did you mean 'deliver to'?",
    "copy": "; did you mean 'also deliver to'?",
    "addflag": "; did you mean 'flag'?",
    "setflag": "; did you mean 'flag'?",
    "removeflag": "; did you mean 'unflag'?",
    "elsif": "; did you mean 'elif'?",
    "elseif": "; did you mean 'elif'?",
    "redirect": "; did you mean 'forward to'?",
    "vacation": "; did you mean 'reply'?",
    "drop": "; did you mean 'discard'?",
    "delete": "; did you mean 'discard'?",
    "bounce": "; did you mean 'reject'?",
    "include": "; did you mean 'import'?",
    "require": "; it is not needed here",
    "let": "; did you mean 'set'?",
    "var": "; did you mean 'set'?",
    "unless": "; did you mean 'if not'?",
}
# A token where a statement of another kind was meant: (token, what is expected) -> hint.
_MEANT = {
    ("IF", "WHEN"): "; did you mean 'when'?",
    ("ELSE", "OTHERWISE"): "; did you mean 'otherwise'?",
}
_SIEVE = re.compile(r"^require[ \t]*[\[\"]", re.MULTILINE)
_PROCMAIL = re.compile(r"^:0[ \t]*[A-Za-z:]*[ \t]*[\w.]*$", re.MULTILINE)
_HEAD = 20_000
"""Characters in which a file of another filter shows itself."""
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

        if code := _foreign(self.source.text):
            return None, [Problem.of(self.source.span(0, 0), code)]
        lark = _lark()
        for token in lark.lex(self.source.text):
            if token.type in JUNK and token.line not in self.junk and len(self.junk) < MAX_PROBLEMS:
                self.junk[token.line or 0] = token
        tree = None
        with suppress(UnexpectedToken):
            tree = lark.parse(self.source.text, on_error=self.error)
        for token in self.junk.values():
            self.problems.append(Problem.of(self.span(token), JUNK[token.type]))
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
            return Problem.of(span, "missing-brace", word=token)
        if token.type == "$END" or (self.begins_line(token) and not accepted >= _STATEMENTS):
            what = "file" if token.type == "$END" else "line"
            end = self.end_before(token)
            return Problem.of(end, "ends-early", what=what, expected=expected)
        shown = str(token) if len(token) <= 40 else f"{token[:40]}…"
        hint = self.hint(token, accepted)
        return Problem.of(span, "unexpected", word=shown, expected=expected, hint=hint)

    def hint(self, token: Token, accepted: set[str]) -> str:
        start = token.start_pos or 0
        before = _LAST_WORD.search(self.source.text[max(0, start - 40) : start])
        if before and (before[1], token.type) in _HINTS:
            return _HINTS[before[1], token.type]
        for (found, wanted), meant in _MEANT.items():
            if token.type == found and wanted in accepted:
                return meant
        if "WORD" in accepted and token.type in _RESERVED:
            return f"; '{token}' is a word of the language"
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


def _foreign(text: str) -> str:
    """The message for a file of another filter; empty when it is none that we know."""
    head = text[:_HEAD]
    if _SIEVE.search(head):
        return "sieve"
    return "procmail" if _PROCMAIL.search(head) else ""


def _is_brace(value: Any) -> bool:
    return getattr(value, "type", "") == "LBRACE"


def _expected(accepted: set[str]) -> str:
    names = set(accepted) - JUNK.keys()
    if "WORD" in names:
        names -= _NAME_WORDS
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
