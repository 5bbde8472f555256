"""Tables of aliases, as we read them and as Postfix and Exim do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import alias_files
import alias_readers
import pytest
from accounts import need_accounts
from alias_files import FILES
from alias_readers import HERE, USERS, Exim, Local, Ways
from children import PATIENCE
from mdaflow_server import new_root
from need import need

from mdaflow.engine.plan import Action
from mdaflow.engine.run import Stage
from mdaflow.engine.run import run as run_rules
from mdaflow.errors import ConfigError
from mdaflow.lang import ir
from mdaflow.lang.forward import compile_forward
from mdaflow.lang.source import SourceError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.mail.targets import Target, parse_targets
from mdaflow.route.aliases import AliasTable, keys_of, logical_lines, parse_members, parse_table
from mdaflow.route.destination import Destination
from mdaflow.route.resolve import Router, Tables
from mdaflow.route.tables import Table
from mdaflow.route.tables import Tables as Files
from mdaflow.route.users import User

VIRTUAL = ("virt.example", "old.example", "reg.example")
POSTFIX, EXIM = "Postfix", "Exim"

DIFFERENT: dict[tuple[str, str, str], tuple[set[str], str]] = {
    (POSTFIX, "exim", "later"): ({"refused"}, "it is Exim's word"),
    (POSTFIX, "exim", "hole"): ({"refused"}, "it is Exim's word"),
    (POSTFIX, "exim", "both"): ({"refused", "user ann"}, "it is Exim's word"),
    (POSTFIX, "names", "a!b"): ({"refused"}, "it reads a path of UUCP"),
    (POSTFIX, "names", "loop"): ({"refused"}, "a mistake of the site bounces no mail of ours"),
    (POSTFIX, "names", "pool"): ({"refused"}, "a mistake of the site bounces no mail of ours"),
    (POSTFIX, "bom", "sales"): ({"refused"}, "we know the mark that editors write"),
    (POSTFIX, "includes", "empty"): (set(), "it drops the mail; we wait for members"),
    (POSTFIX, "includes", "missing"): ({"refused"}, "a file may come back"),
    (EXIM, "exim", "both"): ({"nothing"}, "it drops the mail of ann, too"),
    (EXIM, "vacation", "piped"): ({'program "/usr/bin/prog -x"'}, "it keeps the quotes"),
    (EXIM, "lines", "three"): ({"user ann"}, "a comment ends its line"),
    (EXIM, "names", "loop"): ({"refused"}, "a mistake of the site bounces no mail of ours"),
    (EXIM, "names", "pool"): ({"refused"}, "a mistake of the site bounces no mail of ours"),
    (EXIM, "eight-bit", "jörg"): ({"refused"}, "it folds the case of ASCII only"),
    (EXIM, "bom", "sales"): ({"refused"}, "we know the mark that editors write"),
    (EXIM, "includes", "empty"): ({"refused"}, "we wait for members"),
    (EXIM, "includes", "upper"): ({"deferred"}, "it knows the word in lower case only"),
}
"""Where others go another way: where they go, and why we do not."""


class Known:
    """The users."""

    def find(self, address: str) -> User | None:
        local, _, domain = address.lower().rpartition("@")
        name = local.partition("+")[0]
        known = name in USERS and domain == HERE
        return User(f"{name}@{HERE}", "/", "maildir:x") if known else None

    def has_domain(self, domain: str) -> bool:
        return domain == HERE

    def all(self) -> Iterator[User]:
        return iter(())


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A folder with the lists, and one for each of the others."""
    need_accounts()
    found = new_root()
    for name, text in alias_files.LISTS.items():
        (found / name).write_bytes(filled(text, found))
    for name in ("postfix", "exim"):
        (found / f"of-{name}").mkdir()
    yield found
    subprocess.run(["rm", "-r", found], check=True)


@pytest.fixture(scope="module")
def local(root: Path) -> Iterator[Local]:
    """A Postfix that runs."""
    folder = root / "of-postfix"
    (folder / "virtual").write_bytes(alias_files.VIRTUAL)
    (folder / "regexp").write_bytes(alias_files.REGEXP)
    found = Local(
        folder,
        virtual_alias_maps=f"texthash:{folder}/virtual, regexp:{folder}/regexp",
        virtual_alias_domains=", ".join(VIRTUAL),
    )
    found.server.start()
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def exim(root: Path) -> Exim:
    need("exim4")
    return Exim(root / "of-exim")


def filled(text: bytes, root: Path) -> bytes:
    return text.replace(b"{root}", bytes(root))


def asked(text: bytes) -> list[str]:
    """All names of a file, as they stand there."""
    names = []
    for _, line in logical_lines(text.decode().removeprefix("\ufeff")):
        names += parse_table("aliases", line.replace("\n", "\n ").encode(), "x").names
    return list(dict.fromkeys(names))


def ways(recipients: list[str], *tables: AliasTable) -> Ways:
    """Where we send mail."""
    members = Files(parse_members, shared=True).get
    router = Router(
        Tables((Known(),), [*map(Table.fixed, tables)], members),
        "mx.example.org",
        (*VIRTUAL, HERE),
    )
    return {address: set(map(_way, router.resolve(address))) for address in recipients}


def _way(found: Destination) -> str:
    if found.status is not None:
        return "deferred" if found.status.temporary else "refused"
    local, _, domain = found.name.rpartition("@")
    mine = found.kind in ("user", "address") and domain == HERE
    return f"user {local}" if mine else f"{found.kind} {found.name}".strip()


@pytest.mark.parametrize("other", [POSTFIX, EXIM])
@pytest.mark.parametrize("name", FILES)
def test_aliases(name: str, other: str, root: Path, request: pytest.FixtureRequest) -> None:
    """Names of a file of aliases lead where they lead elsewhere, but for what is on purpose."""
    reader: Local | Exim = request.getfixturevalue("local" if other == POSTFIX else "exim")
    text = filled(FILES[name], root)
    names = {f"{alias_readers.quoted(alias)}@{HERE}": alias for alias in asked(text)}
    ours = ways(list(names), parse_table("aliases", text, name))
    theirs = reader.ways(text, list(names))
    found = {(other, name, alias): theirs[address] for address, alias in names.items()
             if theirs[address] != ours[address]}  # fmt: skip
    assert found == {
        key: way for key, (way, why) in DIFFERENT.items() if key[:2] == (other, name) and why
    }


@pytest.mark.parametrize("text", alias_files.WRONG)
def test_wrong(text: bytes) -> None:
    """What nobody can have meant is an error with its line, and changes nothing."""
    with pytest.raises(ConfigError) as caught:
        parse_table("aliases", text, "/etc/aliases")
    assert str(caught.value).startswith(f"/etc/aliases:{alias_files.WRONG[text]}")


@pytest.mark.parametrize("kind", ["hash", "btree"])
@pytest.mark.parametrize("name", FILES)
def test_postalias(name: str, kind: str, root: Path, local: Local) -> None:
    """postalias(1) finds the same names in a file, and the same targets."""
    text = filled(FILES[name], root).removeprefix(b"\xef\xbb\xbf")
    file = root / f"{name}.{kind}"
    file.write_bytes(text)
    run("postalias", f"{kind}:{file}")
    said = run("postalias", "-s", f"{kind}:{file}")
    theirs = dict(line.split(":\t", 1) for line in said.splitlines())
    ours = {alias.name: alias.targets for alias in parse_table("aliases", text, name).all()}
    for special in ("@", "YP_LAST_MODIFIED", "YP_MASTER_NAME"):
        theirs.pop(special, None)
    assert {alias: written(parse_targets(value)) for alias, value in theirs.items()} == {
        alias: written(targets) for alias, targets in ours.items()
    }


def written(targets: Sequence[Target]) -> list[str]:
    """Targets in words; Postfix loses the mark of a plain user, whom it has no use for."""
    return [str(target).lstrip("\\") for target in targets]


def test_virtual(local: Local, root: Path) -> None:
    """A table of virtual(5) leads where cleanup(8) leads, and postmap(1) finds its names."""
    table = parse_table("virtual", alias_files.VIRTUAL, "virtual")
    found = ways([*alias_files.OF_VIRTUAL], table)
    assert local.ways(b"", alias_files.OF_VIRTUAL) == found
    for address in alias_files.OF_VIRTUAL:
        value = run("postmap", "-q", address, f"texthash:{root}/of-postfix/virtual")
        local_part, _, domain = address.rpartition("@")
        alias = table.find(keys_of(local_part, domain.lower(), "", ours=False), "")
        assert written(parse_targets(value)) == written(alias.targets if alias else ())


def test_regexp(local: Local, root: Path) -> None:
    """A table of regexp_table(5) leads there, too, and postmap(1) finds the same targets."""
    table = parse_table("regexp", alias_files.REGEXP, "regexp")
    found = ways([*alias_files.OF_REGEXP], table)
    assert local.ways(b"", alias_files.OF_REGEXP) == found
    for address in alias_files.OF_REGEXP:
        value = run("postmap", "-q", address, f"regexp:{root}/of-postfix/regexp")
        alias = table.find((), address)
        assert written(parse_targets(value)) == written(alias.targets if alias else ())


FORWARDED: dict[str, tuple[set[str], str]] = {
    "lines": (
        {"address eve@elsewhere.example", "user bob", "user #", "user and"},
        "it knows comments only at the beginning of a line",
    ),
    "bare": ({"program /usr/bin/prog", "refused"}, "a program without quotes ends at a blank"),
    "nothing else": ({"nothing", "user bob"}, "nothing is nothing"),
    "wrong": ({"user ann", "user smith"}, "a comma may be missing"),
}
"""Where the mail of a `.forward` goes elsewhere, and why not here."""


@pytest.mark.parametrize("name", alias_files.FORWARDS)
def test_forward(name: str, local: Local) -> None:
    """A `.forward` leads where local(8) leads, but for what is on purpose."""
    text = alias_files.FORWARDS[name]
    theirs = local.forwards(text)
    (local.home / ".forward").unlink()
    differs, why = FORWARDED.get(name, (set(), ""))
    assert theirs == (differs if why else forwards(text))


def forwards(text: bytes) -> set[str]:
    """Where we send mail."""
    ann = f"{USERS[0]}@{HERE}"
    try:
        program = compile_forward(text, "/home/ann/.forward", ir.POWERS, whose=ann)
    except SourceError:
        return {"an error"}
    plan = run_rules(Stage(program), Message(b"\n"), Envelope("eve@elsewhere.example", ann))
    return {_said(action) for action in plan.actions}


def _said(action: Action) -> str:
    return _SAID[action.verb](action)


def _stored(action: Action) -> str:
    form, _, path = action.folder.partition(":")
    return f"file {path}{'/' if form == 'maildir' else ''}" if path else f"user {USERS[0]}"


_SAID: dict[str, Callable[[Action], str]] = {
    "forward": lambda action: alias_readers.address(action.targets[0]),
    "pipe": lambda action: "program " + " ".join(action.targets).removeprefix("/bin/sh -c "),
    "deliver": _stored,
    "keep": _stored,
    "discard": lambda _: "nothing",
}


def run(program: str, *arguments: str) -> str:
    """The output of a program of Postfix."""
    done = subprocess.run((need(program), *arguments), capture_output=True, timeout=PATIENCE)
    return done.stdout.decode(errors="replace")
