"""Servers of the benchmarks: mdaflow and Dovecot's LMTP server with Pigeonhole Sieve, side by side.

Both serve the same users with the same rules, into Maildirs, each over its own unix socket: as the
same system user, or with `accounts` as the user whose mail it is, each with a uid of its own (in a
file that only mdaflow takes for passwd(5), by nss_wrapper; Dovecot reads such a file itself).

Both sync the file and its directory before they answer. Dovecot does that with its default,
`mail_fsync = optimized`, which also syncs its list of UIDs; `always` only adds its indexes, which
it can make again.

Dovecot's settings are what its documentation advises for one system user: `service lmtp` runs
as that user, a process waits for each session, the scripts are compiled, and nobody else
touches the Maildirs (`maildir_very_dirty_syncs`). Pigeonhole's limits are lifted.

Needs root, because both servers start as root. Everything is made in a folder of the caller's.
Known limit: the clients run on the same cores as the servers, which draws the ratio of the
rates towards 1; the CPU time is of the servers alone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

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
}
"""What is run -> the Debian package it comes from."""

MDAFLOW_CONFIG = """\
hostname: mx.example.org
user: {owner}
users: {users}
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
lda_mailbox_autocreate = yes
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  {userdb}
}}
service lmtp {{
  user = {runs_as}
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
  sieve_max_script_size = 0
  sieve_max_actions = 0
  sieve_max_cpu_time = 0
}}
"""


class Failed(Exception):
    """The benchmark cannot go on; the text is for whoever runs it."""


class User(NamedTuple):
    """A recipient of example.org, with the same rules for either side."""

    name: str
    rules: str
    sieve: str


class Site(NamedTuple):
    """What both sides serve: users, at most so many sessions at once, Dovecot's mail_fsync."""

    users: Sequence[User]
    sessions: int
    fsync: str = "optimized"
    accounts: bool = False
    """Each user has a uid."""


class Side(NamedTuple):
    """A server that runs."""

    name: str
    process: subprocess.Popen[bytes]
    root: Path

    def maildir(self, user: str) -> Path:
        return home(self.root, user) / "Maildir"

    def stored(self, user: str, folder: str = "**") -> int:
        """The messages in a mailbox: in all of its folders, or in one."""
        found = (f for kind in ("new", "cur") for f in self.maildir(user).glob(f"{folder}/{kind}"))
        return sum(len(os.listdir(place)) for place in found)

    def cpu(self) -> float:
        """The CPU seconds of its processes, those that have ended included."""
        return sum(cpu(pid) for pid in family(self.process.pid))


# the servers


def home(root: Path, user: str) -> Path:
    return root / "mail/example.org" / user


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def give(*folders: Path, uid: int = pwd.getpwnam(OWNER).pw_uid) -> None:
    """Give folders and all that is in them to a user; without one, to whom delivers for all."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, uid)


def give_to_users(root: Path, site: Site) -> Path:
    """Give all mail to whose it is; a file of passwd(5) with the users that have a uid."""
    lines = Path("/etc/passwd").read_text()
    give(root / "mail")
    for uid, user in enumerate(site.users if site.accounts else (), 20_000):
        lines += f"{user.name}:x:{uid}:{uid}::{home(root, user.name)}:/bin/sh\n"
        give(home(root, user.name), uid=uid)
    return write(root / "passwd", lines)


def set_up_mdaflow(root: Path, site: Site) -> Sequence[str | Path]:
    """The command that serves, when all its files are there."""
    for user in site.users:
        write(home(root, user.name) / ".mdaflow/rules", user.rules)
    passwd = give_to_users(root, site)
    give(root / "state")
    users = "system" if site.accounts else f"[{{folders: {root}/mail}}]"
    text = MDAFLOW_CONFIG.format(root=root, owner=OWNER, users=users)
    config = write(root / "mdaflow.yaml", text)
    command = program("mdaflow"), "serve", "--config", config
    if not site.accounts:
        return command
    wrapper = ("LD_PRELOAD=libnss_wrapper.so", f"NSS_WRAPPER_PASSWD={passwd}")
    return "env", *wrapper, "NSS_WRAPPER_GROUP=/etc/group", *command


def set_up_dovecot(root: Path, site: Site) -> Sequence[str | Path]:
    """The command that serves, when all its files are there."""
    group, homes = pwd.getpwnam(OWNER).pw_gid, f"home={root}/mail/%d/%n"
    userdb = f"driver = static\n  args = uid={OWNER} gid={group} {homes} allow_all_users=yes"
    if site.accounts:
        userdb = f"driver = passwd-file\n  args = username_format=%n {root}/passwd"
    text = DOVECOT_CONFIG.format(
        root=root,
        owner=OWNER,
        group=group,
        sessions=site.sessions,
        fsync=site.fsync,
        userdb=userdb,
        runs_as="root" if site.accounts else OWNER,
    )
    config = write(root / "dovecot.conf", text)
    for user in site.users:
        script = write(home(root, user.name) / ".dovecot.sieve", user.sieve)
        subprocess.run(["sievec", "-c", config, script], check=True)
    give_to_users(root, site)
    return "dovecot", "-F", "-c", config


SIDES: dict[str, Callable[[Path, Site], Sequence[str | Path]]] = {
    "mdaflow": set_up_mdaflow,
    "dovecot": set_up_dovecot,
}


@contextmanager
def started(name: str, root: Path, site: Site) -> Iterator[Side]:
    """A server in a new folder, up to the end of the block."""
    root.mkdir(mode=0o755)
    command = SIDES[name](root, site)
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


def send(
    side: Side, users: Sequence[str], each: int, sessions: int, options: Sequence[str | Path]
) -> float:
    """Have `each` messages sent to every user, over so many sessions; the seconds it took.

    The options are those of smtp-source(1) that say what is sent.
    """
    command = ["smtp-source", "-L", "-d", "-s", str(sessions), "-m", str(each), *options]
    place = f"unix:{side.root / 'lmtp'}"
    clients: list[subprocess.Popen[bytes]] = []
    began = time.perf_counter()
    try:
        for user in users:
            clients.append(subprocess.Popen([*command, "-t", f"{user}@example.org", place]))
        codes = [client.wait() for client in clients]
    finally:
        for client in clients:
            client.kill()  # does nothing to one that has ended
            client.wait()
    took = time.perf_counter() - began
    if any(codes):
        raise Failed(f"{side.name} does not take all the mail\n{tails(side)}")
    return took


def check(side: Side, stored: int, sent: int) -> None:
    """Raise Failed unless every message is where it shall be."""
    if stored != sent:
        raise Failed(f"{side.name} has stored {stored} of {sent} messages\n{tails(side)}")


# what is there


def program(name: str) -> str:
    """Where a program is, empty when it is nowhere; mdaflow is the one of this interpreter."""
    beside = Path(sys.executable).parent / name
    return os.fspath(beside) if beside.exists() else shutil.which(name) or ""


def need(**more: str) -> None:
    """Raise Failed unless the servers can run here, and more programs (and their packages)."""
    missing = [f"{name} is missing: install {package}"
               for name, package in (PROGRAMS | more).items() if not program(name)]  # fmt: skip
    if os.geteuid() != 0:
        missing.append("run it as root: both servers are started as root")
    if missing:
        raise Failed("\n".join(missing))


def dovecot_version() -> str:
    found = subprocess.run(["dovecot", "--version"], capture_output=True, text=True)
    return found.stdout.partition(" ")[0]


def stop(*_: object) -> NoReturn:
    """A handler of SIGTERM that lets servers and folders be cleared away."""
    sys.exit(143)


def finished(measure: Callable[[], None]) -> int:
    """Do what a benchmark does; its exit code."""
    signal.signal(signal.SIGTERM, stop)
    try:
        measure()
    except Failed as error:
        print(error, file=sys.stderr)
        return EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    return 0
