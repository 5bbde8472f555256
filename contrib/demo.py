"""A demonstration: a real server in a temporary folder, and mail for it over real LMTP.

It makes three users with rules, starts `mdaflow serve`, sends the messages of contrib/samples,
and shows from the server's log what became of each, and why. Every message is looked for on
the disk: the exit status is 0 only if all of them are where they should be. `contrib/dev demo`
runs this.

As root the server is told to become `nobody`; mdaflow does not deliver as root.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "contrib" / "samples"
MDAFLOW = Path(sys.executable).with_name("mdaflow")
PATIENCE = 35.0
"""Seconds for the server to begin, to answer, to end."""

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
ALICES, BOBS = "mail/example.org/alice", "mail/example.org/bob"
CAROLS = "mbox-mail/example.org/carol"
WRITTEN = ("mail", "mbox-mail", "run", "state")
"""The folders that the server writes to."""

CONFIG = """\
hostname: demo.example
user: {user}
users:
  - folders: {root}/mail
  - folders: {root}/mbox-mail
    mailbox: mbox:mail:INBOX=inbox
aliases: ["{root}/aliases"]
lmtp:
  listen: ["unix:{root}/run/lmtp.sock"]
rules:
  before: {root}/rules/before
  after: {root}/rules/after
  grant: [reject]
state: {root}/state
log:
  to: {root}/run/mdaflow.log
  format: json
"""

ALIASES = "# who else gets mail\nteam: alice, bob, frank@example.com\npostmaster: carol\n"
TEAM = "team@example.org"

RULES = {
    ALICES: (ROOT / "rules/demo.rules").read_text("utf-8"),
    BOBS: """\
rule "No newsletters" when header "Precedence" is "bulk" {
    reject "Bob reads no newsletters"
}
""",
    CAROLS: "# nothing yet: all goes to the inbox\n",
}


class Mail(NamedTuple):
    """A message to send; where each recipient shall find it: nowhere, if it is refused."""

    sample: str
    sender: str
    places: dict[str, tuple[str, ...]]

    @property
    def message_id(self) -> str:
        return str(message_from_bytes((SAMPLES / self.sample).read_bytes())["Message-ID"])


INBOX = f"{ALICES}/Maildir/new"
MAILS = (
    Mail("plain.eml", "dave@example.com", {ALICE: (INBOX,)}),
    Mail("urgent.eml", "ceo@example.org", {ALICE: (f"{ALICES}/Maildir/.Board/cur",)}),
    Mail("list.eml", "dev@lists.example.org", {ALICE: (f"{ALICES}/Maildir/.lists.dev/new",)}),
    Mail(
        "invoice.eml",
        "billing@mueller.example",
        {ALICE: (f"{ALICES}/Maildir/.Archive/new", f"{ALICES}/Maildir/.Invoices/new")},
    ),
    Mail("spam.eml", "winner@prizes.example", {ALICE: (f"{ALICES}/Maildir/.Junk/cur",)}),
    Mail("newsletter.eml", "news@shop.example", {ALICE: (INBOX,), BOB: ()}),
    Mail("letter.eml", "frank@example.com", {CAROL: (f"{CAROLS}/inbox",)}),
)


class Unexpected(Exception):
    """The server does not do what is to be shown."""


class Lmtp:
    """A client of LMTP (RFC 2033): after the dot comes one reply for each accepted recipient."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        self._reply()
        self._command("LHLO localhost")

    def send(self, mail: Mail) -> dict[str, str]:
        """The server's last reply for each recipient."""
        self._command(f"MAIL FROM:<{mail.sender}> BODY=8BITMIME")
        replies = {to: self._command(f"RCPT TO:<{to}>") for to in mail.places}
        accepted = [to for to, reply in replies.items() if reply.startswith("2")]
        if accepted:
            self._command("DATA")
            lines = (SAMPLES / mail.sample).read_bytes().splitlines()
            # a line that begins with a dot gets another one (RFC 5321 section 4.5.2)
            stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
            self._socket.sendall(b"\r\n".join([*stuffed, b".", b""]))
        return replies | {to: self._reply() for to in accepted}

    def close(self) -> None:
        """Say goodbye."""
        self._command("QUIT")
        self._lines.close()
        self._socket.close()

    def _command(self, line: str) -> str:
        self._socket.sendall(f"{line}\r\n".encode())
        return self._reply()

    def _reply(self) -> str:
        line = "-" * 4
        while line.startswith("-", 3):
            line = self._lines.readline().decode()
        if not line:
            raise ConnectionError("the server closed the connection")
        return line.rstrip()


# --- the server ---


def make_site(root: Path) -> list[str]:
    """Make users, rules and a configuration below `root`; the command that serves them."""
    root.chmod(0o755)
    for folder in (*WRITTEN, "rules/before", "rules/after"):
        (root / folder).mkdir(parents=True)
    for home, rules in RULES.items():
        own = root / home / ".mdaflow" / "rules"
        own.parent.mkdir(parents=True)
        own.write_text(rules, "utf-8")
    shutil.copyfile(ROOT / "rules/site.rules", root / "rules/before/10-site.rules")

    (root / "aliases").write_text(ALIASES, "utf-8")

    command = [os.fspath(MDAFLOW), "serve", "--config", os.fspath(root / "mdaflow.yaml")]
    user = '""'
    if os.geteuid() == 0:
        user = "nobody"
        give_away(root)
        if not runs_for_nobody():
            user, command = '""', [*as_nobody_who_reads(), *command]
    (root / "mdaflow.yaml").write_text(CONFIG.format(root=root, user=user), "utf-8")
    return command


def give_away(root: Path) -> None:
    """Make nobody's what the server writes to. The configuration stays root's, as it must."""
    nobody = pwd.getpwnam("nobody")
    for folder in WRITTEN:
        for path in (root / folder, *(root / folder).rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)


def runs_for_nobody() -> bool:
    """Whether `nobody` can read this installation; one below /root it cannot."""
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run(
            [MDAFLOW, "--version"],
            cwd="/",
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=(),
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def as_nobody_who_reads() -> list[str]:
    """What starts a command as `nobody` from the beginning, with the right to read any file."""
    nobody = pwd.getpwnam("nobody")
    reads = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    who = f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"
    return ["setpriv", *who, *reads, "--"]


@contextmanager
def serving(command: list[str], root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that was started, and is ended."""
    with (root / "errors").open("wb") as errors:  # a session of its own: Ctrl-C is for us
        server = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def connect(server: subprocess.Popen[bytes], path: Path) -> Lmtp:
    """A connection, as soon as the server listens. Raises Unexpected."""
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        try:
            return Lmtp(path)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.05)
    raise Unexpected("the server does not serve")


# --- what became of the messages ---


class Row(NamedTuple):
    """A line of the table; `right` if it is as it should be."""

    message: str
    recipient: str
    status: str
    rule: str
    place: str
    right: bool


Entry = dict[str, Any]


def logged(log: Path, mails: tuple[Mail, ...]) -> dict[tuple[str, str], Entry]:
    """The log's entry of each delivery, by Message-ID and recipient. Raises Unexpected."""
    wanted = {(mail.message_id, to) for mail in mails for to in mail.places}
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        whole_lines = log.read_text("utf-8").split("\n")[:-1]
        found = {(e["message-id"], e["to"]): e for e in map(json.loads, whole_lines) if "to" in e}
        if wanted <= found.keys():
            return found
        time.sleep(0.05)
    raise Unexpected("the log does not tell of every message")


def holds(place: Path, message_id: str) -> bool:
    """Whether a message is in an mbox file, or somewhere in a folder."""
    files = place.rglob("*") if place.is_dir() else [place]
    return any(file.is_file() and message_id.encode() in file.read_bytes() for file in files)


def rows(root: Path, mail: Mail, to: str, reply: str, entry: Entry) -> Iterator[Row]:
    """What became of a message for one recipient: a row for each place."""
    rule = f"{entry['rule']} ({entry['where']})" if entry.get("rule") else "none: the inbox"
    first = (mail.sample, to, entry["status"], rule)
    if not mail.places[to]:
        anywhere = any(holds(root / folder, mail.message_id) for folder in (BOBS, CAROLS))
        yield Row(*first, entry["reason"], reply.startswith("550 ") and not anywhere)
    for place in mail.places[to]:
        right = reply.startswith("250 ") and holds(root / place, mail.message_id)
        yield Row(*first, place, right)
        first = ("", "", "", "")


def demonstrate(client: Lmtp, root: Path) -> bool:
    """Send all messages and show what became of them; whether all is as it should be."""
    replies = {}
    for mail in MAILS:
        print(f"\n{mail.sample} from <{mail.sender}>")
        for to, reply in client.send(mail).items():
            print(f"    {reply}")
            replies[mail.sample, to] = reply
    log = logged(root / "run/mdaflow.log", MAILS)
    table = [
        row
        for mail in MAILS
        for to in mail.places
        for row in rows(root, mail, to, replies[mail.sample, to], log[mail.message_id, to])
    ]
    show(table)
    return all(row.right for row in table)


# --- what is shown ---


def coloured(text: str, code: int) -> str:
    """Text in a colour, where there are colours."""
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\033[{code}m{text}\033[0m"


def show(table: list[Row]) -> None:
    """Print the rows in columns."""
    heads = ("MESSAGE", "RECIPIENT", "STATUS", "RULE")
    widths = [max(map(len, column)) for column in zip(heads, *(r[:4] for r in table), strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))

    print("\n" + coloured(f"{line(heads)}  CHECK    STORED IN, OR WHY NOT", 1))
    for row in table:
        check = coloured("ok     ", 32) if row.right else coloured("MISSING", 31)
        print(f"{line(row[:4])}  {check}  {row.place}")


def show_route(root: Path) -> bool:
    """Print where the mail of an alias goes; whether somebody has it."""
    print(f"\nWho gets mail for {TEAM} (mdaflow route {TEAM}):\n", flush=True)
    command = MDAFLOW, "route", "--config", root / "mdaflow.yaml", TEAM
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    print(found.stdout + found.stderr, end="", flush=True)
    return found.returncode == 0


def look_around(root: Path, pid: int) -> str:
    """What to try while the server with this process id runs."""
    test = (MDAFLOW, "test", "--config", root / "mdaflow.yaml", "-r", ALICE, SAMPLES / "urgent.eml")
    why = shlex.join(map(str, test))
    route = shlex.join(map(str, (MDAFLOW, "route", "--config", root / "mdaflow.yaml", TEAM)))
    return f"""
Look around:
  mailboxes    {root}/mail, {root}/mbox-mail
  rules        {root}/{ALICES}/.mdaflow/rules (a change counts from the next message on)
               {root}/rules/before/10-site.rules (then: kill -HUP {pid})
  log          {root}/run/mdaflow.log
  why, again   {why}
  who gets it  {route}
  more mail    swaks --protocol LMTP --socket {root}/run/lmtp.sock --to {ALICE}

The server runs until Ctrl-C; then the folder is removed."""


def report_trouble(root: Path) -> None:
    """Print what the server had to say."""
    for path in (root / "errors", root / "run/mdaflow.log"):
        if path.exists() and (text := path.read_text("utf-8", "replace").strip()):
            print(f"--- {path.name}\n{text}", file=sys.stderr)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="A server, sample mail, and what became of it.")
    parser.add_argument("--once", action="store_true", help="end when all is shown")
    once = parser.parse_args().once
    os.umask(0o022)  # the server reads its configuration as somebody else
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))

    root = Path(tempfile.mkdtemp(prefix="mdaflow-demo-"))
    right = False
    try:
        with serving(make_site(root), root) as server:
            with closing(connect(server, root / "run/lmtp.sock")) as client:
                print(f"mdaflow serves {ALICE}, {BOB} and {CAROL} in {root}")
                right = demonstrate(client, root) and show_route(root)
            if not once:
                print(look_around(root, server.pid), flush=True)
                signal.pause()
    except KeyboardInterrupt:
        print()
    except (Unexpected, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
    finally:
        if not right:
            report_trouble(root)
        shutil.rmtree(root)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
