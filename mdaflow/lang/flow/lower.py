"""Tree to IR: one function a rule of the grammar, found in one table.

Lowering judges form only: strings, numbers, nesting. Whether a subject, a list or a folder
makes sense is judged later, on the IR. This file has the statements; conditions.py the
conditions, cases.py the test blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from mdaflow.lang import ir
from mdaflow.lang.limits import DEFAULTS, Limits
from mdaflow.lang.source import Problem, Source

from .cases import Cases
from .conditions import Conditions
from .form import Form, Node, tokens

MAX_ELIFS = 100
FILTER_SECONDS = 30.0
"""What a filter may take when nothing is said."""

_Text = ir.Text
_Option = tuple[str, _Text | ir.Number]


def lower(
    tree: Node, source: Source, limits: Limits = DEFAULTS
) -> tuple[ir.Program, list[Problem]]:
    """The program of a tree, and every problem of form in it."""
    lowering = _Lowering(source, limits)
    body = tuple(s for child in tree.children for s in lowering.statements(child))
    return ir.Program(source.file, body, tuple(lowering.cases)), lowering.form.problems


class _Lowering:
    def __init__(self, source: Source, limits: Limits) -> None:
        self.limits = limits
        self.form = Form(source, limits.nesting)
        self.conditions = Conditions(self.form)
        self.tests = Cases(self.form, self.act)
        self.cases: list[ir.Case] = []
        self.elifs = 0
        self.rules = 0
        self.by_rule: dict[str, Callable[[Node], ir.Statement]] = {
            "list": self._list, "set": self._set, "import": self._import, "alias": self._alias,
            "rule": self._rule, "if": self._if, "also": self.act, "stop": self._stop,
            "flag": self._flag, "unflag": self._flag, "score": self._score,
            "filter": self._filter, "add_header": self._edit, "set_header": self._edit,
            "remove_header": self._remove,
            **dict.fromkeys(ir.ACTIONS, self.act),
        }  # fmt: skip

    def statements(self, node: Node) -> list[ir.Statement]:
        """The statement of a node; none of what is no statement."""
        if isinstance(node, str):
            return []
        if node.data == "junk":
            self.form.junk(node)
            return []
        if node.data == "test":
            self.cases.append(self.tests.case(node))
            return []
        lowered = self.by_rule[str(node.data)](node)
        return [self._limited(node, lowered) if node.data == "reply" else lowered]

    def block(self, node: Node) -> tuple[ir.Statement, ...]:
        """The statements between braces."""
        if not self.form.enter(node):
            return ()
        found = tuple(s for child in node.children for s in self.statements(child))
        self.form.depth -= 1
        return found

    # blocks

    def _rule(self, node: Node) -> ir.Statement:
        name, condition, block, otherwise = node.children
        self.rules += 1
        if self.rules == self.limits.rules + 1:
            self.form.problem(node, "too-many-rules", most=self.limits.rules)
        title = self.form.plain(name) if isinstance(name, str) else ""
        if otherwise is not None and condition is None:
            self.form.problem(otherwise, "otherwise-when")
        test = None if condition is None else self.conditions.test(condition)
        last = () if otherwise is None else self.block(otherwise)
        head = self.form.head(node, block)
        known_as = title or (head if test is not None else "")
        return ir.Branch(self.form.span(node), head, known_as, test, self.block(block), last)

    def _if(self, node: Node) -> ir.Statement:
        condition, block, *elifs, otherwise = node.children
        self.elifs += len(elifs)  # each is a level of the IR, and so are those around them
        if self.elifs > MAX_ELIFS:
            self.form.problem(node, "too-many-elifs", most=MAX_ELIFS)
            elifs, otherwise = [], None
        last: tuple[ir.Statement, ...] = () if otherwise is None else self.block(otherwise)
        for elif_ in reversed(elifs):
            last = (self._branch(elif_, elif_.children[0], elif_.children[1], last),)
        branch = self._branch(node, condition, block, last)
        self.elifs -= len(node.children) - 3
        return branch

    def _branch(
        self, node: Node, condition: Node, block: Node, last: tuple[ir.Statement, ...]
    ) -> ir.Branch:
        test, head = self.conditions.test(condition), self.form.head(node, block)
        return ir.Branch(self.form.span(node), head, "", test, self.block(block), last)

    # names

    def _list(self, node: Node) -> ir.Statement:
        _, name, *_, value = node.children
        items = (
            ir.Items(self.form.span(value), file=self.form.plain(value))
            if isinstance(value, str)
            else self.form.items(value)
        )
        return ir.Assign(self.form.span(name), str(name), items)

    def _set(self, node: Node) -> ir.Statement:
        name, value = node.children
        lowered = self.form.items(value) if value.data == "items" else self.form.string(value)
        return ir.Assign(self.form.span(name), str(name), lowered)

    def _import(self, node: Node) -> ir.Statement:
        return ir.Include(self.form.span(node.children[0]), self.form.plain(node.children[0]))

    def _alias(self, node: Node) -> ir.Statement:
        name, _, targets = node.children
        found = self.form.plains(targets)
        return ir.Alias(self.form.span(node), self.form.plain(name), found)

    # actions

    def act(self, node: Node) -> ir.Act:
        """An action, with `also` or without."""
        inner = node.children[-1] if node.data == "also" else node
        verb = str(inner.data).removeprefix("bare_")
        final = ir.ACTIONS[verb] and inner is node
        operands: list[_Text] = []
        flags: list[str] = []
        options: list[_Option] = []
        said: list[str] = []
        for child in inner.children:
            kind = "" if child is None else getattr(child, "type", "") or str(child.data)
            if kind == "with_flags":
                flags += self.form.plains(child.children[-1])
            elif kind == "reply_between":
                said.append("between")  # a condition: see `_limited`
            elif kind in _OPTIONS:
                options.append((_OPTIONS[kind], self._option(child.children[-1])))
            elif kind == "items":
                operands += self.form.texts(child)
            elif kind == "string":
                operands.append(self.form.string(child))
            elif kind not in ("", "TO") or (kind and verb == "learn"):
                operands.append(ir.Text(self.form.span(child), (str(child),)))
        self._once(node, [*said, *(name for name, _ in options)])
        span, text = self.form.span(node), self.form.text(node)
        what = tuple(operands), tuple(flags), tuple(options)
        return ir.Act(span, text, verb, final, final, *what)

    def _limited(self, node: Node, act: ir.Statement) -> ir.Statement:
        """What is done only of mail that came between two days stands under a condition."""
        for child in node.children:
            if getattr(child, "data", "") == "reply_between":
                span, days = self.form.span(child), tokens(child)[1::2]
                subject = ir.Subject(span, "received")
                bounds = tuple(self.form.string(day) for day in days)
                text = f"received {self.form.text(child)}"
                test = ir.Compare(span, text, subject, "between", bounds)
                return ir.Branch(self.form.span(node), self.form.text(node), "", test, (act,))
        return act

    def _option(self, node: Node) -> _Text | ir.Number:
        is_time = getattr(node, "type", "") == "DURATION"
        return self.form.number(node) if is_time else self.form.string(node)

    def _once(self, node: Node, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                self.form.problem(node, "said-twice", word=name)
                return

    def _flag(self, node: Node) -> ir.Statement:
        operation = "add" if node.data == "flag" else "remove"
        flags = self.form.plains(node.children[0])
        return ir.Flag(self.form.span(node), self.form.text(node), operation, flags)

    def _stop(self, node: Node) -> ir.Statement:
        return ir.Stop(self.form.span(node), self.form.text(node))

    # the message

    def _edit(self, node: Node) -> ir.Statement:
        operation = str(node.data).partition("_")[0]
        value = self.form.string(node.children[-1])
        first = value.parts[0] if value.parts else ""
        name, colon, rest = (first if isinstance(first, str) else "").partition(":")
        if not colon:
            self.form.problem(node.children[-1], "header-form")
        rest = rest.lstrip()
        value = value._replace(parts=((rest,) if rest else ()) + value.parts[1:])
        span, text = self.form.span(node), self.form.text(node)
        return ir.Edit(span, text, operation, name.strip(), value)

    def _remove(self, node: Node) -> ir.Statement:
        _, token, relation = node.children
        span, text, name = self.form.span(node), self.form.text(node), self.form.plain(token)
        if relation is None:
            return ir.Edit(span, text, "remove", name)
        if any(t.type == "NOT" or t == "!=" for t in tokens(relation)) or relation.data == "where":
            self.form.problem(relation, "remove-what")
            return ir.Edit(span, text, "remove", name)
        subject = ir.Subject(self.form.span(token), "header", "", (name,))
        test = self.conditions.compare(node, subject, False, relation)
        return ir.Edit(span, text, "remove", name, None, test)

    def _filter(self, node: Node) -> ir.Statement:
        _, program, within = node.children
        seconds = FILTER_SECONDS
        if within is not None:
            seconds = self.form.number(within.children[0]).amount
        operands = self.form.texts(program)
        return ir.Filter(self.form.span(node), self.form.text(node), operands, seconds)

    def _score(self, node: Node) -> ir.Statement:
        _, name, sign, points, per = node.children
        amount = self.form.number(points).amount * (-1 if sign == "-=" else 1)
        span, text = self.form.span(node), self.form.text(node)
        if per is None:
            return ir.Score(span, text, str(name), amount)
        _, _, what, _, subject, at_most = per.children
        pattern = self.form.pattern(what) if isinstance(what, str) else self.form.string(what)
        most = None if at_most is None else self.form.number(at_most.children[-1]).amount
        looked_at = self.conditions.subject(subject)
        return ir.Score(span, text, str(name), amount, pattern, looked_at, most)


_OPTIONS = {
    "expire": "expire",
    "lasting": "for",
    "within": "within",
    "locked": "locked",
    "reply_html": "html",
    "reply_subject": "subject",
    "reply_every": "every",
    "reply_from": "from",
    "reply_as": "as",
}
"""Rules of the grammar for options -> the option's name."""
