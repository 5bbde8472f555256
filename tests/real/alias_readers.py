"""What Postfix and Exim make of tables of aliases: neither delivers anything.

Postfix is asked by `sendmail -bv`, a message for each name, and local(8) answers in the log. Exim
is asked by `exim -bt`; it is unpacked, not installed, and sees the user that Debian's package would
have made by nss_wrapper.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from children import PATIENCE
from need import need
from postfix import Postfix

FIRST, USERS = 20_000, ("ann", "bob", "carl")
HERE = "example.org"
"""The domain of names without one."""

Ways = dict[str, set[str]]
"""A name -> where mail for it goes, a few words each."""

_QUEUED = re.compile(r" ([0-9A-F]+): from=<([0-9]+)@asks\.example>")
_TOLD = re.compile(r" ([0-9A-F]+): to=<(.*?)>, .* status=(\w+) \((.*)\)$")
_PLAIN = re.compile(r"[\w.+=&/'!-]+")
_EXIM = """\
primary_hostname = mx.{here}
qualify_domain = {here}
domainlist local_domains = {here}
exim_user = nobody
exim_group = nogroup
spool_directory = {root}/spool
log_file_path = {root}/spool/log-%s
begin routers
aliases:
  driver = redirect
  domains = +local_domains
  data = ${{lookup{{$local_part}}lsearch{{{aliases}}}}}
  allow_fail
  allow_defer
  pipe_transport = nothing
  file_transport = nothing
  directory_transport = nothing
users:
  driver = accept
  domains = +local_domains
  local_part_suffix = +*
  local_part_suffix_optional
  local_parts = {users}
  transport = nothing
remote:
  driver = accept
  domains = !+local_domains
  transport = nothing
begin transports
nothing:
  driver = appendfile
  file = /dev/null
"""


class AccountsOfNobody:
    """The users as accounts for programs that only look them up; the first has a home."""

    def __init__(self, root: Path) -> None:
        passwd, group = root / "passwd", root / "group"
        names = (*USERS, "Debian-exim")
        self.home = root / "home"
        self.home.mkdir()
        homes = (self.home, *["/nonexistent"] * len(names))
        lines = (f"{name}:x:{FIRST + n}:{FIRST + n}::{home}:/bin/sh\n"
                 for n, (name, home) in enumerate(zip(names, homes, strict=False)))  # fmt: skip
        passwd.write_text(Path("/etc/passwd").read_text() + "".join(lines))
        group.write_text(Path("/etc/group").read_text() + "Debian-exim:x:20003:\n")
        self.environment = {
            "LD_PRELOAD": "libnss_wrapper.so",
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(group),
        }


def quoted(name: str) -> str:
    """A local part, as it stands in an address."""
    inner = name.replace("\\", r"\\").replace('"', r"\"")
    return name if _PLAIN.fullmatch(name) else f'"{inner}"'


class Local:
    """A Postfix whose local(8) knows one table of aliases after the other."""

    def __init__(self, root: Path, **settings: str) -> None:
        accounts = AccountsOfNobody(root)
        known, self.home = accounts.environment, accounts.home
        self._aliases = root / "aliases"
        (root / "postfix").mkdir()
        self._tables = 0
        self._tell(b"")
        self.server = Postfix(
            root / "postfix",
            "mailbox_transport",
            mydestination=HERE,
            local_recipient_maps="",
            mailbox_transport="",
            alias_maps=f"hash:{self._aliases}",
            expand_owner_alias="no",
            import_environment=" ".join(
                ("MAIL_CONFIG MAIL_LOGTAG LANG=C", *(f"{k}={v}" for k, v in known.items()))
            ),
            **settings,
        )
        self._asked: list[str] = []

    def _tell(self, table: bytes) -> None:
        self._aliases.write_bytes(table)
        command = (need("postalias"), f"hash:{self._aliases}")
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        self._tables += 1
        for path in (self._aliases, self._aliases.with_suffix(".db")):
            os.utime(path, (self._tables,) * 2)  # read again when it has another second

    def ways(self, table: bytes, addresses: Sequence[str]) -> Ways:
        """Where mail for addresses goes."""
        self._tell(table)
        first = len(self._asked)
        self._asked += addresses
        for number, address in enumerate(addresses, first):
            command = (need("sendmail"), "-C", self.server.root / "etc", "-bv")
            asker = f"{number}@asks.example"
            said = subprocess.run(
                [*command, "-f", asker, "--", address], capture_output=True, timeout=PATIENCE
            )
            assert not said.returncode, said.stderr
        self.server.settle()
        found: Ways = {address: set() for address in addresses}
        log = self.server.log.read_text(errors="replace")
        ids = {ident: int(number) for ident, number in _QUEUED.findall(log)}
        for line in log.splitlines():
            told = _TOLD.search(line)
            if told is not None and ids.get(told[1], -1) >= first:
                way = _of_postfix(*told.groups()[1:])
                found[self._asked[ids[told[1]]]].add(way)
        return found

    def forwards(self, text: bytes) -> set[str]:
        """Where the mail of the first user goes, with this `.forward`."""
        file = self.home / ".forward"
        file.write_bytes(text)
        for path in (file, self.home):
            os.chown(path, FIRST, FIRST)
        address = f"{USERS[0]}@{HERE}"
        return self.ways(b"", [address])[address]


class Exim:
    """An Exim that is only asked."""

    def __init__(self, root: Path) -> None:
        (root / "spool").mkdir()
        self._aliases, self._config = root / "aliases", root / "exim.conf"
        self._known = AccountsOfNobody(root).environment
        text = _EXIM.format(root=root, here=HERE, users=" : ".join(USERS), aliases=self._aliases)
        self._config.write_text(text)

    def ways(self, table: bytes, addresses: Sequence[str]) -> Ways:
        """Where mail for addresses goes."""
        self._aliases.write_bytes(table)
        return {address: set(self._of(address)) for address in addresses}

    def _of(self, address: str) -> Iterator[str]:
        command = (need("exim4"), "-C", self._config, "-bt", "--", address)
        said = subprocess.run(command, capture_output=True, env=self._known, timeout=PATIENCE)
        return filter(None, map(_of_exim, said.stdout.decode(errors="replace").splitlines()))


def _of_exim(line: str) -> str:
    if not line or line[0] in " \t":
        return ""
    found, arrow, where = line.partition(" -> ")
    if arrow:
        return f"program {where[1:].strip()}" if where[0] == "|" else _file(where)
    for words, way in (("is undeliverable", "refused"), ("cannot be resolved", "deferred"),
                       ("is discarded", "nothing")):  # fmt: skip
        if words in line:
            return way
    return address(found)


def _of_postfix(recipient: str, status: str, said: str) -> str:
    what, _, where = said.partition(": ")
    if what == "delivers to command":
        return f"program {where}"
    if what == "delivers to file":
        return _file(where)
    if said == "delivers to mailbox" or said.startswith("forwards to "):
        return address(recipient)
    if recipient.endswith("@elsewhere.example"):  # no mail leaves this machine
        return address(recipient)
    return "refused" if status == "undeliverable" else status


def _file(path: str) -> str:
    return "nothing" if path == "/dev/null" else f"file {path}"


def address(found: str) -> str:
    """The way to an address, in words."""
    local, _, domain = found.rpartition("@")
    return f"user {local}" if domain == HERE else f"address {found}"
