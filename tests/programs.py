"""Rules that Hypothesis makes: `programs` are right, with every statement, test and option there
is; `soup` is words of the language in any order.
"""

from __future__ import annotations

import re

from hypothesis import strategies as st

from mdaflow.lang.subjects import SUBJECTS, type_of

Texts = st.SearchStrategy[str]

KEYWORDS = re.findall(
    r"\S+",
    "rule list if elif else otherwise when set also deliver to keep discard reject defer with flag "
    "flags unflag stop and or not is contains starts ends matches in exists between every all "
    "exactly raw true false from subject header size a b.c quarantine forward pipe filter through "
    "within locked reply notify log remember for learn add remove score per match of at most "
    "alias import test message given expect expire where listed succeeds remembered attachment "
    "html as",
)
SIGNS = [
    *("{", "}", "(", ")", "[", "]", ",", "=", "!=", "<", ">=", '"a"', '"{1}"', '"""x\n"""', "5"),
    *("10K", "2 days", "/a(b)/c", "#c\n", "\n", ";", "'x'", "“x”", '"open', "/open", '"""', "5x"),
    *("&&", "\\", "\x00", "ü", '"\\Seen"', '"\\\\Seen"', '"{subject|lower}"', "{", "}", "+=", "-="),
]
soup = st.lists(st.sampled_from([*KEYWORDS, *SIGNS]), max_size=25).map(" ".join)

READ = {"more.rules": b'log "more"\n', "kept.txt": b"x\nhello\n@example.com\n*a*\n"}
"""What programs import, and their list in a file."""
PRELUDE = """
list known = ["x", "@example.com", "a*"] list kept from "kept.txt" list none = []
list me = ["bob@example.org"] set v = "y" score s += 0 rule "P" { }
"""
"""What all programs begin with: the names that they use."""


def pick(*options: str) -> Texts:
    """One of them."""
    return st.sampled_from(options)


spaces = pick(" ", "\n", "  # note\n", "\t\r\n")


def sentence(*parts: Texts | str) -> Texts:
    """Parts with spaces between them."""
    found = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(spaces, *found).map(lambda words: words[0].join(filter(None, words[1:])))


def maybe(*parts: Texts | str) -> Texts:
    """Parts, or nothing."""
    return st.one_of(st.just(""), sentence(*parts))


def some(part: Texts, most: int = 3) -> Texts:
    """Some of them, one behind the other."""
    return st.lists(part, max_size=most).map("\n".join)


# values

plain = pick('"x"', '"a*"', '"@example.org"', '""', '"hello"', r'"\\*?"', '"ann@example.com"')
holes = pick(
    *('"{subject|first 3}/{from.user|slug}"', '"{v}"', '"{v}{v}-{score.s}"', '"{attachment.size}"'),
    *('"{received.year}{date}{size}{spam}"', r'"\u{e4}{{}}"', '"{body}"', '"{header X-A|upper}"'),
)
short = st.one_of(plain, holes)
strings = st.one_of(short, pick('"""\n  x {to}\n  """', '"""x"""'))
items = st.lists(plain, max_size=3).map(lambda found: f"[{', '.join(found)}]")
lists = st.one_of(items, pick("known", "kept", "none"))
folders = pick('"x"', '"lists/{subject|slug}"', '"{v}/{subject}"', '"INBOX"', '"A/B"', '"{body}"')
flags = pick(r'"\\Seen"', r'["\\Seen", "\\Draft",]', "[]", '"$Work"')
durations = pick("1 second", "90 minutes", "30 days", "2 weeks", "1.5 hours")
sizes = pick("0", "5", "1.5K", "5M", "3 days", "1G")
patterns = pick("/a(b)?/", r"/[^]\/]\d/cs", "/(?P<g>.)(.*)/m", "/x*/", "/^hello|ann@/", r"/\pL+$/")
targets = pick('"c@d"', '["c@d", "{from}", "c@d"]', '"{header X-A}"', '["a@b", "{envelope.to}"]')
argv = pick('["/bin/x"]', '["/bin/y", "{subject}", ""]')
ordered = {
    "number": sizes,
    "moment": pick('"2026-12-20"', '"2026-12-20 10:00"', '"1970-01-01T00:00:30Z"'),
    "day": pick('"2026-12-20"', '"1970-01-01"'),
    "clock": pick('"22:00"', '"6:30"', '"00:00:59"'),
}
"""Types that have an order -> what they are compared with."""


def subjects(*kinds: str) -> Texts:
    """Subjects and their parts, of such types."""
    names = [
        sentence(f"{name}.{part}" if part else name, argument if kind.argument else "")
        for name, kind in SUBJECTS.items()
        for part in ("", *kind.parts)
        if type_of(name, part) in kinds
    ]
    return st.one_of(*names)


argument = pick('"X-A"', '["Subject", "X-No"]')
texts = st.one_of(
    subjects("text", "address"),
    pick("v", "raw subject", "raw body", 'raw header "X-A"', "raw list_id", "raw message_id"),
)

# conditions

every, negated, exactly = maybe("every"), maybe("not"), maybe("exactly")
comparing = pick("=", "!=", "<", "<=", ">", ">=")


def tests_in_order(subject: Texts, value: Texts) -> Texts:
    """Tests of what has an order."""
    return st.one_of(
        sentence(every, subject, st.one_of(comparing, pick("is", "is not")), value),
        sentence(every, subject, negated, "between", value, "and", value),
        sentence(every, subject, negated, "exists"),
    )


def tests_of_text(subject: Texts) -> Texts:
    """Tests of texts and addresses."""
    value = st.one_of(sentence(exactly, strings), sentence(maybe("all"), exactly, lists))
    word = st.one_of(
        pick("is", "is not"),
        sentence(negated, pick("contains", "starts with", "ends with", "matches")),
    )
    return st.one_of(
        sentence(every, subject, word, value),
        sentence(every, subject, negated, "matches", exactly, patterns),
        sentence(every, subject, negated, "in", exactly, lists),
        sentence(every, subject, negated, "exists"),
    )


def joined(inner: Texts) -> Texts:
    """Conditions made of conditions."""
    return st.one_of(
        sentence("not", inner),
        sentence("(", inner, ")"),
        sentence(inner, pick("and", "or"), inner),
    )


parts = pick("name", "extension", "type", "attachment.declared_type", "sha256", "inner")
of_one = st.one_of(
    tests_of_text(parts),
    tests_in_order(st.just("size"), sizes),
    pick("attachment exists", "true"),
)
where = sentence(every, "attachment where (", st.recursive(of_one, joined, max_leaves=3), ")")
questions = st.one_of(
    sentence("listed", negated, "in", strings),
    sentence("remembered", short),
    sentence("folder", folders, negated, "exists"),
    sentence('command ["/bin/x", "{subject}"]', negated, "succeeds"),
)
conditions = st.recursive(
    st.one_of(
        tests_of_text(texts),
        *(tests_in_order(subjects(kind), value) for kind, value in ordered.items()),
        sentence(every, pick('header "X-A"', "v", "subject", "score.s"), comparing, sizes),
        subjects("truth"),
        questions,
        where,
        pick("true", "false"),
    ),
    joined,
    max_leaves=4,
)

# statements

storing = some(pick("with flags []", 'with flag "x"', r'with flags ["\\Seen", "$Y"]'), 2)
finals = st.one_of(
    sentence("deliver to", folders, storing, maybe("expire", durations), storing),
    sentence("keep", storing, maybe("expire", durations)),
    sentence("quarantine", maybe(strings)),
    sentence("forward to", targets),
    sentence("pipe to", argv, maybe("within", durations), maybe('locked "name"')),
)
chosen = st.one_of(
    sentence(pick("is", "contains exactly", "matches", "starts with"), strings),
    sentence("matches", patterns),
    sentence("in", lists),
    sentence(pick(">", "="), sizes),
    st.just("exists"),
)
edits = st.one_of(
    sentence("add header", pick('"X-A: {v}"', '"X-B:"', '"Subject: {to}!"', r'"x-a: \u{20AC}\n"')),
    sentence("set header", pick('"X-A: 1"', '"To: {from}"', '"subject: {body}"', '"X-C:{v}"')),
    sentence("remove header", pick('"X-A"', '"to"', '"Date"')),
    sentence("remove header", pick('"X-A"', '"Subject"'), chosen),
)
per_match = sentence(
    "per match of", st.one_of(strings, patterns), "in", texts, maybe("at most", pick("3", "10"))
)
going_on = st.one_of(
    sentence("also", finals),
    sentence("filter through", argv, maybe("within", durations)),
    sentence(
        "reply",
        strings,
        maybe("html", strings),
        maybe("subject", strings),
        maybe("every 7 days"),
        maybe('between "2026-12-20" and "2027-01-05"'),
        maybe('as "Away"'),
        maybe('from "Bob <a@b>"'),
    ),
    sentence("notify", pick('"a@b"', '"{from}"'), strings),
    sentence("log", strings),
    sentence("remember", strings, "for", durations),
    pick("learn spam", "learn ham"),
    sentence(pick("flag", "unflag"), flags),
    sentence("set v =", strings),
    edits,
    sentence("score s", pick("+=", "-="), pick("1", "2.5", "10K"), maybe(per_match)),
    pick(
        'if subject matches /(?P<g>.)(.*)/ { also deliver to "{1}{g}" set v = "{2}" }',
        'if header "X-A" matches ["* *", "*"] { log "{1}{0}" }',
        'if attachment where (name matches "*.*") { log "{2}" } else { log "none" }',
    ),
)
ending = st.one_of(
    finals, pick("discard", "defer", "stop", "reject", 'reject "no {subject}"', 'defer "{v}"')
)
simple = st.one_of(going_on, going_on, ending)
busy = st.lists(going_on, min_size=4, max_size=9).map("\n".join)
"""So many statements that what one does meets what another did."""


def blocks(inner: Texts) -> Texts:
    """Statements in blocks."""
    body = some(inner)
    return st.one_of(
        sentence("if", conditions, "{", body, "}"),
        sentence("if", conditions, "{", body, "} else {", body, "}"),
        sentence("if", conditions, "{ } elif", conditions, "{", body, "} else { }"),
    )


statements = st.recursive(simple, blocks, max_leaves=4)
cases = sentence(
    'test "t" { message """\n Subject: x\n\n """',
    maybe('given virus.found = true, size = 5K, header "X-A" = ["a", "b"], date = "2026-12-20"'),
    "expect",
    pick("", "not", "also"),
    pick('deliver to "x"', 'rule "P"', "forward", "discard", 'keep with flag "x"', "reply"),
    "}",
)
rules = st.one_of(
    statements,
    sentence('rule "R" when', conditions, "{", some(statements), "}"),
    sentence("rule when", conditions, "{", some(statements), "} otherwise {", statements, "}"),
    sentence("rule {", statements, "}"),
    pick('import "more.rules"', 'alias "sales" to ["ann", "b@c"]', 'alias "root" to "ann"'),
    cases,
)
alike = st.lists(conditions, min_size=9, max_size=12).map(
    lambda found: "\n".join(
        f'if {test} {{ also deliver to "{n}" }}' for n, test in enumerate(found)
    )
)
"""So many rules that they are looked up together."""
programs = st.lists(st.one_of(rules, rules, busy, alike), max_size=5).map(
    lambda found: "\n".join([PRELUDE, *found])
)
