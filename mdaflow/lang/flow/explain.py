"""What is wrong with a text that is no program: every syntax error, and what was expected.

How to go on behind an error is known by repair.py; here are the words. A line has one error: what
else does not fit there mostly follows from it. The words for what can stand at a place are
asked of the grammar itself.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from mdaflow.lang.source import Problem, Source, one_of

from . import hints, repair
from .driver import Token, lex, loaded_tables
from .mend import JUNK, Mending, leave_out, new
from .parse import MAX_PIECES
from .repair import Error
from .stack import COMPLETE, after, outside, starts

_GROUPS = (
    (hints.STATEMENT, "", {"IF"}),
    (hints.STATEMENT, "if true {", {"IF"}),
    ("an action", 'test "" { expect', {"DISCARD"}),
    (hints.CONDITION, "if", {"TRUE", "RAW"}),
    (hints.OPERATOR, "if size", {"IS"}),
    (hints.NEGATED, "if size not", {"CONTAINS"}),
    (hints.VALUE, "if size is", {"REGEX"}),
    (hints.VALUE, 'test "" { given size =', {"TRUE", "DURATION"}),
)
"""What can stand behind such a text: one word for many, if these are among them."""
_NAMES = {
    "$END": "the end of the file", "LBRACE": "'{'", "RBRACE": "'}'", "LPAR": "'('", "RPAR": "')'",
    "LSQB": 'a list ["…"]', "RSQB": "']'", "COMMA": "','", "EQUAL": "'='", "STRING": "a string",
    "LONG_STRING": "a string", "REGEX": "a /regular expression/", "NUMBER": "a number",
    "DURATION": hints.TIME, "CHANGE": "'+=' or '-='",
}  # fmt: skip
_FOREIGN = (
    (
        "sieve",
        re.compile(r'require[ \t]*[\["]|(?:if|elsif)\b[a-z( \t]{0,60}:(?:is|contains|matches)\b'),
    ),
    ("procmail", re.compile(r":0[ \t]*[A-Za-z]*[ \t]*:?[ \t]*[\w.]*$", re.MULTILINE)),
)
"""How a line begins that shows a file of another filter."""
_MEANT = re.compile(r"; did you mean '(\w+)[\w ]*'\?$")
_TEXT = re.compile(r"[\w.@+/-]+")
_WORD_BEHIND = {
    **dict.fromkeys(("EVERY", "RAW", "IN"), "a subject"),
    "LEARN": "'spam' or 'ham'",
}


def explain(source: Source) -> tuple[Any, list[Problem]]:
    """The tree without what could not be read, and all problems.

    The tree is None when nothing can be made of the text.
    """
    return _Explainer(source).explain()


class _Explainer:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.mending = Mending(source)
        self.errors: dict[int, Problem] = {}
        """Line -> what does not fit there."""
        self.lost_braces: set[int] = set()
        """Lines in which a brace may have been missed."""

    def explain(self) -> tuple[Any, list[Problem]]:
        source, text = self.source, self.source.text
        tokens = list(islice(lex(text), MAX_PIECES + 1))
        if len(tokens) > MAX_PIECES:
            return None, [Problem.of(source.span(0, 0), "too-many-words", most=MAX_PIECES)]
        for token in tokens:
            for code, pattern in _FOREIGN:
                if pattern.match(text, token.start_pos) and self.begins_line(token):
                    return None, [Problem.of(source.span(token.start_pos, token.end_pos), code)]
        end = new("$END", "", len(text), len(text))
        tree = repair.read([*self.mending.tokens(tokens), end], text, self.error)
        if tree is not None:
            leave_out(tree, source, sorted(self.mending.unread))
        problems = {**self.mending.unless, **self.errors}
        return tree, [*self.mending.problems, *problems.values()]

    def begins_line(self, token: Token) -> bool:
        line = self.source.text[max(0, token.start_pos - 80) : token.start_pos]
        return not line.rpartition("\n")[2].strip()

    def error(self, error: Error) -> str:
        """Report a token that does not fit, unless that follows from something else.

        The terminal that was meant, if that is known, helps to go on.
        """
        at, kind = error.token.start_pos, error.token.type
        block = self.source.span(error.block.start_pos, 0).line if error.block else 0
        unclosed = block if kind in outside() and "RBRACE" in error.accepted else 0
        of_braces = unclosed or (kind == "RBRACE" and not block)
        problem = self.problem(error, unclosed)
        line, mending = problem.span.line, self.mending
        follows = at in mending.replaced or at >= mending.doubtful.get(line, at + 1)
        if of_braces:
            follows |= any(lost >= block for lost in self.lost_braces)
        if error.begins_line and not error.accepted & COMPLETE:
            follows |= self.source.span(error.before.start_pos, 0).line in mending.swallowed
        if not follows:
            self.errors.setdefault(line, problem)
        mending.unread.add(line)
        if "LBRACE" in error.accepted or re.search("[{}]", self.source.line(line)):
            self.lost_braces.add(line)
        meant = _MEANT.search(problem.message)
        terminal = loaded_tables()[0]["words"].get(meant[1], "") if meant else ""
        return terminal if terminal in error.accepted else ""

    def problem(self, error: Error, unclosed: int) -> Problem:
        """What is wrong with a token that does not fit, or with a block that began in a line."""
        token, accepted, end = error.token, error.accepted, error.before.end_pos
        expected = _expected(error)
        begins = error.begins_line and token.type in starts()
        if token.type == "$END" or (begins and not accepted & COMPLETE):
            what, span = "file" if token.type == "$END" else "line", self.source.span(end - 1, end)
            hint = self.hint(new("", "", end, end), expected, accepted)
            if unclosed:
                hint = f"; the '{{' in line {unclosed} is not closed"
            return Problem.of(span, "ends-early", what=what, expected=expected, hint=hint)
        span = self.source.span(token.start_pos, token.end_pos)
        if unclosed:
            return Problem.of(span, "missing-brace", word=token, line=unclosed)
        hint = self.hint(token, expected, accepted)
        word = " ".join(token.split())
        word = word if len(word) <= 40 else f"{word[:40]}…"
        return Problem.of(span, "unexpected", word=word, expected=expected, hint=hint)

    def hint(self, token: Token, expected: str, accepted: frozenset[str]) -> str:
        """What may have been meant by it."""
        words = loaded_tables()[0]["words"]
        fitting = {word for word, kind in words.items() if kind in accepted}
        at, text = token.start_pos, self.source.text
        before = text[max(0, at - 80) : at].rpartition("\n")[2].split()
        behind = text[at : at + 80].partition("\n")[0].split() if token else []
        line = " ".join([*before, "\0"]) + " ".join(behind)
        if hint := hints.hint(line, expected, str(token), fitting):
            return hint
        if token.type in words.values() and "WORD" in accepted:
            return f"; '{token}' is a word of the language"
        if token.type != "WORD":
            return ""
        is_text = "STRING" in accepted and not accepted & {"WORD", "IS"}
        if is_text:  # and no statement, most likely
            fitting -= {word for word in fitting if words[word] in after("")}
        if hint := hints.near_miss(str(token), fitting, words):
            return hint
        word = _TEXT.match(text, at, at + 40) if is_text else None
        return f'; a text stands in quotes: "{word[0]}"' if word else ""


def _expected(error: Error) -> str:
    """What could stand at an error, in words."""
    names = set(error.accepted - JUNK.keys())
    if error.begins_line and names & COMPLETE:  # nobody goes on with the line before
        names &= starts()
    if error.block == "":  # nobody wrote it
        names -= {"RBRACE"}
    words = []
    for title, text, core in _GROUPS:
        if core <= names:
            words.append(title)
            names -= after(text) - {"RBRACE", "LBRACE", "AND", "OR"}
    if "WORD" in names:
        names -= after("list")
        words.append(_WORD_BEHIND.get(error.before.type, "a name"))
    words += sorted({_NAMES.get(name, f"'{name.lower()}'") for name in names})
    words.sort(key=lambda word: word == hints.STATEMENT)
    return one_of(words) or "nothing more"
