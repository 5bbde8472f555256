"""Conditions: tree to the tests of the IR, one function a rule of the grammar."""

from __future__ import annotations

from collections.abc import Callable

from mdaflow.lang import ir
from mdaflow.lang.subjects import split

from .form import Form, Node, tokens

_ASKED_BY = {"listed": "in_", "folder": "exists", "command": "succeeds", "remembered": ""}
"""What is asked of the world -> the relation that asks it; "" for none."""
_ASKING = {
    "listed": 'listed in "zone"',
    "folder": 'folder "X" exists',
    "command": 'command ["program"] succeeds',
    "remembered": 'remembered "key"',
}


class Conditions:
    """Lowers conditions."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.over = ""
        """The subject of the `where` that we are in."""
        self.by_rule: dict[str, Callable[[Node], ir.Test]] = {
            "or_": self._join, "and_": self._join, "not_": self._join,
            "comparison": self._comparison, "true": self._constant, "false": self._constant,
        }  # fmt: skip

    def test(self, node: Node) -> ir.Test:
        """The test that a condition says."""
        return self.by_rule[str(node.data)](node)

    def subject(self, node: Node) -> ir.Subject:
        """A subject with its part and its arguments."""
        words = [word for word in tokens(node) if word.type != "STRING"]
        name, part = split(str(words[-1]))
        if self.over and name != self.over:
            name, part = self.over, str(words[-1])
        last = node.children[-1]
        arguments = () if last is None else self.form.plains(last)
        raw = any(word.type == "RAW" for word in words[:-1])
        return ir.Subject(self.form.span(node), name, part, arguments, raw)

    def _join(self, node: Node) -> ir.Test:
        if not self.form.enter(node):
            return ir.Constant(self.form.span(node), False)
        word = str(node.data).rstrip("_")
        operands = _chain(node) if word != "not" else node.children
        tests = tuple(self.test(child) for child in operands)
        self.form.depth -= 1
        return ir.Join(self.form.span(node), word, tests)

    def _constant(self, node: Node) -> ir.Test:
        return ir.Constant(self.form.span(node), node.data == "true")

    def _comparison(self, node: Node) -> ir.Test:
        subject, relation = node.children
        negated = relation is not None and any(
            word.type == "NOT" or word == "!=" for word in tokens(relation)
        )
        test = self._positive(node, subject, relation)
        return ir.Join(test.span, "not", (test,)) if negated else test

    def _positive(self, node: Node, subject: Node, relation: Node) -> ir.Test:
        word = "" if relation is None else str(relation.data)
        if word == "where":
            return self._where(node, subject, relation)
        name = str([token for token in tokens(subject) if token.type != "STRING"][-1])
        if name in _ASKED_BY and not self.over:
            return self._question(node, name, subject, relation)
        if word == "succeeds":
            self.form.problem(relation, "succeeds-place")
        return self.compare(node, self.subject(subject), _is_every(subject), relation)

    def compare(
        self, node: Node, subject: ir.Subject, every: bool, relation: Node | None
    ) -> ir.Compare:
        """The comparison of a subject, without its `not`."""
        span, text = self.form.span(node), self.form.text(node)
        if relation is None:
            return ir.Compare(span, text, subject, "true", every=every)
        word = {"is_": "is", "is_not": "is", "in_": "in"}.get(
            str(relation.data), str(relation.data)
        )
        if word == "compare":
            sign = str(tokens(relation)[0])
            word = "=" if sign == "!=" else sign
        values = [child for child in relation.children if not isinstance(child, str)]
        modes = {token.type for value in values for token in tokens(value)}
        operands = tuple(v for v in (self._value(n.children[-1]) for n in values) if v)
        if word == "matches":
            word = "regex" if any(isinstance(v, ir.Pattern) for v in operands) else "glob"
        return ir.Compare(
            span, text, subject, word, operands, every, "ALL" in modes, "EXACTLY" in modes
        )

    def _where(self, node: Node, subject: Node, relation: Node) -> ir.Test:
        over = self.subject(subject)
        if self.over or over.words != "attachment":
            self.form.problem(subject, "where-place")
        if not self.form.enter(node):
            return ir.Constant(self.form.span(node), False)
        outside, self.over = self.over, "attachment"
        inner = self.test(relation.children[-1])
        self.over = outside
        self.form.depth -= 1
        every = _is_every(subject)
        return ir.Some(self.form.span(node), self.form.text(node), "attachment", inner, every)

    def _question(self, node: Node, name: str, subject: Node, relation: Node) -> ir.Test:
        found = "" if relation is None else str(relation.data)
        argument = subject.children[-1]
        arguments: tuple[ir.Text, ...] = ()
        if name == "listed" and found == "in_" and argument is None:
            zone = relation.children[-1].children[-1]
            arguments = (self.form.string(zone),) if zone.data == "string" else ()
        elif argument is not None and found == _ASKED_BY[name]:
            several = not isinstance(argument, str)
            if several == (name == "command"):
                arguments = self.form.texts(argument) if several else (self.form.string(argument),)
        if not arguments or len(tokens(subject)) > 1 + isinstance(argument, str):
            self.form.problem(node, "question-form", example=_ASKING[name])
        return ir.Question(self.form.span(node), self.form.text(node), name, arguments)

    def _value(self, node: Node) -> ir.Value | None:
        first = node.children[0] if node.children else None
        match str(node.data):
            case "string":
                return self.form.string(node)
            case "regex":
                return self.form.pattern(first)
            case "number" | "duration":
                return self.form.number(first)
            case "word":
                return ir.Items(self.form.span(node), name=str(first))
            case "items":
                return self.form.items(node)
        self.form.junk(node)
        return None


def _is_every(subject: Node) -> bool:
    return bool(tokens(subject)[0].type == "EVERY")


def _chain(node: Node) -> list[Node]:
    """The operands of `a or b or c`, which the grammar gives as `(a or b) or c`."""
    operands: list[Node] = []
    at: Node = node
    while at.data == node.data:
        first, last = at.children
        operands.append(last)
        at = first
    return [at, *reversed(operands)]
