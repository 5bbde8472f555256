"""Tree to IR: one function a rule of the grammar, found in one table.

Lowering judges form only: strings, numbers, nesting. Whether a subject, a list or a folder
makes sense is judged later, on the IR.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Source, Span
from mdaflow.lang.subjects import split

from . import strings

MAX_DEPTH = 32
MAX_ELIFS = 100
MAX_RULES = 10_000

_RESERVED = frozenset((
    "quarantine", "forward", "pipe", "filter", "reply", "notify", "add", "remove", "log",
    "remember", "learn", "import", "alias", "test", "given", "expect", "within", "per",
))  # fmt: skip
"""Words of the language to come: no name may be one, so that files stay right."""

_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}

Node = Any
"""A tree, or a token, which is a str: of driver.py, or of Lark when there are errors."""


def lower(tree: Node, source: Source) -> tuple[ir.Program, list[Problem]]:
    """The program of a tree, and every problem of form in it."""
    lowering = _Lowering(source)
    body = tuple(s for child in tree.children for s in lowering.statements(child))
    return ir.Program(source.file, body), lowering.problems


class _Lowering:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.depth = 0
        self.elifs = 0
        self.rules = 0
        self.statement: dict[str, Callable[[Node], ir.Statement]] = {
            "list": self._list, "set": self._set, "rule": self._rule, "if": self._if,
            "also": self._also, "deliver": self._action, "keep": self._action,
            "discard": self._action, "reject": self._action, "defer": self._action,
            "flag": self._flag, "unflag": self._flag, "stop": self._stop,
        }  # fmt: skip
        self.test: dict[str, Callable[[Node], ir.Test]] = {
            "or_": self._join, "and_": self._join, "not_": self._join, "comparison": self._compare,
            "true": self._constant, "false": self._constant,
        }  # fmt: skip

    # places

    def span(self, node: Node) -> Span:
        start, end = _extent(node)
        return self.source.span(start, end)

    def text(self, node: Node) -> str:
        start, end = _extent(node)
        return " ".join(self.source.text[start:end].split())

    def problem(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.span(node), message))

    # statements

    def statements(self, node: Node) -> list[ir.Statement]:
        if isinstance(node, str):
            return []
        if node.data == "junk":
            self._junk(node)
            return []
        return [self.statement[str(node.data)](node)]

    def block(self, node: Node) -> tuple[ir.Statement, ...]:
        if not self._enter(node):
            return ()
        found = tuple(s for child in node.children for s in self.statements(child))
        self.depth -= 1
        return found

    def _enter(self, node: Node) -> bool:
        if self.depth == MAX_DEPTH:
            self.problem(node, f"this is nested more than {MAX_DEPTH} levels deep")
            return False
        self.depth += 1
        return True

    def _rule(self, node: Node) -> ir.Statement:
        name, condition, block, otherwise = node.children
        self.rules += 1
        if self.rules == MAX_RULES + 1:
            self.problem(node, f"more than {MAX_RULES:,} rules in one file")
        title = self._plain(name) if isinstance(name, str) else ""
        if otherwise is not None and condition is None:
            self.problem(otherwise, "'otherwise' needs a rule with 'when'")
        test = None if condition is None else self.condition(condition)
        last = () if otherwise is None else self.block(otherwise)
        head = self._head(node, block)
        known_as = title or (head if test is not None else "")
        return ir.Branch(self.span(node), head, known_as, test, self.block(block), last)

    def _if(self, node: Node) -> ir.Statement:
        condition, block, *elifs, otherwise = node.children
        self.elifs += len(elifs)  # each is a level of the IR, and so are those around them
        if self.elifs > MAX_ELIFS:
            self.problem(node, f"more than {MAX_ELIFS} elif; write rules instead")
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
        test, head = self.condition(condition), self._head(node, block)
        return ir.Branch(self.span(node), head, "", test, self.block(block), last)

    def _head(self, node: Node, block: Node) -> str:
        start = _extent(node)[0]
        return " ".join(self.source.text[start : _extent(block)[0]].split())

    def _list(self, node: Node) -> ir.Statement:
        name, items = node.children
        return ir.Assign(self.span(name), self._name(name), self._items(items))

    def _set(self, node: Node) -> ir.Statement:
        name, value = node.children
        lowered = self._items(value) if value.data == "items" else self._string(value)
        return ir.Assign(self.span(name), self._name(name), lowered)

    def _name(self, token: Node) -> str:
        if token in _RESERVED:
            self.problem(token, f"'{token}' is a word of the language; take another name")
        return str(token)

    def _also(self, node: Node) -> ir.Statement:
        return self._action(node.children[0], also=node)

    def _action(self, node: Node, also: Node | None = None) -> ir.Act:
        operand: ir.Text | None = None
        flags: tuple[str, ...] = ()
        for child in node.children:
            if child is None:
                continue
            if child.data == "string":
                operand = self._string(child)
            else:
                flags += self._flags(child.children[0])
        whole, final = also or node, also is None
        verb = str(node.data)
        return ir.Act(self.span(whole), self.text(whole), verb, final, final, operand, flags)

    def _flag(self, node: Node) -> ir.Statement:
        operation = "add" if node.data == "flag" else "remove"
        flags = self._flags(node.children[0])
        return ir.Flag(self.span(node), self.text(node), operation, flags)

    def _stop(self, node: Node) -> ir.Statement:
        return ir.Stop(self.span(node), self.text(node))

    def _flags(self, node: Node) -> tuple[str, ...]:
        return (self._plain(node),) if isinstance(node, str) else self._items(node).entries

    # conditions

    def condition(self, node: Node) -> ir.Test:
        return self.test[str(node.data)](node)

    def _join(self, node: Node) -> ir.Test:
        if not self._enter(node):
            return ir.Constant(self.span(node), False)
        word = str(node.data).rstrip("_")
        operands = _chain(node) if word != "not" else node.children
        tests = tuple(self.condition(child) for child in operands)
        self.depth -= 1
        return ir.Join(self.span(node), word, tests)

    def _constant(self, node: Node) -> ir.Test:
        return ir.Constant(self.span(node), node.data == "true")

    def _compare(self, node: Node) -> ir.Test:
        subject, relation = node.children
        words: list[Node] = [c for c in subject.children if isinstance(c, str)]
        words = [word for word in words if word.type != "STRING"]
        every = words[0].type == "QUANTIFIER"
        raw = any(w.type == "RAW" for w in words[:-1])
        name, part = split(str(words[-1]))
        found = ir.Subject(self.span(subject), name, part, self._argument(subject), raw)
        span, text = self.span(node), self.text(node)
        if relation is None:
            return ir.Compare(span, text, found, "true", every=every)
        negated, word, values = self._relation(relation)
        operands, all_, exact = self._values(values)
        if word == "matches":
            word = "regex" if any(isinstance(v, ir.Pattern) for v in operands) else "glob"
        test = ir.Compare(span, text, found, word, operands, every, all_, exact)
        return ir.Join(span, "not", (test,)) if negated else test

    def _argument(self, subject: Node) -> tuple[str, ...]:
        last = subject.children[-1]
        if last is None:
            return ()
        return (self._plain(last),) if isinstance(last, str) else self._items(last).entries

    def _relation(self, node: Node) -> tuple[bool, str, list[Node]]:
        tokens: list[Node] = [c for c in node.children if isinstance(c, str)]
        values = [c for c in node.children if not isinstance(c, str)]
        negated = any(t.type == "NOT" for t in tokens) or tokens[0] == "!="
        word = {"is_": "is", "is_not": "is", "in_": "in"}.get(str(node.data), str(node.data))
        if word == "compare":
            word = "=" if tokens[0] == "!=" else str(tokens[0])
        return negated, word, values

    # values

    def _values(self, nodes: list[Node]) -> tuple[tuple[ir.Value, ...], bool, bool]:
        tokens: list[Node] = [c for node in nodes for c in node.children if isinstance(c, str)]
        types = {token.type for token in tokens}
        lowered = [self._value(node.children[-1]) for node in nodes]
        return tuple(v for v in lowered if v), "ALL" in types, "EXACTLY" in types

    def _value(self, node: Node) -> ir.Value | None:
        first = node.children[0] if node.children else None
        match str(node.data):
            case "string":
                return self._string(node)
            case "regex":
                source, _, flags = str(first)[1:].rpartition("/")
                return ir.Pattern(self.span(node), source.replace("\\/", "/"), flags)
            case "number":
                return ir.Number(self.span(node), _number(str(first)))
            case "duration":
                return ir.Number(self.span(node), _seconds(str(first)))
            case "word":
                return ir.Items(self.span(node), name=str(first))
            case "items":
                return self._items(node)
        self._junk(node)
        return None

    def _items(self, node: Node) -> ir.Items:
        tokens = [c for c in node.children if isinstance(c, str)]
        return ir.Items(self.span(node), tuple(self._plain(token) for token in tokens))

    def _string(self, node: Node) -> ir.Text:
        token = node.children[0]
        return strings.text(str(token), _extent(token)[0], self.source, self.problems)

    def _plain(self, token: Node) -> str:
        return strings.plain(str(token), _extent(token)[0], self.source, self.problems)

    def _junk(self, node: Node) -> None:
        from .explain import JUNK

        token = node.children[0]
        self.problem(token, JUNK[token.type])


def _extent(node: Node) -> tuple[int, int]:
    place: Any = node if isinstance(node, str) else node.meta
    return int(place.start_pos or 0), int(place.end_pos or 0)


def _chain(node: Node) -> list[Node]:
    """The operands of `a or b or c`, which the grammar gives as `(a or b) or c`."""
    operands: list[Node] = []
    at: Node = node
    while at.data == node.data:
        first, last = at.children
        operands.append(last)
        at = first
    return [at, *reversed(operands)]


def _number(word: str) -> float:
    return float(word[:-1]) * _SIZES[word[-1]] if word[-1] in _SIZES else float(word)


def _seconds(word: str) -> float:
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz \t\r\n")
    return float(digits) * _SECONDS[word[len(digits) :].strip().rstrip("s")]
