"""Throughput: mdaflow against Dovecot's LMTP server with Pigeonhole Sieve, on one machine.

Both take the same messages by the same rules for the same users, into Maildirs, as the same
system user, each over its own unix socket. Rounds alternate, and the ratio is the median of the
pairwise ratios, so that other work on the machine falls on both. Before each round the
mailboxes are removed and made again by a first message of every session, which is not timed;
after it the messages in them are counted.

Both sync the file and its directory before they answer. Dovecot does that with its default,
`mail_fsync = optimized`, which also syncs its list of UIDs; `always` only adds its indexes,
which it can make again. The count of system calls shows it.

Dovecot's settings are what its documentation advises for one system user: `service lmtp` runs
as that user, a process waits for each session, the scripts are compiled, and nobody else
touches the Maildirs (`maildir_very_dirty_syncs`).

Needs root, because both servers start as root. Everything is made in a new folder, which is
removed at the end. Known limit: the clients run on the same cores as the servers, which draws
the ratio of the rates towards 1; the CPU time is of the servers alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple, NoReturn

USERS, SESSIONS, LENGTH = 8, 2, 4096
LARGE, LARGE_LENGTH = 20, 10 << 20
COUNTED = 160
"""Messages of the round in which system calls are counted."""
SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "msync")
PATIENCE = 60.0
"""Seconds for a server to begin, and to end."""
OWNER = "nobody"
EX_UNAVAILABLE = 69

os.environ["PATH"] += ":/usr/sbin:/sbin"
PROGRAMS = {
    "mdaflow": "mdaflow (pip install -e .)",
    "dovecot": "dovecot-core",
    "/usr/lib/dovecot/lmtp": "dovecot-lmtpd",
    "sievec": "dovecot-sieve",
    "smtp-source": "postfix",
    "strace": "strace",
}
"""What is run -> the Debian package it comes from."""

# Six rules, none of which takes the message: both sides look at all of them, and keep it.
SUBJECT, SENDER = "Notes for Monday", "dave@example.com"
RULES = r"""
list board = ["ceo@example.org", "cfo@example.org", "chair@board.example.org"]

rule "Board" when from in board { deliver to "Board" }
rule "Lists" when header "List-Id" contains "lists.example.org" { deliver to "Lists" }
rule "Spam" when header "X-Spam-Flag" is "yes" { deliver to "Junk" }
rule "Large" when size > 20M { deliver to "Large" }
rule "Invoices" when subject contains ["invoice", "rechnung"] { deliver to "Invoices" }
rule "Tickets" when subject matches /\[ticket #[0-9]+\]/ { deliver to "Tickets" }
"""
SIEVE = r"""
require ["fileinto", "regex"];

if address :is "from" ["ceo@example.org", "cfo@example.org", "chair@board.example.org"]
    { fileinto "Board"; stop; }
if header :contains "list-id" "lists.example.org" { fileinto "Lists"; stop; }
if header :is "x-spam-flag" "yes" { fileinto "Junk"; stop; }
if size :over 20M { fileinto "Large"; stop; }
if header :contains "subject" ["invoice", "rechnung"] { fileinto "Invoices"; stop; }
if header :regex "subject" "\\[ticket #[0-9]+\\]" { fileinto "Tickets"; stop; }
"""

MDAFLOW_CONFIG = """\
hostname: mx.example.org
user: {owner}
users: [{{folders: {root}/mail}}]
lmtp: {{listen: ["unix:{root}/lmtp"], mode: "0666"}}
rules: {{before: {root}/before, after: {root}/after}}
state: {root}/state
log: {{to: {root}/log}}
"""
DOVECOT_CONFIG = """\
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
hostname = mx.example.org
postmaster_address = postmaster@example.org
protocols = lmtp
ssl = no
mail_uid = {owner}
mail_gid = {group}
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_fsync = {fsync}
maildir_very_dirty_syncs = yes
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={owner} gid={group} home={root}/mail/%d/%n allow_all_users=yes
}}
service lmtp {{
  user = {owner}
  client_limit = 1
  process_min_avail = {sessions}
  unix_listener {root}/lmtp {{
    mode = 0666
  }}
}}
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
"""


class Failed(Exception):
    """The benchmark cannot go on; the text is for whoever runs it."""


class Round(NamedTuple):
    """What was measured: messages or megabytes a second, and the server's CPU ms for a message."""

    rate: float
    cpu: float


class Side(NamedTuple):
    """A server that runs."""

    name: str
    process: subprocess.Popen[bytes]
    root: Path

    def maildirs(self) -> list[Path]:
        return [home / "Maildir" for home in homes(self.root)]

    def stored(self) -> int:
        """The messages in all mailboxes."""
        found = (f for m in self.maildirs() for kind in ("new", "cur") for f in m.rglob(kind))
        return sum(len(os.listdir(folder)) for folder in found)

    def cpu(self) -> float:
        """The CPU seconds of its processes, those that have ended included."""
        return sum(cpu(pid) for pid in family(self.process.pid))


# the servers


def homes(root: Path) -> list[Path]:
    return [root / "mail/example.org" / f"user{n}" for n in range(1, USERS + 1)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def give(*folders: Path) -> None:
    """Give folders and all that is in them to the system user that delivers."""
    owner = pwd.getpwnam(OWNER)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)


def set_up_mdaflow(root: Path, fsync: str) -> Sequence[str | Path]:
    """The command that serves, when all its files are there."""
    for home in homes(root):
        write(home / ".mdaflow/rules", RULES)
    give(root / "mail", root / "state")
    config = write(root / "mdaflow.yaml", MDAFLOW_CONFIG.format(root=root, owner=OWNER))
    return program("mdaflow"), "serve", "--config", config


def set_up_dovecot(root: Path, fsync: str) -> Sequence[str | Path]:
    """The command that serves, when all its files are there."""
    group, sessions = str(pwd.getpwnam(OWNER).pw_gid), str(USERS * SESSIONS)
    text = DOVECOT_CONFIG.format(
        root=root, owner=OWNER, group=group, sessions=sessions, fsync=fsync
    )
    config = write(root / "dovecot.conf", text)
    for home in homes(root):
        script = write(home / ".dovecot.sieve", SIEVE)
        subprocess.run(["sievec", "-c", config, script], check=True)
    give(root / "mail")
    return "dovecot", "-F", "-c", config


SIDES: dict[str, Callable[[Path, str], Sequence[str | Path]]] = {
    "mdaflow": set_up_mdaflow,
    "dovecot": set_up_dovecot,
}


@contextmanager
def started(name: str, root: Path, fsync: str) -> Iterator[Side]:
    """A server in a new folder, up to the end of the block."""
    root.mkdir(mode=0o755)
    command = SIDES[name](root, fsync)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with open(root / "output", "wb") as output:
        process = subprocess.Popen(
            command, env=kept, stdout=output, stderr=output, start_new_session=True
        )
    side = Side(name, process, root)
    try:
        wait_for(side)
        yield side
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{name} does not end\n{tails(side)}") from None
        finally:
            with suppress(ProcessLookupError):  # whoever is left of its own process group
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(side: Side) -> None:
    """Wait until a server greets."""
    until = time.monotonic() + PATIENCE
    while side.process.poll() is None and time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(os.fspath(side.root / "lmtp")) == 0 and client.recv(1):
                return
        time.sleep(0.1)
    raise Failed(f"{side.name} does not serve\n{tails(side)}")


def tails(side: Side) -> str:
    """The end of what a server said."""
    said = [side.root / "output", side.root / "log"]
    return "\n".join(p.read_text("utf-8", "replace")[-2000:] for p in said if p.exists())


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended (proc(5), fields 14 to 17)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# the load


def send(side: Side, each: int, length: int, users: int = USERS, sessions: int = SESSIONS) -> float:
    """Have `each` messages sent to every user; the seconds it took."""
    command = ["smtp-source", "-L", "-d", "-s", str(sessions), "-m", str(each), "-l", str(length)]
    command += ["-S", SUBJECT, "-f", SENDER]
    place = f"unix:{side.root / 'lmtp'}"
    clients: list[subprocess.Popen[bytes]] = []
    began = time.perf_counter()
    try:
        for n in range(1, users + 1):
            clients.append(subprocess.Popen([*command, "-t", f"user{n}@example.org", place]))
        codes = [client.wait() for client in clients]
    finally:
        for client in clients:
            client.kill()  # does nothing to one that has ended
            client.wait()
    took = time.perf_counter() - began
    if any(codes):
        raise Failed(f"{side.name} does not take all the mail\n{tails(side)}")
    return took


def empty(side: Side) -> None:
    """New mailboxes, with a message of each session, and no work left over for the disk."""
    for maildir in side.maildirs():
        shutil.rmtree(maildir, ignore_errors=True)
    send(side, SESSIONS, LENGTH)
    os.sync()


def check(side: Side, sent: int) -> None:
    """Raise Failed unless every message is in a mailbox."""
    stored, sent = side.stored(), sent + USERS * SESSIONS
    if stored != sent:
        raise Failed(f"{side.name} has stored {stored} of {sent} messages\n{tails(side)}")


def small(side: Side, messages: int) -> Round:
    """A round of small messages, in messages per second."""
    empty(side)
    each, before = messages // USERS, side.cpu()
    took = send(side, each, LENGTH)
    spent = side.cpu() - before
    check(side, each * USERS)
    return Round(each * USERS / took, 1000 * spent / (each * USERS))


def large(side: Side) -> Round:
    """A round of large messages in one session, in megabytes per second."""
    empty(side)
    before = side.cpu()
    took = send(side, LARGE, LARGE_LENGTH, users=1, sessions=1)
    spent = side.cpu() - before
    check(side, LARGE)
    return Round(LARGE * LARGE_LENGTH / 1e6 / took, 1000 * spent / LARGE)


def count_syncs(side: Side) -> dict[str, float]:
    """How often each system call is made for a message."""
    empty(side)
    table = side.root / "syncs"
    pids = [word for pid in family(side.process.pid) for word in ("-p", str(pid))]
    trace = ",".join(SYNCS)
    strace = subprocess.Popen(
        ["strace", "-f", "-c", "-e", f"trace={trace}", "-o", table, *pids], stderr=subprocess.PIPE
    )
    try:
        assert strace.stderr is not None
        for _ in range(0, len(pids), 2):  # it says once for each process that it is attached
            if b"attached" not in strace.stderr.readline():
                raise Failed("strace cannot attach to the servers")
        send(side, COUNTED // USERS, LENGTH)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate()
    check(side, COUNTED)
    rows = [line.split() for line in table.read_text().splitlines()]
    return {row[-1]: int(row[3]) / COUNTED for row in rows if row and row[-1] in SYNCS}


# what is shown


def compare(
    what: str, sides: Sequence[Side], rounds: int, measure: Callable[[Side], Round]
) -> None:
    """Alternate the rounds, and print them."""
    names = " ".join(f"{side.name:>9}" for side in sides)
    print(f"\n  {what:>12} {names}   ratio   CPU ms for a message", flush=True)
    rows: list[list[Round]] = []
    for number in range(1, rounds + 1):
        rows.append([measure(side) for side in sides])
        print_row(f"round {number}", rows[-1], rows[-1][0].rate / rows[-1][1].rate)
    medians = [Round(*map(median, zip(*column, strict=True))) for column in zip(*rows, strict=True)]
    print_row("median", medians, median(ours.rate / theirs.rate for ours, theirs in rows))


def print_row(name: str, found: Sequence[Round], ratio: float) -> None:
    rates = " ".join(f"{one.rate:9.1f}" for one in found)
    spent = " ".join(f"{one.cpu:9.2f}" for one in found)
    print(f"  {name:>12} {rates} {ratio:7.2f} {spent}", flush=True)


def print_syncs(sides: Sequence[Side]) -> None:
    print("\n  sync calls for a message")
    for side in sides:
        counts = count_syncs(side)
        said = ", ".join(f"{name} {count:.2f}" for name, count in counts.items()) or "none"
        print(f"  {side.name:>12} {said}", flush=True)


def bench(label: str, folder: str, rounds: int, messages: int, fsync: str) -> None:
    """All measurements with everything in one folder."""
    print(f"\nMail on {label}: {folder} ({file_system(folder)})", flush=True)
    with ExitStack() as stack:
        new = tempfile.TemporaryDirectory(prefix="mdaflow-bench-", dir=folder)
        root = Path(stack.enter_context(new))
        root.chmod(0o755)
        sides = [stack.enter_context(started(name, root / name, fsync)) for name in SIDES]
        compare("messages/s", sides, rounds, lambda side: small(side, messages))
        compare("10 MB: MB/s", sides, rounds, large)
        print_syncs(sides)


def file_system(folder: str) -> str:
    found = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True)
    if found.returncode:
        raise Failed(found.stderr.strip())
    return found.stdout.split()[-1]


def program(name: str) -> str:
    """Where a program is, empty when it is nowhere; mdaflow is the one of this interpreter."""
    beside = Path(sys.executable).parent / name
    return os.fspath(beside) if beside.exists() else shutil.which(name) or ""


def need_everything() -> None:
    """Raise Failed unless the benchmark can run here."""
    missing = [f"{name} is missing: install {package}" for name, package in PROGRAMS.items()
               if not program(name)]  # fmt: skip
    if os.geteuid() != 0:
        missing.append("run it as root: both servers are started as root")
    if missing:
        raise Failed("\n".join(missing))


def stop(*_: object) -> NoReturn:
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(description="mdaflow against Dovecot: LMTP throughput")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    parser.add_argument("--messages", type=int, default=2000, help="of a round (default 2000)")
    parser.add_argument("--disk", default="/var/tmp", metavar="DIR",
                        help="a folder on a disk; empty for none")  # fmt: skip
    parser.add_argument("--tmpfs", default="/dev/shm", metavar="DIR",
                        help="a folder in memory; empty for none")  # fmt: skip
    parser.add_argument("--fsync", default="optimized", choices=("optimized", "always"),
                        help="Dovecot's mail_fsync (default optimized)")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.messages < USERS * SESSIONS:
        parser.error(f"at least 1 round and {USERS * SESSIONS} messages")
    signal.signal(signal.SIGTERM, stop)
    try:
        need_everything()
        version = subprocess.run(["dovecot", "--version"], capture_output=True, text=True).stdout
        print(
            f"mdaflow on Python {platform.python_version()} against Dovecot {version.split()[0]}, "
            f"mail_fsync = {arguments.fsync}\n"
            f"{os.cpu_count()} cores, {USERS} users with {SESSIONS} sessions each, "
            f"{arguments.messages} messages of {LENGTH} bytes a round"
        )
        for label, folder in (("disk", arguments.disk), ("tmpfs", arguments.tmpfs)):
            if folder:
                bench(label, folder, arguments.rounds, arguments.messages, arguments.fsync)
    except Failed as error:
        print(error, file=sys.stderr)
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
