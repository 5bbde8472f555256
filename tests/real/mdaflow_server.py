"""`mdaflow serve` in a folder of its own, with users, rules, its log, and a client for it.

Started as root it becomes `nobody`, who owns the mailboxes; the configuration stays root's.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from children import PATIENCE, Child, until

MAILDIRS, MBOXES = "example.org", "example.net"
"""The domains whose users have a Maildir, and whose users have mbox files. Each is a source of
users of its own, so their folders are `ROOT/DOMAIN/DOMAIN/USER`."""

MDAFLOW = Path(sys.executable).with_name("mdaflow")
NOBODY = pwd.getpwnam("nobody")

CONFIG = """\
hostname: store.example
user: {user}
users:
  - folders: {root}/{maildirs}
    mailbox: maildir:Maildir{options}
    quota: "{quota}"
  - folders: {root}/{mboxes}
    mailbox: mbox:mail{options}
lmtp:
  listen: ["unix:{socket}"]
  mode: "0666"
  workers: {workers}
rules:
  before: {root}/etc/before
  after: {root}/etc/after
  grant: [reject, defer]
state: {root}/state
log:
  to: {root}/mdaflow.log
  format: json
{more}"""

Entry = dict[str, Any]


class User(NamedTuple):
    """A user with a folder."""

    address: str
    home: Path

    @property
    def maildir(self) -> Path:
        return self.home / "Maildir"

    @property
    def mbox(self) -> Path:
        return self.home / "mail"

    def files(self, folder: str = "") -> list[Path]:
        """The messages in a folder of the Maildir, as it is called on the disk."""
        return [
            file
            for where in ("new", "cur")
            for file in sorted((self.maildir / folder / where).glob("*"))
        ]

    def write_rules(self, text: str) -> None:
        """Replace the user's rules, as an editor does."""
        path = self.home / ".mdaflow" / "rules"
        path.parent.mkdir(exist_ok=True)
        give_away(path.parent)
        fresh = path.with_name("rules~")
        fresh.write_text(text)
        give_away(fresh)
        fresh.rename(path)


def give_away(path: Path) -> None:
    """Make it nobody's, if it is ours to give."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)


@contextmanager
def nobody() -> Iterator[None]:
    """Deliver as the owner of the mailboxes, so that Dovecot can replace what we made."""
    os.setegid(NOBODY.pw_gid)
    os.seteuid(NOBODY.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def new_root() -> Path:
    """A folder that every user can enter, unlike those of pytest."""
    root = Path(tempfile.mkdtemp(prefix="mdaflow-"))
    root.chmod(0o755)
    return root


class Mdaflow:
    """A server below `root`, listening on `socket`, with `more` lines of configuration, `options`
    of all mailboxes, and a `quota` of the Maildirs."""

    def __init__(
        self,
        root: Path,
        socket: Path,
        workers: int = 2,
        more: str = "",
        *,
        options: str = "",
        quota: str = "",
    ) -> None:
        self.root = root
        self.socket = socket
        self.log = root / "mdaflow.log"
        self.config = root / "etc" / "mdaflow.yaml"
        self.program: Sequence[str | Path] = (MDAFLOW,)
        self._child: Child | None = None
        self._killed = False
        self._users = 0
        for folder in ("etc/before", "etc/after"):
            (root / folder).mkdir(parents=True)
        for name in (MAILDIRS, MBOXES):
            (root / name / name).mkdir(parents=True)
        (root / "state").mkdir()
        give_away(root / "state")
        self.log.touch()
        give_away(self.log)
        self.config.write_text(
            CONFIG.format(
                user="nobody" if os.geteuid() == 0 else '""',
                root=root,
                maildirs=MAILDIRS,
                mboxes=MBOXES,
                socket=socket,
                workers=workers,
                more=more,
                options=options,
                quota=quota,
            )
        )

    # --- the process -----------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it serves."""
        before = self._said("serving on ")
        command = (*self.program, "serve", "--config", self.config)
        self._child = Child(command, self.root / "mdaflow.out")
        self._child.wait_for(lambda: self._said("serving on ") > before, "mdaflow serves")

    def stop(self) -> None:
        """End it by SIGTERM, in good order."""
        if self._child is not None:
            child, self._child = self._child, None
            assert child.stop() == 0, child.said.read_text()

    def kill(self) -> None:
        """Kill master and workers, all at once."""
        assert self._child is not None
        child, self._child = self._child, None
        self._killed = True
        os.killpg(child.pid, signal.SIGKILL)
        assert child.stop() == -signal.SIGKILL

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Stop master and workers where they are, and let them go on at the end."""
        assert self._child is not None
        os.killpg(self._child.pid, signal.SIGSTOP)
        try:
            until(self._child.is_halted, "all threads are stopped")
            yield
        finally:
            os.killpg(self._child.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove everything."""
        try:
            self.stop()
            self.check_log()
        finally:
            shutil.rmtree(self.root)

    def reload(self) -> None:
        """Let it read its configuration and the site's rules again."""
        before = self._said("configuration reloaded")
        self.send(signal.SIGHUP)
        until(lambda: self._said("configuration reloaded") > before, "the new configuration")

    def send(self, number: int) -> None:
        """Send a signal to the master."""
        assert self._child is not None
        self._child.signal(number)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        assert self._child is not None
        pid = self._child.pid
        return [int(w) for w in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def processes(self) -> list[int]:
        """The process ids of master and workers."""
        assert self._child is not None
        return [self._child.pid, *self.workers()]

    # --- users and rules -------------------------------------------------------------------

    def user(self, rules: str = "", *, domain: str = MAILDIRS, name: str = "") -> User:
        """A user nobody has met before."""
        self._users += 1
        name = name or f"user{self._users}"
        user = User(f"{name}@{domain}", self.root / domain / domain / name)
        user.home.mkdir()
        give_away(user.home)
        if rules:
            user.write_rules(rules)
        return user

    def site_rules(self, name: str, text: str | None) -> None:
        """Write or remove a file of the site's rules, and have it read."""
        path = self.root / "etc" / "before" / f"{name}.rules"
        path.unlink() if text is None else path.write_text(text)
        self.reload()

    # --- the log ---------------------------------------------------------------------------

    def entries(self, *recipients: str) -> list[Entry]:
        """The entries of deliveries to these recipients, as they came."""
        return [entry for entry in self._log() if entry.get("to") in recipients]

    def outcomes(self, recipient: str) -> list[str]:
        """What became of the messages to a recipient, in the words of the log."""
        return [entry["status"] for entry in self.entries(recipient)]

    def wait(self, recipient: str, outcome: str = "delivered", count: int = 1) -> Entry:
        """Wait for so many deliveries with an outcome; the entry of the last."""

        def came() -> bool:
            self.check_log()
            return self.outcomes(recipient).count(outcome) >= count

        until(came, f"{count} x {outcome} for {recipient}", lambda: self.entries(recipient)[-5:])
        return [e for e in self.entries(recipient) if e["status"] == outcome][-1]

    def messages(self) -> list[str]:
        """Everything else in the log."""
        return [entry["message"] for entry in self._log() if "message" in entry]

    def check_log(self) -> None:
        """The test fails when an exception was logged that nobody expected."""
        tracebacks = [entry["traceback"] for entry in self._log() if "traceback" in entry]
        assert not tracebacks, "\n".join(tracebacks)

    def _said(self, beginning: str) -> int:
        return sum(message.startswith(beginning) for message in self.messages())

    def _log(self) -> Iterable[Entry]:
        """The lines of the log. A kill may cut one off, and the next is then behind it."""
        for line in self.log.read_text().split("\n")[:-1]:
            try:
                yield json.loads(line)
            except ValueError:
                assert self._killed, line

    # --- other ways in ---------------------------------------------------------------------

    def deliver(self, user: User, raw: bytes) -> int:
        """`mdaflow deliver` with a message on standard input; its exit code."""
        command = (MDAFLOW, "deliver", "--config", self.config, "-f", "a@example.com")
        return subprocess.run(
            [*command, "-d", user.address], input=raw, cwd="/", timeout=PATIENCE
        ).returncode


class Lmtp:
    """A client of RFC 2033 that sends what it is told to, byte for byte."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(os.fspath(path))
            self._lines = self._socket.makefile("rb")
            assert self.reply().startswith("220 ")
            assert self.say("LHLO client.example").startswith("250 ")
        except BaseException:  # the server may be gone
            self._socket.close()
            raise

    def __enter__(self) -> Lmtp:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, AssertionError):  # gone already
            self.say("QUIT")
        self._lines.close()
        self._socket.close()

    def hang_up(self) -> None:
        """Go away without a word."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def say(self, command: str) -> str:
        """The last line of the reply to a command."""
        return self.say_bytes(f"{command}\r\n".encode())

    def say_bytes(self, said: bytes) -> str:
        """The same, of bytes with their end."""
        self._socket.sendall(said)
        return self.reply()

    def deliver(self, recipient: str, content: bytes) -> str:
        """The reply to a message whose lines end in CRLF, the last one too unless it is empty."""
        assert self.say("MAIL FROM:<a@example.com>").startswith("250 ")
        assert self.say(f"RCPT TO:<{recipient}>").startswith("250 ")
        assert self.say("DATA").startswith("354 ")
        self._socket.sendall(stuffed(content))
        return self.reply()

    def reply(self) -> str:
        """The last line of the next reply."""
        line = "250-"
        while line[3:4] == "-":
            line = self._lines.readline().decode()
        return line.removesuffix("\r\n")


def stuffed(content: bytes) -> bytes:
    """A message as it follows DATA (RFC 5321 section 4.5.2)."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
