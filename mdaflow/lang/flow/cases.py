"""Test blocks: tree to the cases of the IR."""

from __future__ import annotations

from collections.abc import Callable

from mdaflow.lang import ir

from .form import Form, Node, tokens
from .strings import raw

_TRUTH = {"TRUE": True, "FALSE": False}


class Cases:
    """Lowers test blocks; `act` lowers an action."""

    def __init__(self, form: Form, act: Callable[[Node], ir.Act]) -> None:
        self.form = form
        self.act = act

    def case(self, node: Node) -> ir.Case:
        """One test block."""
        name, *lines = node.children
        message, file = "", False
        messages = [line for line in lines if line.data == "message"]
        for line in lines:
            if line.data == "junk":
                self.form.junk(line)
        if len(messages) != 1:
            self.form.problem(name, "one-message")
        elif messages[0].children[-1].type == "STRING":
            message, file = self.form.plain(messages[0].children[-1]), True
        else:
            message = raw(str(messages[0].children[-1]))
        given = [f for line in lines if line.data == "given" for f in line.children]
        expected = [self._expected(line) for line in lines if line.data == "expect"]
        if not expected:
            self.form.problem(name, "expects-nothing")
        facts = tuple(self._given(fact) for fact in given)
        title = self.form.plain(name)
        return ir.Case(self.form.span(node), title, message, file, facts, tuple(expected))

    def _given(self, node: Node) -> ir.Given:
        name, argument, value = node.children
        values = tuple(self._value(word) for child in value.children for word in _words(child))
        said = "" if argument is None else self.form.plain(argument)
        return ir.Given(self.form.span(node), str(name), said, values)

    def _value(self, token: Node) -> str | float | bool:
        if token.type in _TRUTH:
            return _TRUTH[token.type]
        return self.form.plain(token) if token.type == "STRING" else self.form.number(token).amount

    def _expected(self, node: Node) -> ir.Expected:
        how, what = node.children
        span, text = self.form.span(node), self.form.text(node)
        said = "" if how is None else str(how)
        if what.data == "expected_rule":
            return ir.Expected(span, text, said, rule=self.form.plain(what.children[0]))
        if any(getattr(child, "data", "") == "reply_between" for child in what.children):
            self.form.problem(what, "expects-between")
        return ir.Expected(span, text, said, act=self.act(what))


def _words(node: Node) -> list[Node]:
    return [node] if isinstance(node, str) else tokens(node)
