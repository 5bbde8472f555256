"""Deliveries one at a time, each in a process of its own under strace, at the same start.

`Scene` is a way to deliver: to whom, and by which rules. `Stage` has a scene on the disk: it
can be set back to how it was, a message can be delivered there with a fault in any system call,
and what is there afterwards is compared with what was sent.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import mailboxes
from fake_mta import FakeMTA
from letters import numbered
from mdaflow_server import MAILDIRS, MBOXES, Mdaflow, User, new_root
from need import need

NAMES = (
    *("write", "writev", "pwrite64", "pwritev2", "copy_file_range", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mknodat"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "truncate", "ftruncate", "fallocate"),
    *("fchmod", "fchmodat", "fchown", "fchownat", "utimensat", "fsetxattr", "connect", "sendto"),
    *("sendmsg", "open", "openat", "openat2"),
)
"""System calls that change something that others can see, or may do so."""
INBOX = {MAILDIRS: "Maildir", MBOXES: "mail/inbox"}
COPY = {MAILDIRS: "Maildir/.Copy", MBOXES: "mail/Copy"}
OLD = 1000.0
"""Seconds after which every lock of somebody who died is a leftover."""

_CALL = re.compile(r"\d+ +(\w+)\((.*)")


class Call(NamedTuple):
    """The `number`th call of a name in a process, the first is 1."""

    name: str
    number: int
    text: str

    @property
    def changes(self) -> bool:
        """It changes something."""
        return not self.name.startswith("open") or "O_CREAT" in self.text


class Scene(NamedTuple):
    """A way to deliver."""

    domains: tuple[str, ...] = (MAILDIRS,)
    """Of the recipients: where their mail goes."""
    rules: str = ""
    existing: bool = True
    """The folders are there, with a message in them."""
    copy: bool = False
    """The rules make a copy, in a folder of this name."""
    forward: bool = False
    """The rules send the message on."""
    length: int = 300
    options: str = ""
    """Of the mailboxes."""
    quota: str = ""


ALSO = 'also deliver to "Copy"\nalso forward to "c@next.example"\n'
COPIED = 'also deliver to "Copy"\n'
KEYWORDS = 'deliver to "INBOX" with flags ["\\\\Seen", "invoice"]\n'
MARKED = 'deliver to "INBOX" with flags ["\\\\Seen", "invoice"] expire 30 days\n'

SCENES = {
    "maildir, new": Scene(existing=False),
    "maildir": Scene(),
    "mbox, new": Scene((MBOXES,), existing=False),
    "mbox": Scene((MBOXES,)),
    "mbox, two writes": Scene((MBOXES,), length=1_100_000),
    "two recipients": Scene((MAILDIRS, MBOXES)),
    "maildir, also and forward": Scene(rules=ALSO, copy=True, forward=True),
    "mbox, also and forward": Scene((MBOXES,), ALSO, copy=True, forward=True),
    "flags and expiry, new": Scene(rules=MARKED, existing=False),
    "flags and expiry": Scene(rules=MARKED),
    "mbox, keywords, new": Scene((MBOXES,), KEYWORDS, existing=False),
    "mbox, keywords": Scene((MBOXES,), KEYWORDS),
    "quota, new": Scene(quota="1M", existing=False),
    "quota": Scene(rules=COPIED, copy=True, quota="1M"),
    "subscriptions, new": Scene(
        (MAILDIRS, MBOXES), COPIED, existing=False, copy=True, options=":SUBSCRIBE"
    ),
}


class Outcome(NamedTuple):
    """What became of a delivery."""

    replies: dict[str, str]
    """Of those recipients that had one."""
    code: int
    calls: list[Call]
    injected: int
    """How many calls had a fault."""

    def taken(self, recipient: str) -> bool:
        """The message is in our care."""
        return self.replies.get(recipient, "").startswith("250 ")


class Stage:
    """A scene below `root`."""

    def __init__(self, scene: Scene, root: Path, mta: FakeMTA, seed: int) -> None:
        self.scene, self._mta = scene, mta
        size = scene.length
        self._raw = [numbered(number, seed, "bob@example.org", size, size) for number in (0, 1)]
        """The message that was there before, and the one that is delivered."""
        more = f"next_hop: {mta.hop}\n"
        options, quota = scene.options, scene.quota
        self._server = Mdaflow(root, root / "lmtp", more=more, options=options, quota=quota)
        self._root, self._kept = root, root / "kept"
        self.users = [self._server.user(scene.rules, domain=domain) for domain in scene.domains]
        self._sent_before = 0
        for number, raw in enumerate(self._raw):
            (root / f"{number}").write_bytes(raw)
        self._deliverer = self._start()

    def _start(self) -> subprocess.Popen[str]:
        user = "nobody" if os.geteuid() == 0 else None
        script = Path(__file__).with_name("warm.py")
        with (self._root / "said").open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-B", script, self._server.config],
                cwd="/",
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                user=user,
                group="nogroup" if user else None,
                extra_groups=[] if user else None,
                start_new_session=True,
            )

    def close(self) -> None:
        """End the process."""
        self._deliverer.communicate(timeout=60)

    # --- the state on the disk -------------------------------------------------------------

    def prepare(self) -> None:
        """Make what the scene begins with, and keep it."""
        bare = Path(f"{self._kept}.bare")
        self._copy(self._root, bare)
        self._ask("warm", 0, [user.address for user in self.users])
        self._answer()
        if not self.scene.existing:
            self._copy(bare, self._root)
        self._copy(self._root, self._kept)

    def restore(self) -> None:
        """Set everything back to how it was."""
        self._copy(self._kept, self._root)
        self._sent_before = len(self._mta.taken)

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        names = ("state", MAILDIRS, MBOXES)
        for name in names:
            shutil.rmtree(target / name, ignore_errors=True)
        subprocess.run(["cp", "-a", *(source / name for name in names), target], check=True)

    def age(self) -> None:
        """Let some time go by for what is lying about."""
        for user in self.users:
            for path in mailboxes.leftovers(user.home):
                before = path.lstat().st_mtime - OLD
                os.utime(path, (before, before))

    # --- deliveries ------------------------------------------------------------------------

    def deliver(self, recipients: Collection[str], inject: str | None = None) -> Outcome:
        """Deliver the message, under strace if `inject` says what to inject (or, empty, that
        nothing is)."""
        self._ask("fork", 1, recipients)
        pid = self._line().removeprefix("pid ")
        if inject is None:
            self._go()
            return Outcome(*self._answer(), [], 0)
        with self._traced(pid, inject) as output:
            self._go()
            replies, code = self._answer()
        trace = output.read_text()
        return Outcome(replies, code, calls(trace), trace.count("(INJECTED)"))

    @contextmanager
    def _traced(self, pid: str, inject: str) -> Iterator[Path]:
        output = self._root / "trace"
        names = ",".join(f"?{name}" for name in NAMES)  # not every machine has all of them
        command = [need("strace"), "-f", "-y", "-o", str(output), "-e", f"trace={names}"]
        command += [*(["-e", f"inject={inject}"] if inject else []), "-p", pid]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()  # it is written once the process has been stopped
            assert "attached" in said, said
            yield output

    def _ask(self, what: str, number: int, recipients: Collection[str]) -> None:
        self._tell(" ".join((what, str(self._root / f"{number}"), *recipients)))

    def _go(self) -> None:
        self._tell("go")

    def _tell(self, line: str) -> None:
        assert self._deliverer.stdin is not None
        self._deliverer.stdin.write(f"{line}\n")
        self._deliverer.stdin.flush()

    def _line(self) -> str:
        output: IO[str] | None = self._deliverer.stdout
        assert output is not None
        line = output.readline()
        assert line, (self._root / "said").read_text()
        return line.rstrip("\n")

    def _answer(self) -> tuple[dict[str, str], int]:
        replies = {}
        while not (line := self._line()).startswith("end "):
            _, recipient, status = line.split(" ", 2)
            replies[recipient] = status
        return replies, int(line.removeprefix("end "))

    # --- what is there afterwards ----------------------------------------------------------

    def copies(self, user: User) -> list[int]:
        """How often the message is there, for each place in which it has to be."""
        return [self._look(user, place)[1] for place in self._places(user)]

    def wrong(self, *, torn: bool = False) -> list[str]:
        """What must not be: messages that nobody sent, or are not whole, and the loss of what
        was there before. `torn`: an mbox may have one piece of the message."""
        found = []
        for user in self.users:
            for place in self._places(user):
                copies = self._look(user, place)
                allowed = int(torn and place in (INBOX[MBOXES], COPY[MBOXES]))
                if copies[None] > allowed:
                    found.append(f"{place}: something that nobody sent")
                if copies[0] != int(self.scene.existing):
                    found.append(f"{place}: the older message is there {copies[0]} times")
        return found

    @property
    def sent_on(self) -> int:
        """How often the next hop has taken the message since all was set back."""
        return len(self._mta.taken) - self._sent_before

    @property
    def leftovers(self) -> list[Path]:
        """What should not lie about after a delivery."""
        return [path for user in self.users for path in mailboxes.leftovers(user.home)]

    def _places(self, user: User) -> Sequence[str]:
        domain = user.address.partition("@")[2]
        return (INBOX[domain], COPY[domain]) if self.scene.copy else (INBOX[domain],)

    def _look(self, user: User, place: str) -> Counter[int | None]:
        path = user.home / place
        if place.startswith("mail/"):
            mails = mailboxes.mbox(path) if path.exists() else []
        else:
            mails = mailboxes.maildir(path)
        return Counter(self._which(mail.raw) if mail.named else None for mail in mails)

    def _which(self, content: bytes) -> int | None:
        """The number of a message, None for what is not one of them, or not all of it."""
        body = content[content.find(b"X-Number: ") :]
        sent = [raw.replace(b"\r\n", b"\n") for raw in self._raw]
        return sent.index(body) if body in sent else None


@contextmanager
def staged(scene: Scene, seed: int) -> Iterator[Stage]:
    """A scene on the disk, set up; at the end everything is removed."""
    root = new_root()
    try:
        with FakeMTA() as mta:
            stage = Stage(scene, root, mta, seed)
            try:
                stage.prepare()
                yield stage
            finally:
                stage.close()
    finally:
        shutil.rmtree(root)


def calls(trace: str) -> list[Call]:
    """The calls in the output of strace, in order."""
    seen: Counter[str] = Counter()
    found = []
    for match in map(_CALL.match, trace.splitlines()):
        if match:
            seen[match[1]] += 1
            found.append(Call(match[1], seen[match[1]], match[2]))
    return found
