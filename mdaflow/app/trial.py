"""Trying rules: the test blocks that stand beside them, and facts that are given by hand.

A case is run by the engine that delivers, with its message, the facts it gives, and neutral
values for all others: nobody is a spammer, nothing was ever seen or said before, no program
runs. The attachments are really looked at, and lists in files are really read. When nothing
else is given, the message

- came on 2026-01-05 at 12:00, a Monday, by the recipient's clock;
- is for the first address of the list `me`, else for bob@example.org;
- is from its Return-Path, else from the first author, else from ann@example.com.

Known limits: a plan that does the same thing twice fits one expectation, and so does a bare
verb, however many actions it names. Rules of the site that fail leave no trace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mdaflow.engine.context import Ask, Fact, Settings
from mdaflow.engine.plan import Action, EvaluationError, Event, Plan
from mdaflow.engine.run import Stage, run
from mdaflow.engine.texts import folder
from mdaflow.errors import MdaflowError
from mdaflow.lang import ir
from mdaflow.lang.check import check, is_mailbox
from mdaflow.lang.flow.form import number
from mdaflow.lang.source import SourceError, Span
from mdaflow.lang.subjects import SUBJECTS, split, type_of
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

from .decide import sender_of

RECEIVED = "2026-01-05 12:00"
RECIPIENT = "bob@example.org"
SENDER = "ann@example.com"
MAX_SHOWN = 200
"""Characters of one action that a failure shows."""

Given = Mapping[tuple[str, str], Sequence[Any]]
"""(subject, argument) -> values as they are written."""
Rules = Mapping[Span, str]
"""The rules of a program: places -> names."""
Read = Callable[[str], bytes]
"""Gives the content of a file; raises OSError."""


class Failure(NamedTuple):
    """What did not come about, on one line, and where it was expected."""

    span: Span
    text: str


class Result(NamedTuple):
    """What became of a case."""

    case: ir.Case
    failures: tuple[Failure, ...]
    held: frozenset[Span] = frozenset()
    """The rules that were reached with a true condition."""
    trace: tuple[Event, ...] = ()

    @property
    def passed(self) -> bool:
        """All came about that was expected."""
        return not self.failures


def named_rules(program: ir.Program) -> dict[Span, str]:
    """The rules of a program, those in blocks too, in their order."""
    return {branch.span: branch.name for branch in _branches(program.body) if branch.name}


def _branches(statements: Iterable[ir.Statement]) -> Iterator[ir.Branch]:
    for statement in statements:
        if isinstance(statement, ir.Branch):
            yield statement
            yield from _branches(statement.body)
            yield from _branches(statement.otherwise)


def unreached(rules: Rules, results: Iterable[Result]) -> dict[Span, str]:
    """The rules whose condition was true in none of the cases."""
    held = frozenset[Span]().union(*(result.held for result in results))
    return {span: name for span, name in rules.items() if span not in held}


def try_case(
    stage: Stage, case: ir.Case, rules: Rules, *, settings: Settings, ask: Ask, read: Read
) -> Result:
    """What becomes of a case of a stage. Never raises for what a case or its rules do.

    `rules` are those of the stage's program; `ask` is asked about attachments and for lists,
    `read` for the message when it stands in a file.
    """
    try:
        message = _message(case, read)
    except OSError as error:
        said = f"the message '{case.message}' cannot be read: {error.strerror or error}"
        return Result(case, (Failure(case.span, said),))
    recipient = next((a for a in stage.own if all(a.partition("@"))), RECIPIENT)
    facts = {("received", ""): (RECEIVED,), **gathered(case.given)}
    envelope, given = told(Envelope(sender_of(message, SENDER), recipient), facts, settings)
    try:
        plan = run(
            stage, message, envelope, neutral(ask), trace=True, settings=settings, given=given
        )
    except MdaflowError as error:
        span = error.span if isinstance(error, EvaluationError) else case.span
        return Result(case, (_rules_failed(span, str(error)),))
    return _judged(case, rules, plan)


def _message(case: ir.Case, read: Read) -> Message:
    if not case.file:
        return Message(case.message.encode("utf-8", "surrogateescape"))
    if case.message.startswith("/") or ".." in case.message.split("/"):
        raise OSError("it is not below the folder of the rules")  # whoever checks may read more
    return Message.from_wire(read(os.path.join(os.path.dirname(case.span.file), case.message)))


def _rules_failed(span: Span, text: str) -> Failure:
    return Failure(span, f"the rules failed: {text.removeprefix(f'{span}: ')}")


def _judged(case: ir.Case, rules: Rules, plan: Plan) -> Result:
    events = [event for event in plan.trace if event.kind == "rule"]
    held = frozenset(event.span for event in events if event.result)
    seen = {rules.get(event.span, ""): False for event in events}
    seen.update((rules.get(span, ""), True) for span in held)
    failures = [_rules_failed(e.span, e.text) for e in plan.trace if e.kind == "error"]
    if not failures:
        failures = [failure for one in case.expected for failure in _unmet(one, plan, seen)]
    if not failures:
        failures = list(_unexpected(case, plan))
    return Result(case, tuple(failures), held, plan.trace)


# expectations


def _unmet(expected: ir.Expected, plan: Plan, seen: Mapping[str, bool]) -> Iterator[Failure]:
    """Why an expectation was not met; nothing if it was.

    `seen` are the rules that were reached, by name: did the condition hold?
    """
    if expected.act is None:
        met = seen.get(expected.rule, False)
        missing = _NOT_HELD[expected.rule in seen]
        there = "its condition held"
    else:
        found = [action for action in plan.actions if fits(expected.act, action)]
        met = bool(found)
        kept = ", for no rule finished it" if plan.implicit_keep else ""
        missing = f"the plan is {_listed(plan.actions)}{kept}"
        there = f"the plan has {_listed(found)}"
    negated = expected.how == "not"
    if met == negated:
        yield Failure(expected.span, f"{expected.text}: {there if negated else missing}")


_NOT_HELD = {True: "its condition did not hold", False: "it was not reached"}


def _unexpected(case: ir.Case, plan: Plan) -> Iterator[Failure]:
    """Actions that nobody named, if the case names all."""
    named = [e for e in case.expected if e.act is not None and e.how != "not"]
    more = [a for a in plan.actions if not any(e.act and fits(e.act, a) for e in named)]
    first = next((e for e in named if not e.how), None)
    if more and first is not None:
        yield Failure(first.span, f"{first.text}: the plan also has {_listed(more)}")


def _listed(actions: Iterable[Action]) -> str:
    texts = [str(action) for action in actions]
    return "; ".join(t if len(t) <= MAX_SHOWN else f"{t[: MAX_SHOWN - 1]}…" for t in texts)


def fits(expected: ir.Act, action: Action) -> bool:
    """Is it the action that is expected? What is not said may be anything."""
    verb, what = _VERBS.get(expected.verb, expected.verb), None
    if expected.operands or expected.verb == "keep":
        what = _WANTED.get(expected.verb, _first)([t.literal or "" for t in expected.operands])
    options = dict(action.options)
    return (
        verb == _VERBS.get(action.verb, action.verb)
        and (what is None or what == _PLANNED.get(action.verb, _text)(action))
        and (not expected.flags or _folded(expected.flags) == _folded(action.flags))
        and all(options.get(name) == _value(value) for name, value in expected.options)
    )


def _folded(flags: Iterable[str]) -> set[str]:
    return {flag.lower() for flag in flags}


def _value(value: ir.Text | ir.Number) -> str | float:
    return value.amount if isinstance(value, ir.Number) else value.literal or ""


def _first(texts: Sequence[str]) -> str:
    return texts[0]


def _text(action: Action) -> str:
    return action.text


def _folder(texts: Sequence[str]) -> str:
    name = texts[0]
    return name if is_mailbox(name) else folder(((name, False),), "/")


_VERBS = {"keep": "deliver"}
"""To keep is to deliver to the inbox."""
_WANTED: dict[str, Callable[[Sequence[str]], Any]] = {
    "deliver": _folder,
    "keep": lambda texts: "",
    "forward": frozenset,
    "notify": tuple,
    "pipe": tuple,
}
"""What the operands of an expected action say; of those that are not here, a text."""
_PLANNED: dict[str, Callable[[Action], Any]] = {
    "deliver": lambda action: action.folder,
    "keep": lambda action: "",
    "forward": lambda action: frozenset(action.targets),
    "notify": lambda action: (*action.targets, action.text),
    "pipe": lambda action: action.targets,
}
"""The same of an action that was planned."""


# facts

_AT_HAND = ("attachment.type", "attachment.inner", "attachment.danger", "ambiguous", "list")
"""What is found in the message itself, or beside the rules."""
_NEUTRAL: dict[str, Sequence[Any]] = {"truth": (False,), "number": (0.0,), "text": ()}
_UNKNOWN = ("spam",)
"""What follows from another fact when it is not known: from `spam.score`."""


def offline(ask: Ask) -> Ask:
    """Asks about nothing but the message and the files of the rules."""
    return lambda fact: ask(fact) if fact.name in _AT_HAND else None


def neutral(ask: Ask) -> Ask:
    """The same, with neutral values for what is not known then."""
    at_hand = offline(ask)

    def answer(fact: Fact) -> Sequence[Any] | None:
        found = at_hand(fact)
        return _neutral(fact) if found is None else found

    return answer


def _neutral(fact: Fact) -> Sequence[Any] | None:
    if fact.name == "attachment.type":
        return [part.type for part in fact.message.attachments]
    if fact.name in ("attachment.inner", "attachment.danger"):
        return [()] * len(fact.message.attachments)
    if fact.name in ir.QUESTIONS:
        return _NEUTRAL["truth"]
    known = fact.name in SUBJECTS and fact.name not in _UNKNOWN
    return _NEUTRAL[SUBJECTS[fact.name].type] if known else None


_ENVELOPE = {
    "envelope.from": "sender",
    "envelope.to": "recipient",
    "envelope.original": "original",
}
_CLIENT = {"client.ip": "ip", "client.name": "name", "client.helo": "helo"}


def told(envelope: Envelope, given: Given, settings: Settings) -> tuple[Envelope, Given]:
    """An envelope that says what is given of it, and the facts that are left."""
    from mdaflow.mail.date import parse_moment

    said = {name: next(map(str, values), "") for (name, _), values in given.items()}
    fields: dict[str, Any] = {f: said[name] for name, f in _ENVELOPE.items() if name in said}
    client = {field: said[name] for name, field in _CLIENT.items() if name in said}
    if at := parse_moment(said.get("received", ""), settings.zone):
        fields["received"] = at[0]
    left = {k: v for k, v in given.items() if k[0] not in (*_ENVELOPE, "received")}
    return replace(envelope, client=replace(envelope.client, **client), **fields), left


def gathered(given: Iterable[ir.Given]) -> dict[tuple[str, str], Sequence[Any]]:
    """Facts by subject and argument; what is given twice has the values of both."""
    found: dict[tuple[str, str], Sequence[Any]] = {}
    for fact in given:
        is_field = fact.name.partition(".")[0] == "header"  # whose names are in any case
        key = (fact.name, fact.argument.lower() if is_field else fact.argument)
        found[key] = (*found.get(key, ()), *fact.values)
    return found


_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?[KMG]?", re.ASCII)
_TRUTHS = {"true": True, "false": False}
_NOWHERE = Span("given", 1, 1, 1, 1)


def parse_given(texts: Iterable[str]) -> dict[tuple[str, str], Sequence[Any]]:
    """Facts from `spam.score=7`, `virus.found=true`, `remembered:KEY=true`, `header:NAME=VALUE`.

    Raises SourceError for names and values that do not fit; of its problems only the messages
    count.
    """
    facts = tuple(_given(text) for text in texts)
    case = ir.Case(_NOWHERE, "", "", False, facts, ())
    if problems := check(ir.Program("given", (), (case,))):
        raise SourceError(problems)
    return gathered(facts)


def _given(text: str) -> ir.Given:
    name = re.split("[:=]", text, maxsplit=1)[0]
    rest, argument = text[len(name) :], ""
    if rest.startswith(":"):  # a key may have a `=`, a name of a field has none
        cut = rest.rpartition if name in ir.QUESTIONS else rest.partition
        argument, value = cut("=")[0][1:], cut("=")[2]
    else:
        value = rest[1:]
    return ir.Given(_NOWHERE, name, argument, (_typed(_kind(name), value),))


def _kind(name: str) -> str:
    if name in ir.QUESTIONS:
        return "truth"
    subject, part = split(name)
    known = subject in SUBJECTS and (not part or part in SUBJECTS[subject].parts)
    return type_of(subject, part) if known else "text"


def _typed(kind: str, value: str) -> str | float | bool:
    """What does not fit stays a text, which is refused then."""
    if kind == "truth":
        return _TRUTHS.get(value.lower(), value)
    return number(value) if kind == "number" and _NUMBER.fullmatch(value) else value
