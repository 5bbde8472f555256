"""The manual pages say what the program does, and all of it.

The pages are read with a small part of mdoc(7): macros with their words, displays, escapes.
What a macro stands for in them is said at the top of each page.
"""

from __future__ import annotations

import re
import types as types_module
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import click
import pytest

from mdaflow import Envelope, MemoryStore, Program, Stage, lint, open_site
from mdaflow.app import answers, lists
from mdaflow.app.config import (
    Clamd,
    Config,
    Folders,
    Package,
    Passwd,
    Rspamd,
    Rules,
    Spamd,
    Sql,
    System,
)
from mdaflow.app.load import loads
from mdaflow.app.rulebook import USER_ACTIONS
from mdaflow.app.trial import named_rules, try_case
from mdaflow.cli import COMMANDS, mdaflow
from mdaflow.deliver import execute, mailbox, notify, pipe, program, reply
from mdaflow.engine import compile as engine
from mdaflow.engine import match, state, texts
from mdaflow.engine.context import Settings
from mdaflow.lang import check, compile_rules, files, ir, limits
from mdaflow.lang.check import statements
from mdaflow.lang.flow import grammar, lower
from mdaflow.lang.messages import WARNINGS
from mdaflow.lang.patterns import RE2_MEMORY
from mdaflow.lang.source import MAX_PROBLEMS, SourceError
from mdaflow.lang.subjects import SUBJECTS, is_asked, split
from mdaflow.mail import address, edit, header, letter, message
from mdaflow.route import resolve
from mdaflow.scan import archives, dangers, magic

MAN = Path(__file__).resolve().parent.parent / "contrib" / "man"
PAGES = ("mdaflow.1", "mdaflow-rules.5", "mdaflow.yaml.5")

# --- mdoc ------------------------------------------------------------------------------------

_ESCAPES = {
    "\\e": "\\", "\\-": "-", "\\&": "", "\\(dq": '"', "\\(ha": "^", "\\(ti": "~", "\\(aq": "'",
    "\\(ss": "ß", "\\(:u": "ü",
}  # fmt: skip
_MACRO = re.compile(r"[A-Z][a-z]")
_PUNCTUATION = set(".,:;|()[]?!")


class Display(NamedTuple):
    """What stands between `.Bd -literal` and `.Ed`, and the comment in front of it."""

    page: str
    line: int
    comment: str
    text: str


@cache
def lines(page: str) -> tuple[str, ...]:
    return tuple((MAN / page).read_text(encoding="utf-8").splitlines())


def plain(text: str) -> str:
    """Text without escapes; KeyError for one that is not in the table."""
    return re.sub(r"\\(?:\(..|.)", lambda escape: _ESCAPES[escape[0]], text)


def marked(text: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every word of the macro lines, with the macro it belongs to."""
    for line in text:
        if not line.startswith(".") or line.startswith('.\\"'):
            continue
        macro = ""
        for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', line[1:]):
            word = quoted or bare
            if _MACRO.fullmatch(bare):
                macro = bare
            elif word not in _PUNCTUATION:
                yield macro, plain(word)


def words(macro: str, text: Iterable[str]) -> set[str]:
    return {word for name, word in marked(text) if name == macro}


def sections(text: Iterable[str], macro: str) -> dict[str, list[str]]:
    """The lines below each heading, `.Sh` or `.Ss`, by its text."""
    found: dict[str, list[str]] = {}
    inside: list[str] = []
    for line in text:
        if line.startswith((f".{macro} ", ".Sh ")):
            inside = found.setdefault(line[4:], [])
        else:
            inside.append(line)
    return found


def displays(page: str) -> Iterator[Display]:
    start, text = 0, lines(page)
    for number, line in enumerate(text):
        if line.startswith(".Bd -literal"):
            start = number
        elif line == ".Ed" and start:
            content = "\n".join(map(plain, text[start + 1 : number])) + "\n"
            before = text[start - 1]
            comment = before[4:] if before.startswith('.\\" ') else ""
            yield Display(page, start + 1, comment, content)
            start = 0


def examples(page: str, comment: str = "") -> list[Any]:
    return [
        pytest.param(found.text, id=f"{found.page}:{found.line}")
        for found in displays(page)
        if found.comment == comment
    ]


def test_every_display_is_an_example() -> None:
    """Each `.Bd -literal` is one of the kinds that are tried below."""
    opened = sum(line.startswith(".Bd -literal") for page in PAGES for line in lines(page))
    tried = [
        *examples("mdaflow-rules.5"),
        *examples("mdaflow-rules.5", "conditions"),
        *examples("mdaflow.yaml.5"),
    ]
    assert len(tried) == opened > 10


@pytest.mark.parametrize("page", PAGES)
def test_references(page: str) -> None:
    """A page refers to other pages of ours only if there are any of that name."""
    text = [line.split() for line in lines(page) if line.startswith(".Xr mdaflow")]
    assert {f"{name}.{section}" for _, name, section, *_ in text} <= set(PAGES)


# --- mdaflow-rules(5) ------------------------------------------------------------------------

RULES = "mdaflow-rules.5"
DECLARED = """
list me = ["bob@example.org"]
list board = ["@board.example.org"]
score junk += 1
"""


def no_file(_path: str) -> bytes:
    """The content of a file that an example names."""
    return b""


def compiled(text: str) -> Program:
    """The program of a text; the files that it names are empty."""
    return compile_rules(text, read=no_file)


@pytest.mark.parametrize("text", examples(RULES))
def test_rules(text: str) -> None:
    """An example of rules is right as it stands, nothing in it is doubtful, its tests pass."""
    rules = compiled(text)
    assert rules.body
    assert list(map(str, lint(rules))) == []
    stage, ask = Stage(rules), answers.Answers(MemoryStore())
    names = named_rules(rules)
    for case in rules.cases:
        result = try_case(stage, case, names, settings=Settings(), ask=ask, read=no_file)
        assert not result.failures


@pytest.mark.parametrize("text", examples(RULES, "conditions"))
def test_conditions_compile(text: str) -> None:
    """Each line of an example of conditions is one."""
    for condition in text.splitlines():
        assert compiled(f"{DECLARED}if {condition} {{ keep }}").body


def compiles(text: str) -> bool:
    try:
        compiled(text)
    except SourceError:
        return False
    return True


def test_words_of_the_language() -> None:
    """The page knows each word of the language, and no other."""
    signs = set(re.findall(r'"([-+!<>=]+)"', grammar._grammar()))
    language = set(grammar.load()["words"]) | set(ir.FILTERS) | signs
    assert {relation for relation in ir.RELATIONS if not relation.isalpha()} <= language
    assert words("Ic", lines(RULES)) == language


def test_reserved_words() -> None:
    """The reserved words are those that can name nothing."""
    reserved = {w for w in grammar.load()["words"] if not compiles(f'set {w} = "x"')}
    text = lines(RULES)
    start = text.index("Reserved are")
    assert words("Ic", text[start : text.index(".Ss Several files")]) == reserved


def test_subjects() -> None:
    """The page has an entry for each subject, names each part, and knows no others."""
    subjects = {*SUBJECTS, *ir.QUESTIONS, "score"}
    parts = {f".{part}" for kind in SUBJECTS.values() for part in kind.parts}
    table = [line for line in sections(lines(RULES), "Sh")["SUBJECTS"] if line.startswith(".It ")]
    assert words("Va", table) == subjects | parts
    told = words("Va", lines(RULES)) - subjects - parts
    assert {f".{split(word)[1]}" for word in told} <= parts


def test_raw() -> None:
    """The page says for which subjects there is `raw`."""
    text = lines(RULES)
    start = text.index(".Ic raw")
    told = words("Va", text[start : text.index(".Ic every", start)])
    assert told == {name for name, kind in SUBJECTS.items() if kind.raw}


def test_flags() -> None:
    """The page names each flag as it is written in a string."""
    told = {word for word in words("Ql", lines(RULES)) if re.fullmatch(r"\\\\[A-Z]\w+", word)}
    assert told == {flag.replace("\\", "\\\\") for flag in ir.FLAGS}


def literals(setting: str) -> set[str]:
    """The words that may stand in a list of the setting `rules`."""
    [words_, _] = typing.get_args(typing.get_type_hints(Rules)[setting])
    return set(typing.get_args(words_))


def test_what_users_may_do() -> None:
    """The page says what users may do, and what can be granted."""
    text = sections(lines(RULES), "Ss")["What users may do"]
    allowed, rest = text[: text.index(".Pp")], text[text.index(".Pp") + 1 :]
    site = rest[: rest.index(".Pp")]
    assert words("Ic", allowed) == set(USER_ACTIONS)
    assert words("Ic", site) | words("Va", site) == set(ir.POWERS) - {*USER_ACTIONS, "files"}
    assert literals("grant") == set(ir.POWERS) - {*USER_ACTIONS, "alias"}
    assert literals("deny") <= set(USER_ACTIONS)


def test_what_nobody_tells() -> None:
    """The page names the facts that nobody tells unless the configuration says who."""
    text = sections(lines(RULES), "Ss")["What is not known"]
    start = text.index("Unless the configuration names who looks, nobody tells")
    asked = {name for name in SUBJECTS if is_asked(name, "")} | set(ir.QUESTIONS)
    asked |= {f"attachment.{p}" for p in SUBJECTS["attachment"].parts if is_asked("attachment", p)}
    told = words("Va", text[start : text.index(".Va attachment.type", start)])
    site = open_site(Config(), MemoryStore())
    assert told == asked - site.answers.provided


def test_dangers() -> None:
    """The page names the dangers of attachments."""
    text = sections(lines(RULES), "Ss")["Attachments"]
    start = text.index(".It Va .danger")
    told = [line[7:] for line in text[start : text.index(".El", start)] if line[:7] == ".It Ql "]
    assert told == list(dangers.WORDS)


def test_protected_fields() -> None:
    """The page names the header fields that cannot be edited."""
    text = sections(lines(RULES), "Ss")["Header fields"]
    told = words("Li", text[text.index("These fields cannot be edited:") :])
    assert all(edit.protected(name.replace("*", "X")) for name in told)
    assert len(told) == len(edit._PROTECTED) + len(edit._PROTECTED_PREFIXES)


def test_environment_of_programs() -> None:
    """The page names each variable that a program gets."""
    given = {*program.clean_environment(Envelope(), "/"), "TZ"}
    assert words("Ev", sections(lines(RULES), "Ss")["Programs"]) == given


def test_expected_verbs() -> None:
    """The page names the verbs that can be expected alone, though they take something."""
    text = sections(lines(RULES), "Sh")["TESTS"]
    start = text.index("The verb alone is any action of that kind, as in")
    case = 'test "x" {{ message """a""" expect {} }}'
    alone = {verb for verb in ir.ACTIONS if compiles(case.format(verb))}
    told = words("Ic", text[start : text.index(".Pp", start)])
    assert told == {*alone, "expect", "not"} - {"keep", "discard"}


def test_warnings() -> None:
    """The page has a line for each warning, and no others."""
    text = sections(lines(RULES), "Sh")["WARNINGS"]
    told = [plain(line[7:]) for line in text if line.startswith(".It Li ")]
    assert sorted(told) == sorted(WARNINGS)


def test_limits() -> None:
    """The limits are those of the code."""
    told = [line[4:] for line in sections(lines(RULES), "Sh")["LIMITS"] if line[:4] == ".It "]
    usual = limits.DEFAULTS
    assert told == [
        f"{usual.file >> 20} MiB",
        f"{usual.rules:,}",
        str(usual.nesting),
        str(usual.imports),
        str(files.MAX_IMPORTS),
        str(lower.MAX_ELIFS),
        f"{lists.MAX_LIST >> 20} MiB",
        f"{lists.MAX_ENTRIES:,}",
        f"{check.MAX_ENTRIES:,}",
        f"{RE2_MEMORY >> 20} MiB",
        f"{check.MAX_INSTRUCTIONS:,}",
        str(check.MAX_GROUPS),
        f"{match.MAX_GLOB:,}",
        f"{texts.MAX_TEXT:,}",
        f"{state.MAX_VARIABLES:,}",
        f"{engine.MAX_MATCHES:,}",
        str(usual.actions),
        str(usual.forwards),
        f"{usual.cpu:g} s",
        f"{edit.MAX_HEAD >> 10} KiB",
        f"{letter.MAX_TEXT:,}",
        str(resolve.MAX_DEPTH),
        f"{resolve.MAX_TARGETS:,}",
        str(mailbox.DEEPEST),
        f"{message.MAX_TEXT >> 20} MiB",
        f"{address.MAX_ADDRESSES:,}",
        f"{header.MAX_FIELD >> 10} KiB",
        f"{header.MAX_BLOCK >> 20} MiB",
        f"{header.MAX_FIELDS:,}",
        str(magic.MAX_ATTACHMENTS),
        f"{archives.MAX_UNPACKED >> 20} MiB",
        str(MAX_PROBLEMS),
    ]


def test_numbers() -> None:
    """What the page says in passing are the numbers of the code."""
    text = " ".join(lines(RULES))
    day = 86_400
    for said in (
        f"No level is longer than {texts.MAX_LEVEL} characters",
        f"and {magic.LOOK_AT >> 10} KiB of each",
        f"unpacked, {archives.MAX_FILES:,} files, {archives.MAX_DEPTH} archives in each other, "
        f"{archives.MAX_RATIO} times the packed size, and {archives.MAX_SECONDS:g} seconds of",
        f"and {dangers.MAX_ATTACHMENTS} attachments; what is beyond is",
        f"in one line of at most {execute.MAX_REPLY} characters",
        f"a day or more; without it {reply.EVERY / day:g} days.",
        f"{pipe.SECONDS:g} seconds without it and {pipe.MAX_SECONDS / 60:g} minutes at most",
        f"{pipe.LOCK_WAIT:g} seconds at most; a name",
        f"may take {lower.FILTER_SECONDS:g} seconds if nothing is said",
        f"or more than {answers.MAX_FILTERED >> 20} MiB",
        f"With {answers.EX_TEMPFAIL}, by a signal or after {answers.COMMAND_SECONDS:g} seconds",
        f"in the last {answers.SEEN / day:g} days",
        f"An address gets {notify.MOST} in an hour at most",
    ):
        assert said in text
    assert day == statements.DAY == reply.LEAST
    assert letter.MAX_TEXT == engine.MAX_LETTER


# --- mdaflow.yaml(5) -------------------------------------------------------------------------

YAML = "mdaflow.yaml.5"


def settings(kind: Any = Config, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every key with its field; `users.folders` for what stands in a list."""
    types = typing.get_type_hints(kind)
    for field in fields(kind):
        listed = typing.get_origin(types[field.name]) is tuple
        inner: Any = typing.get_args(types[field.name])[0] if listed else types[field.name]
        several = typing.get_args(inner) if isinstance(inner, types_module.UnionType) else (inner,)
        nested = [one for one in several if is_dataclass(one)]
        if listed or not nested:
            yield prefix + field.name, field
        for one in nested:
            yield from settings(one, f"{prefix}{field.name}.")


SETTINGS = dict(settings())


def entries() -> dict[str, str]:
    """What stands below each `.It Cm KEY` of the page."""
    keys = "\n".join(sections(lines(YAML), "Sh")["KEYS"]).split("\n.It Cm ")[1:]
    return {key: text for key, _, text in (entry.partition("\n") for entry in keys)}


def test_keys() -> None:
    """The page explains each key, and no other."""
    assert set(entries()) == set(SETTINGS)


@pytest.mark.parametrize("page", PAGES)
def test_named_settings_exist(page: str) -> None:
    """No page names a setting that does not exist."""
    assert words("Cm", lines(page)) <= {*SETTINGS, "lmtp", "rules", "log"}


def has_default(key: str) -> bool:
    field = SETTINGS[key]
    return field.default is not MISSING or field.default_factory is not MISSING


def test_required_keys() -> None:
    """The page says that a key is required if it has no default."""
    required = {key for key, text in entries().items() if "; required.\n" in text}
    assert required == {key for key in SETTINGS if not has_default(key)}


SOURCES: dict[str, Any] = {
    "folders: /var/mail/vhosts": Folders("/var/mail/vhosts"),
    "system: []": System(),
    "passwd: /x": Passwd("/x"),
    "sql: x\n  user: x": Sql("x", "x"),
}
"""Sources of users with all that they need, as they are written."""
SCANNERS: dict[str, Any] = {
    "clamd: ['unix:/x']": Clamd(("unix:/x",)),
    "spamd: ['x:1']": Spamd(("x:1",)),
    "rspamd: ['unix:/x']": Rspamd(("unix:/x",)),
    "package: x": Package("x"),
}
"""The same of scanners."""


@pytest.mark.parametrize("key", [key for key in SETTINGS if has_default(key)])
def test_default(key: str) -> None:
    """To write down the default that the page tells changes nothing."""
    told = re.search(r"default\n\.Ql (.+?)(?: \.)?\n", entries()[key])
    assert told
    *groups, name = key.split(".")
    setting = f"{name}: {plain(told[1])}"
    usual = Config()
    if groups in (["users"], ["scanners"]):
        kinds = SOURCES if groups == ["users"] else SCANNERS
        source, usual = next(
            (source, Config(**{groups[0]: (made,)}))
            for source, made in kinds.items()
            if name in {field.name for field in fields(made)}
        )
        setting = f"- {setting}" if name == "system" else f"- {source}\n  {setting}"
    for group in reversed(groups):
        setting = f"{group}:\n" + indent(setting, "  ")
    assert loads(setting, "/etc/mdaflow/mdaflow.yaml") == usual


@pytest.mark.parametrize("key", ["grant", "deny"])
def test_powers(key: str) -> None:
    """The page has each word that may stand in the lists of what users may do."""
    text = entries()[f"rules.{key}"].splitlines()
    told = next(at for at, line in enumerate(text) if line.endswith("default"))
    assert words("Ql", text[:told]) == literals(key)


@pytest.mark.parametrize("text", examples(YAML))
def test_files_load(text: str) -> None:
    """An example of a file loads, and says something."""
    assert loads(text, "/etc/mdaflow/mdaflow.yaml") != Config()


# --- mdaflow(1) ------------------------------------------------------------------------------

COMMAND = "mdaflow.1"


def commands(group: click.Group = mdaflow, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def options(command: click.Command) -> set[str]:
    found = [p for p in command.params if isinstance(p, click.Option)]
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


OPTIONS = {path: options(command) for path, command in commands()}
GENERAL = {*mdaflow.context_settings["help_option_names"], *options(mdaflow)}
COMMON = GENERAL | {"--config"}


def flags(text: Iterable[str]) -> set[str]:
    return {f"-{word}" for word in words("Fl", text)}


def explained(text: Iterable[str]) -> set[str]:
    return flags(line for line in text if line.startswith(".It "))


def test_synopsis() -> None:
    """The synopsis has each command with its options."""
    uses = "\n".join(sections(lines(COMMAND), "Sh")["SYNOPSIS"]).split(".Nm\n")[1:]
    told: dict[str, set[str]] = {}
    for use in uses:
        text = use.splitlines()
        path = " ".join(word for macro, word in marked(text) if macro == "Ic")
        told.setdefault(path, set()).update(flags(text))  # a command may have several uses
    assert told == {**OPTIONS, "": GENERAL}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_a_command(name: str) -> None:
    """The section of a command explains its options, but for those that many have."""
    text = sections(lines(COMMAND), "Ss")[name]
    own = set().union(*(OPTIONS[path] for path in OPTIONS if path.split()[0] == name))
    assert explained(text) == own - COMMON


def test_common_options() -> None:
    """What many commands have is explained once."""
    assert explained(sections(lines(COMMAND), "Sh")["DESCRIPTION"]) == COMMON


@pytest.mark.parametrize("page", PAGES)
def test_named_options_exist(page: str) -> None:
    """No page names an option or a command that does not exist."""
    known = COMMON.union(*OPTIONS.values())
    text = "\n".join(plain(line) for line in lines(page) if not line.startswith('.\\"'))
    assert flags(lines(page)) | set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= known
    assert set(re.findall(r"^\.[QD]l \$? ?mdaflow (\w+)", text, re.MULTILINE)) <= set(COMMANDS)


def test_commands_are_marked() -> None:
    """What the page of the commands marks as a command is one."""
    known = {word for path in OPTIONS for word in path.split()}
    assert words("Ic", lines(COMMAND)) == known
