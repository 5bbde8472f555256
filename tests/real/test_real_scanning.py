"""Mail from a real Postfix, looked at by clamd: once, also where Postfix hands a message over once
for each recipient, many at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from accounts import Account, System, system
from children import until
from clamd_server import EICAR, VIRUS, ClamdServer
from fake_clamd import OK, Connection, FakeClamd
from letters import note
from mdaflow_server import Mdaflow, give_away, new_root
from mdaflow_server import User as Virtual
from postfix import Postfix

SENDER = "a@example.com"
SCANNERS = """\
scanners:
  - clamd: ["{address}"]
quarantine: {root}/quarantine
virus:
  tag: true
"""
MANY = 12
"""Recipients of one message, whom local(8) hands over two or more at a time."""


class Whole:
    """Postfix with mailbox_transport, and mdaflow with a clamd: for accounts, or for folders."""

    def __init__(self, stack: ExitStack, address: str, kind: str) -> None:
        self.root = new_root() if kind == "folders" else Path()
        self.mdaflow: Mdaflow
        if kind == "folders":
            (self.root / "postfix").mkdir()
            self.postfix = Postfix(self.root / "postfix", "mailbox_transport")
            more = SCANNERS.format(address=address, root=self.root)
            self.mdaflow = Mdaflow(self.root, self.postfix.socket, more=more)
            stack.callback(self.mdaflow.close)
        else:
            more = SCANNERS.format(address=address, root="{root}")
            found = stack.enter_context(system(more=more))
            self.mdaflow, self.root = found, found.root
            text = found.config.read_text().replace("{root}", str(self.root))
            found.config.write_text(text)
            (self.root / "postfix").mkdir()
            self.postfix = Postfix(
                self.root / "postfix",
                "mailbox_transport",
                mydestination="example.org",
                local_recipient_maps="",
                mailbox_transport=f"lmtp:unix:{found.socket}",
            )
        self.quarantine = self.root / "quarantine"
        self.quarantine.mkdir()
        give_away(self.quarantine)
        stack.callback(self.postfix.stop)

    def start(self) -> None:
        self.mdaflow.start()
        self.postfix.start()

    def user(self) -> Virtual | Account:
        if isinstance(self.mdaflow, System):
            return self.mdaflow.account()
        return self.mdaflow.user()

    def caught(self) -> list[str]:
        """Whose mail is in the quarantine."""
        return sorted(path.parent.parent.name for path in self.quarantine.glob("*/new/*"))


@contextmanager
def whole(address: str, kind: str) -> Iterator[Whole]:
    """It ends, and its files are removed."""
    with ExitStack() as stack:
        yield Whole(stack, address, kind)


KINDS = pytest.mark.parametrize("kind", ["folders", "accounts"])


@KINDS
def test_once(kind: str) -> None:
    """For many recipients, each in a transaction of its own, clamd is asked once; the next message
    is another one."""

    def slowly(connection: Connection) -> None:
        connection.take()
        time.sleep(0.5)  # so that others come while it is at it
        connection.line.sendall(OK)

    root = new_root()
    with FakeClamd(root / "clamd", slowly) as clamd, whole(clamd.address, kind) as here:
        (root / "clamd").chmod(0o666)
        users = [here.user() for _ in range(MANY)]
        here.start()
        for number in (1, 2):
            here.postfix.sendmail(note(str(number)), SENDER, *(user.address for user in users))
            until(
                lambda n=number: all(len(user.files()) == n for user in users),  # type: ignore[misc]
                "everybody has it",
                here.mdaflow.log.read_text,
            )
            assert len(clamd.connections) == number
        for user in users:
            assert all(b"\nX-Virus-Status: Clean\n" in f.read_bytes() for f in user.files())
    (root / "clamd").unlink()
    root.rmdir()


@KINDS
def test_virus(kind: str) -> None:
    """What a real clamd knows goes to the quarantine, and nothing else; nobody gets a bounce."""
    with ClamdServer() as clamd, whole(clamd.address, kind) as here:
        bob = here.user()
        here.start()
        here.postfix.sendmail(note("x") + EICAR + b"\n", SENDER, bob.address)
        here.postfix.sendmail(note("y"), SENDER, bob.address)
        until(lambda: bob.files() and here.caught(), "both", here.mdaflow.log.read_text)
        assert here.caught() == [bob.address]
        assert len(bob.files()) == 1
        statuses = here.mdaflow.outcomes(bob.address)
        assert sorted(statuses) == ["delivered", "quarantined"]
        [entry] = [e for e in here.mdaflow.entries(bob.address) if e["rule"] == "virus"]
        assert entry["where"].startswith("mdaflow.yaml:")
        notes = list(here.quarantine.glob("*/envelopes/*.json"))
        assert [VIRUS in path.read_text() for path in notes] == [True]


@KINDS
def test_clamd_is_away(kind: str) -> None:
    """While clamd is stopped mail waits in Postfix's queue; when it is back, it comes."""
    with ClamdServer() as clamd, whole(clamd.address, kind) as here:
        bob = here.user()
        here.start()
        clamd.stop()
        here.postfix.sendmail(note("x"), SENDER, bob.address)
        until(
            lambda: "deferred" in here.mdaflow.outcomes(bob.address),
            "it is put off",
            here.mdaflow.log.read_text,
        )
        assert not bob.files()
        clamd.start()
        until(
            lambda: "delivered" in here.mdaflow.outcomes(bob.address),
            "it is here",
            here.mdaflow.log.read_text,
        )
        assert len(bob.files()) == 1
