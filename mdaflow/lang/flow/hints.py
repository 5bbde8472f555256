"""What was probably meant: tables for those who come from other languages, or nearly had it."""

from __future__ import annotations

import re
from collections.abc import Collection

from mdaflow.lang.source import near
from mdaflow.lang.subjects import SUBJECTS

OPERATORS = {
    "&&": "and", "||": "or", "!": "not", "==": "is", "===": "is", "=~": "matches",
    "!~": "not matches", "<>": "!=", "=<": "<=", "=>": ">=",
}  # fmt: skip
"""Operators of other languages, and those of this one."""

MEANINGLESS = (
    ("--", "; a comment begins with #"),
    ("-", "; names are joined by _, as list_id, and header names stand in quotes"),
    (":=", "; write '='"),
    (":", "; leave it out, or begin a block with {"),
    (r"\\", '; a backslash stands in strings: "\\\\Seen"'),
    ("[$%]", '; a value is put in a string: "{name}"'),
    ("@", '; an address stands in quotes: "ann@example.org"'),
    ("[*?]", '; a pattern stands in quotes: matches "a*"'),
    (r"[\^~]", "; a regular expression stands behind 'matches': /^a/"),
    (r"\+", '; strings are put together so: "{a}{b}"'),
    ("`", '; strings are written in double quotes: "…"'),
    (r"\|", '; a program is named so: pipe to ["/usr/bin/prog"]'),
)
"""Characters that mean nothing, and why they may have been written."""

STATEMENT = "a statement"
CONDITION = "a condition"
VALUE = "a value"
OPERATOR = "an operator (is, contains, matches, in, = …)"
NEGATED = "an operator (contains, matches, in …)"
TIME = "a time (7 days)"

_RELATION = r"(?:is|contains|starts|ends|matches|in|exists|between|[<>=!]=?)(?!\w)"
_SEVERAL = '; several values are a list: ["…", "…"]'
_HINTS = (
    # the statements
    ("", r"\belse \0\w", "; did you mean 'elif'?"),
    ("", r"\0then\b", "; leave it out"),
    ("", r"\b(?:add|set) header .*\0\S", '; name and value are one string: "X-Name: value"'),
    ("", r"\breply \0to\b", '; it goes to the sender: reply "…"'),
    ("", r"\breply \0(html|subject|every|from|as|between)\b", "; the text comes first"),
    ("", r"\bnotify \0to\b", "; leave out 'to'"),
    ("", r'\bdeliver to ("[^"]*" )?\0[\[",]', '; each folder has a statement: also deliver to "…"'),
    ("", r'\blearn \0"', "; without quotes"),
    ("", r"\bscore \0[-+]?=", "; a score has a name: score x += 1"),
    ("", r"\bset list \0", "; leave out 'set'"),
    ("", r"\bset [\w.]+ = \0([a-z_.]+)", r'; a value is put in a string: "{\1}"'),
    ("", r'\bexpect \0"', '; did you mean: expect rule "…"?'),
    ("", r"\bgiven ([\w.]+) \0$", r"; as in: given \1 = true"),
    ("", r"\bmessage \0", '; it stands between """ and """'),
    ("a list", r'\bwith flags \0"', '; write: with flag "…"'),
    ("", r"\bwith flag \0\[", "; write: with flags […]"),
    ("", r'\bexpect (?:also |not )?(deliver|forward|pipe) \0["[]', r"; write: \1 to …"),
    ("'='", r"\bgiven .*\0is\b", "; did you mean '='?"),
    (STATEMENT, r"\breply .*\0(day|week)s? (\d+)", r"; write: every \2 \1s"),
    ("'with'", r"\0flags?\b", "; did you mean 'with flags'?"),
    (TIME, r"\0(day|week)\b", r"; write: 1 \1"),
    (TIME, r"\0\w+ \d", "; leave it out"),
    (TIME, r'\0"?\d', "; in seconds, minutes, hours, days or weeks"),
    # conditions
    ("", r"\bheader \0(\w+-[\w-]*|[A-Z]\w*)", r'; a name stands in quotes: header "\1"'),
    ("", r'\bheader \0\( ?("[^"]*")', r"; it is written: header \1"),
    ("", r"\battachment \0\(", "; did you mean 'where ('?"),
    ("", r"\banyof \0\(", "; tests are joined by 'or': if … or …"),
    ("", r"\ballof \0\(", "; tests are joined by 'and': if … and …"),
    ("", r"\b(?:any|all) \0of\b", "; tests are joined by 'or' and 'and'"),
    ("", r"\bany \0", "; leave out 'any'"),
    ("", r"\d \0(?:[KMGkmg]i?[Bb]?|\w*bytes?)\b", "; a size is written 500, 5K, 5M or 5G"),
    ("", r"\d \0,\d", "; a number has no ','"),
    ("'or'", r'" \0,', _SEVERAL),
    ("'or'", r"/\w* \0,", "; several are one: /a|b/"),
    ("'or'", r"/\w* \0/", r"; a / in a regular expression is written \\/"),
    (CONDITION, r'\bor \0["\d]', _SEVERAL),
    (CONDITION, r"\bor \0/", "; several are one: /a|b/"),
    (CONDITION, rf"\b(?:and|or) \0{_RELATION}", "; say again what is compared"),
    (CONDITION, r'\0"', '; first comes what is looked at: subject contains "…"'),
    (CONDITION, r"\0/", "; first comes what is looked at: subject matches /…/"),
    (OPERATOR, r"\0(?:over|above|larger|bigger|greater|more)\b", "; did you mean '>'?"),
    (OPERATOR, r"\0(?:under|below|smaller|less)\b", "; did you mean '<'?"),
    (OPERATOR, r"\0(exactly|all)\b", r"; '\1' stands behind the operator"),
    (OPERATOR, r"\0(every|raw)\b", r"; '\1' stands before what is looked at"),
    (NEGATED, r"\0is\b", "; did you mean 'is not'?"),
    (VALUE, rf"\b(?:is|not) \0{_RELATION}", "; leave out 'is'"),
    (VALUE, r"\0(true|false)\b", "; it is true or false by itself: spam, not spam"),
    (VALUE, r"\0\(", '; a list stands in brackets: ["…", "…"]'),
    (VALUE, r"\0<", '; an address stands in quotes: "ann@example.org"'),
    # where statements begin
    (STATEMENT, r'" \0,', _SEVERAL),
    (STATEMENT, r"\0and\b", "; statements need no 'and'"),
    (STATEMENT, r"\0([\w.]+) ?=(?![=~])", r"; did you mean: set \1 = …"),
    (STATEMENT, r"\0([\w.]+) ?[-+]=", r"; did you mean: score \1 += …"),
    (STATEMENT, rf"\0(?:not |every |raw )?[\w.]+ (?:not )?{_RELATION}", "; did you mean 'if'?"),
    (STATEMENT, r"\0(given|expect|message)\b", '; it stands in a test: test "…" { … }'),
    (STATEMENT, r"\0(expire|with)\b", "; it stands behind 'deliver to' or 'keep'"),
    (STATEMENT, r"\0require\b", "; it is not needed here"),
    (STATEMENT, r"\0}", "; no block is open"),
    (STATEMENT, r"\0{", "; a block belongs to rule, if or else"),
    # anywhere
    ("a string", r'\0\w+ "', "; leave it out"),
    ("", r"\0/\*", "; a comment begins with #"),
    ("", r"\w \0\(", "; it is written without parentheses"),
)
"""What was expected, the line with a NUL before the wrong word, and what is said then."""
MEANT = (
    ("deliver to", "fileinto move save file store put to"),
    ("also deliver to", "copy cc"),
    ("flag", "addflag setflag mark"),
    ("unflag", "removeflag unmark"),
    ("forward to", "redirect resend"),
    ("reply", "vacation autoreply"),
    ("discard", "drop delete trash"),
    ("reject", "bounce refuse ereject"),
    ("import", "include"),
    ("set", "let var my"),
    ("stop", "return exit end break"),
    ("filter through", "xfilter"),
    ("pipe to", "exec execute"),
    ("elif", "elsif elseif"),
    ("otherwise", "else elif"),
    ("else", "otherwise"),
    ("when", "if where"),
    ("when not", "unless"),
    ("if not", "unless"),
    ("if", "when while"),
    ("expire", "after expires ttl"),
    ("is", "equals equal eq"),
    ("contains", "includes include has have"),
    ("matches", "like match regex matching"),
    ("starts with", "startswith begins beginswith"),
    ("ends with", "endswith"),
    ("not", "isnt doesnt does"),
    ("and", "to"),
    ("expect", "assert should"),
)
"""Words of this language, and what others say for them."""
_ASKED = re.compile(
    r"(?:\b(?:if|elif|when|and|or|not|every|raw) *|\( *)([A-Za-z][\w-]*)\Z", re.ASCII
)
"""What is looked at, up to a character that is in no name."""
_BEHIND = {
    **dict.fromkeys(("elif", "else", "elsif", "elseif"), "an 'if'"),
    "otherwise": "a 'rule'",
}


def hint(line: str, expected: str, word: str, fitting: Collection[str]) -> str:
    """What was meant by a word, which comes in its line behind a NUL; empty if nothing is known."""
    for where, pattern, said in _HINTS:
        if where in expected and (found := re.search(pattern, line)):
            return found.expand(said)
    for meant, words in MEANT:
        if word.lower() in words.split() and meant.split()[0] in fitting:
            return f"; did you mean '{meant}'?"
    behind = _BEHIND.get(word)
    return f"; it stands behind the block of {behind}" if behind else ""


def hyphened(before: str, behind: str) -> str:
    """What was meant by a `-` between two parts of a line; empty if nothing is known."""
    first, last = _ASKED.search(before), re.match(r"-[\w-]*\w", behind)
    if not first or not last:
        return ""
    name = first[1] + last[0]
    known = name.lower().replace("-", "_")
    if known in SUBJECTS:
        return f"; did you mean '{known}'?"
    return f'; a field of the header is: header "{name}"'


def near_miss(word: str, fitting: Collection[str], keywords: Collection[str]) -> str:
    """The word that was meant, or the two that were written as one."""
    for cut in range(2, min(len(word), 20)):
        if word[:cut] in keywords and word[cut:] in keywords:
            return f"; did you mean '{word[:cut]} {word[cut:]}'?"
    small = word.lower()
    return near(small, fitting) if len(word) > 2 or small in fitting else ""
