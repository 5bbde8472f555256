"""IR to closures: one function a statement, found in one table.

A compiled statement takes the Run and says how to go on. Tests are in conditions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.check import is_mailbox
from mdaflow.lang.patterns import compile_regex
from mdaflow.lang.source import Span
from mdaflow.mail.message import Message
from mdaflow.mail.path import parse_path
from mdaflow.mail.raw import digest

from .conditions import compile_test
from .index import compile_choice
from .match import MAX_STEPS, Lists, compile_match
from .plan import STORING, EvaluationError, Event, one_line, printable
from .state import CONTINUE, STOP, Run, Step
from .texts import Pieces, compile_text, folder, in_html, length, plain

Compiled = Callable[[Run], Step]
LONG = 1 << 10
"""Characters of a text that is not kept for nothing."""
MAX_LETTER = 64 << 10
"""Characters of a text that goes into a letter."""
MAX_MATCHES = 10_000
"""Matches that one score counts."""


def compile_block(statements: Iterable[ir.Statement], lists: Lists | None = None) -> Compiled:
    """The statements of a block as one step; lists are known from their declaration on."""
    lists = {} if lists is None else lists
    nodes: list[Any] = []
    steps: list[tuple[Span, Compiled]] = []
    for statement in statements:
        if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Items):
            if statement.name in lists:  # of another file: what stands before keeps its own
                lists = dict(lists)
            lists[statement.name] = statement.value
        elif not isinstance(statement, ir.Alias):
            nodes.append((statement, lists))
            steps.append((statement.span, _STATEMENTS[type(statement)](statement, lists)))
    choose = compile_choice(steps, nodes)

    def block(run: Run) -> Step:
        for span, step in choose(run):
            run.watch(span)
            if how := step(run):
                return how
        return CONTINUE

    return block


def _branch(node: ir.Branch, lists: Lists) -> Compiled:
    test = compile_test(node.test, lists) if node.test is not None else None
    body, otherwise = compile_block(node.body, lists), compile_block(node.otherwise, lists)
    span, name, text = node.span, node.name, node.text

    def branch(run: Run) -> Step:
        rule, captures, depth = run.rule, run.captures, run.depth
        run.pending = {}
        at = len(run.trace) if run.trace is not None else 0
        run.depth += 1
        held = test is None or test(run)
        if run.trace is not None:
            run.trace.insert(at, Event(depth, "rule", span, text, None, held))
        if held and run.pending:
            run.captures = {**captures, **run.pending}
        run.rule = name or rule
        block = body if held else otherwise
        passes = depth == 0 and run.context.envelope.released  # a whole rule, or nothing of it
        how = run.passing(block) if passes else block(run)
        run.rule, run.captures, run.depth = rule, captures, depth
        return how

    return branch


# actions


def _act(node: ir.Act, lists: Lists) -> Compiled:
    what = _WHAT.get(node.verb, _text)(node)
    options = [(name, _option(name, value)) for name, value in node.options]
    own = frozenset(node.flags)

    def act(run: Run) -> Step:
        said = tuple((name, get(run)) for name, get in options)
        flags = run.flags | own if node.verb in STORING else frozenset()
        return run.act(node, flags=flags, options=said, **what(run))

    return act


def _option(name: str, value: ir.Text | ir.Number) -> Callable[[Run], str | float]:
    if isinstance(value, ir.Number):
        amount = value.amount
        return lambda run: amount
    text, shown = compile_text(value), in_html if name == "html" else plain
    return lambda run: shown(text(run))[:MAX_LETTER]


What = Callable[[Run], dict[str, Any]]
"""The fields of an Action that its operands say."""


def _text(node: ir.Act) -> What:
    if not node.operands:
        return lambda run: {}
    text = compile_text(node.operands[0])
    return lambda run: {"text": plain(text(run))}


def _deliver(node: ir.Act) -> What:
    literal = node.operands[0].literal
    if literal is not None and is_mailbox(literal):
        return lambda run: {"folder": literal}
    text = compile_text(node.operands[0])
    return lambda run: {"folder": folder(text(run), run.context.settings.separator)}


def _forward(node: ir.Act) -> What:
    texts = [compile_text(text) for text in node.operands]

    def forward(run: Run) -> dict[str, Any]:
        targets = dict.fromkeys(_address(node.span, text(run)) for text in texts)
        return {"targets": tuple(targets)}

    return forward


def _notify(node: ir.Act) -> What:
    to, text = (compile_text(text) for text in node.operands)
    return lambda run: {
        "targets": (_address(node.span, to(run)),),
        "text": plain(text(run))[:MAX_LETTER],
    }


def _reply(node: ir.Act) -> What:
    text, handle = compile_text(node.operands[0]), _handle(node)
    return lambda run: {"text": plain(text(run))[:MAX_LETTER], "handle": handle}


def _handle(node: ir.Act) -> str:
    """What replies have in common that count as the same: a name, or all words of the rule. Not
    what is put into them, which is another for each message (RFC 5230 section 4.2)."""
    said = dict(node.options)
    name = said.get("as")
    if isinstance(name, ir.Text):
        return f"as {(name.literal or '').strip().casefold()}"
    words = [("", node.operands[0]), *((n, said.get(n)) for n in ("html", "subject", "from"))]
    return digest([repr([(n, _words(t)) for n, t in words]).encode("utf-8", "surrogatepass")])


def _words(text: ir.Text | ir.Number | None) -> list[object]:
    """A text without its places."""
    parts = text.parts if isinstance(text, ir.Text) else ()
    return [part if isinstance(part, str) else part[1:] for part in parts]


def _pipe(node: ir.Act) -> What:
    texts = [compile_text(text) for text in node.operands]
    return lambda run: {"targets": tuple(plain(text(run)) for text in texts)}


_WHAT: dict[str, Callable[[ir.Act], What]] = {
    "deliver": _deliver,
    "forward": _forward,
    "notify": _notify,
    "reply": _reply,
    "pipe": _pipe,
}
"""Actions whose operand is not just a text."""


def _address(span: Span, pieces: Pieces) -> str:
    """An address to send to (RFC 5321 section 4.1.2)."""
    said = plain(pieces)
    shown = one_line(said[:100])
    try:
        address, rest = parse_path(f"<{said}>".encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise EvaluationError(span, f"'{shown}' is no address: {error}") from error
    if rest or "@" not in address:
        raise EvaluationError(span, f"'{shown}' is no address")
    return address


# what changes the run


def _flag(node: ir.Flag, lists: Lists) -> Compiled:
    flags = frozenset(node.flags)
    add = node.operation == "add"

    def flag(run: Run) -> Step:
        run.flags = run.flags | flags if add else _without(run.flags, flags)
        run.tell(node.span, node.text)
        return CONTINUE

    return flag


def _without(flags: frozenset[str], gone: frozenset[str]) -> frozenset[str]:
    lower = {flag.lower() for flag in gone}
    return frozenset(flag for flag in flags if flag.lower() not in lower)


def _assign(node: ir.Assign, lists: Lists) -> Compiled:
    assert isinstance(node.value, ir.Text)
    name, get = node.name, compile_text(node.value)

    def assign(run: Run) -> Step:
        before = length(run.variables.get(name, ()))
        if before > LONG:
            run.fold.cache_clear()  # it has texts that nobody else has any more
        run.texts_left += before
        run.variables[name] = get(run)
        run.texts_left -= length(run.variables[name])
        if run.texts_left < 0:
            raise EvaluationError(node.span, "the variables are too large together")
        if run.trace is not None:
            run.tell(node.span, f'set {name} = "{printable(plain(run.variables[name])[:100])}"')
        return CONTINUE

    return assign


def _score(node: ir.Score, lists: Lists) -> Compiled:
    count = _count(node) if node.pattern is not None else None

    def score(run: Run) -> Step:
        points = node.points * (1 if count is None else count(run))
        if node.most is not None:
            points = max(-node.most, min(node.most, points))
        run.scores[node.name] = run.scores.get(node.name, 0.0) + points
        if run.trace is not None:
            run.tell(node.span, f"{node.text} -> {run.scores[node.name]:g}")
        return CONTINUE

    return score


def _count(node: ir.Score) -> Callable[[Run], int]:
    """The matches in all values, a display name with its address."""
    subject, pattern = node.subject, node.pattern
    assert subject is not None
    assert pattern is not None
    if isinstance(pattern, ir.Text):
        text = compile_text(pattern)

        def occurrences(run: Run) -> int:
            wanted = plain(text(run)).casefold()
            found = run.values(subject) or ()
            return sum(run.fold(v).count(wanted) for value in found for v in value if wanted)

        return lambda run: min(MAX_MATCHES, occurrences(run))
    compiled = compile_regex(pattern.source, pattern.flags)
    longest = MAX_STEPS // compiled.programsize

    def matches(run: Run) -> int:
        count = 0
        for value in run.values(subject) or ():
            for text in value:
                run.watch(node.span)
                for _ in compiled.finditer(text.encode("utf-8", "surrogateescape")[:longest]):
                    run.watch(node.span)
                    count += 1
                    if count == MAX_MATCHES:
                        return count
        return count

    return matches


def _edit(node: ir.Edit, lists: Lists) -> Compiled:
    value = compile_text(node.value) if node.value is not None else None
    match = None
    if node.test is not None and node.test.relation != "exists":  # any that is there, exists
        match = compile_match(node.test, lists)

    def edit(run: Run) -> Step:
        from mdaflow.mail import edit as edits

        message = run.context.message
        run.watch(node.span)
        try:
            if value is not None:
                change = edits.add if node.operation == "add" else edits.set_
                changed = change(message, node.name, plain(value(run)))
            else:
                chosen = None if match is None else (lambda text: match(run, (text,)))
                changed = edits.remove(message, node.name, chosen)
        except ValueError as error:
            raise EvaluationError(node.span, str(error)) from error
        if changed is not message:
            run.change(changed)
            run.edits.append(node.text)
        run.tell(node.span, node.text)
        return CONTINUE

    return edit


def _filter(node: ir.Filter, lists: Lists) -> Compiled:
    texts = [compile_text(text) for text in node.operands]

    def filter_(run: Run) -> Step:
        argv = tuple(plain(text(run)) for text in texts)
        run.cache.pop(("filter", argv, run.context.owner), None)  # what it gets may have changed
        found = run.ask(node.span, "filter", argv, node.within)
        if found is not None:
            run.change(Message(found[0]), content=True)
        run.tell(node.span, node.text + ("" if found is not None else " (not run)"))
        return CONTINUE

    return filter_


def _stop(node: ir.Stop, lists: Lists) -> Compiled:
    def stop(run: Run) -> Step:
        run.tell(node.span, node.text)
        return STOP

    return stop


_STATEMENTS: dict[type, Callable[[Any, Lists], Compiled]] = {
    ir.Branch: _branch,
    ir.Act: _act,
    ir.Flag: _flag,
    ir.Edit: _edit,
    ir.Filter: _filter,
    ir.Score: _score,
    ir.Assign: _assign,
    ir.Stop: _stop,
}
