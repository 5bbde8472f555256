"""`mdaflow serve` for accounts of a machine. They are in a passwd(5) file that only the server sees
(nss_wrapper), but their uids, homes and files are real; so it takes root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from children import PATIENCE, until
from mdaflow_server import Mdaflow, new_root

FIRST = 20_000
"""The uid of the first account; each has a group of its own with the same number."""
SHARED = 20_900
"""A group that every account is in besides."""
MAIL = 8
"""The group of a spool that only its members may write to."""

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")

SOURCE = """\
  - system: [{domain}]
    mailbox: {mailbox}
    min_uid: {first}
    max_uid: {last}
    quota: {quota}
"""


MORE = {
    "grant: [reject, defer]": "grant: [reject, defer, pipe, filter, command]",
    "lmtp:\n": "lmtp:\n  deadline: {deadline}\n",
}
"""What users may do besides, and seconds until a delivery is given up."""


class Account(NamedTuple):
    """An account with a home."""

    name: str
    uid: int
    home: Path

    @property
    def address(self) -> str:
        return f"{self.name}@example.org"

    def give(self, *paths: Path) -> None:
        """Make these the account's."""
        for path in paths:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def write(self, path: str, text: str, mode: int = 0o600) -> Path:
        """A file in the home, in folders that are the account's."""
        file = self.home / path
        missing = [folder for folder in file.parents if not folder.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        self.give(file, *missing)
        return file

    def write_rules(self, text: str, mode: int = 0o600) -> Path:
        """Replace the account's rules."""
        return self.write(".mdaflow/rules", text, mode)

    def files(self, folder: str = "") -> list[Path]:
        """The messages in a folder of the Maildir, as it is called on the disk."""
        maildir = self.home / "Maildir" / folder
        return [file for where in ("new", "cur") for file in sorted((maildir / where).glob("*"))]


class System(Mdaflow):
    """A server for accounts, with `mailbox` for each of them; by `domains` with other ones."""

    def __init__(
        self,
        root: Path,
        mailbox: str = "maildir:Maildir",
        workers: int = 2,
        more: str = "",
        deadline: float = 120,
        quota: str = "0",
        domains: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(root, root / "lmtp", workers, more)
        self.passwd, self.group = root / "passwd", root / "group"
        self.spool = root / "spool"
        (root / "home").mkdir()
        self.passwd.write_text(Path("/etc/passwd").read_text())
        self.group.write_text(Path("/etc/group").read_text() + f"shared:x:{SHARED}:\n")
        self._names: list[str] = []
        text = self.config.read_text()
        before, after = text.index("users:\n"), text.index("lmtp:\n")
        uids = {"first": FIRST, "last": FIRST + 999}
        sources = "".join(
            SOURCE.format(domain=domain, mailbox=spec.format(spool=self.spool), quota=quota, **uids)
            for domain, spec in {**domains, "": mailbox}.items()
        )
        text = f"{text[:before]}users:\n{sources}{text[after:]}"
        for old, new in MORE.items():
            text = text.replace(old, new.format(deadline=deadline))
        self.config.write_text(text)
        self.mdaflow: Sequence[str | Path] = self.program
        self.program = ("env", *self.environment, *self.program)

    @property
    def environment(self) -> tuple[str, ...]:
        """What lets a program see the accounts."""
        return (
            "LD_PRELOAD=libnss_wrapper.so",
            f"NSS_WRAPPER_PASSWD={self.passwd}",
            f"NSS_WRAPPER_GROUP={self.group}",
        )

    def account(self, name: str = "", rules: str = "", uid: int = 0) -> Account:
        """An account nobody has met before."""
        number = len(self._names)
        name = name or f"user{number}"
        self._names.append(name)
        account = Account(name, uid or FIRST + number, self.root / "home" / name)
        home = f"{account.uid}:{account.uid}::{account.home}:/bin/sh"
        with self.passwd.open("a") as passwd:
            passwd.write(f"{name}:x:{home}\n")
        lines = self.group.read_text().splitlines()
        lines[-1] = f"shared:x:{SHARED}:{','.join(self._names)}"
        lines[-1:-1] = [f"{name}:x:{account.uid}:"]
        self.group.write_text("\n".join(lines) + "\n")
        for file in (self.passwd, self.group):  # read again when it has another second
            os.utime(file, (number + 1, number + 1))
        account.home.mkdir(mode=0o700)
        account.give(account.home)
        if rules:
            account.write_rules(rules)
        return account

    def site_file(self, name: str, text: str) -> None:
        """Write a file of the site's rules, for the next start."""
        (self.root / "etc" / "before" / f"{name}.rules").write_text(text)

    def make_spool(self, mode: int, group: int) -> None:
        """The directory of inboxes, as /var/mail is."""
        self.spool.mkdir()
        os.chown(self.spool, 0, group)
        self.spool.chmod(mode)

    def call(
        self, *arguments: str | Path, by: Account | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """A command of the program, called by root or by an account."""
        home, become = "/root", dict[str, Any]()
        if by is not None:
            home, become = str(by.home), {"user": by.uid, "group": by.uid, "extra_groups": []}
        done = subprocess.run(
            [*self.program, *arguments],
            input=stdin, capture_output=True, timeout=PATIENCE, cwd="/", **become,
            env={"HOME": home, "PATH": os.environ["PATH"], "MDAFLOW_CONFIG": str(self.config)},
        )  # fmt: skip
        out, error = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in error, error
        return subprocess.CompletedProcess(done.args, done.returncode, out, error)

    # --- its processes ---------------------------------------------------------------------

    def stop(self) -> None:
        """End it; nothing of it may stay, also of what is in sessions of its own."""
        before = [] if self._child is None else everybody(self._child.pid)
        super().stop()
        until(lambda: not any(map(runs, before)), "the end of all that it was", lambda: before)

    @property
    def broker(self) -> int:
        """The process id of the broker."""
        return until(self.brokers, "a broker")[-1]

    def brokers(self) -> list[int]:
        """The process ids of the brokers: more than one while the server is reloaded."""
        return [pid for pid in super().workers() if _is_root(pid)]

    def workers(self) -> list[int]:
        return [pid for pid in super().workers() if not _is_root(pid)]

    def identities(self) -> list[int]:
        """The process ids of all that are accounts, or about to be."""
        return children(self.broker)

    def identity(self, account: Account) -> int:
        """The process id of the only one that delivers as this account."""
        return self._of(account, writer=False)

    def writer(self, account: Account) -> int:
        """The process id of the writer of its inbox in the spool, which has no further groups."""
        return self._of(account, writer=True)

    def _of(self, account: Account, *, writer: bool) -> int:
        found = {pid: status(pid) for pid in self.identities()}
        of_it = {pid: about for pid, about in found.items() if account.uid in about.get("Uid", ())}
        [pid] = [pid for pid, about in of_it.items() if (about["Groups"] == []) is writer]
        return pid

    def check_log(self) -> None:
        super().check_log()
        told = [message for message in self.messages() if "Traceback" in message]
        assert not told, "\n".join(told)


def children(pid: int) -> list[int]:
    """The process ids of the children of a process; none when it has ended."""
    with suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in found.split()]
    return []


def everybody(pid: int) -> list[tuple[int, str]]:
    """A process and all that have come of it, each with what tells it from a later one."""
    found = [(pid, _born(pid))]
    for child in children(pid):
        found += everybody(child)
    return found


def runs(process: tuple[int, str]) -> bool:
    """It has not ended."""
    pid, born = process
    return bool(born) and _born(pid) == born


def _born(pid: int) -> str:
    """When a process was born; empty when it has ended."""
    with suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return "" if state in "ZX" else rest[18]
    return ""


def status(pid: int) -> dict[str, list[int]]:
    """The ids, groups and capabilities of a process (proc_pid_status(5)); empty when it is gone."""
    with suppress(OSError):
        return status_of(Path(f"/proc/{pid}/status").read_text())
    return {}


def status_of(text: str) -> dict[str, list[int]]:
    """The same, of the text of such a file."""
    found = dict(line.split(":", 1) for line in text.splitlines())
    ids = {name: [int(word) for word in found[name].split()] for name in ("Uid", "Gid", "Groups")}
    return ids | {name: [int(found[name], 16)] for name in CAPABILITIES}


def _is_root(pid: int) -> bool:
    return 0 in status(pid).get("Uid", [])


@contextmanager
def system(
    mailbox: str = "maildir:Maildir", spool: tuple[int, int] | None = None, **options: Any
) -> Iterator[System]:
    """A server for accounts, not started yet; `spool` are mode and group of its directory, the
    options those of `System`."""
    need_accounts()
    root = new_root()
    server = System(root, mailbox, **options)
    try:
        if spool is not None:
            server.make_spool(*spool)
        yield server
        server.stop()
        server.check_log()
    finally:
        server.stop()
        shutil.rmtree(root)


def need_accounts() -> None:
    """Skip, for all to see, where there can be no accounts."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users")
    if not any(Path("/usr/lib").glob("*/libnss_wrapper.so")):
        reason = "needs libnss_wrapper (contrib/dev test installs it as root)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
