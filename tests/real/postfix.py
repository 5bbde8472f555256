"""A Postfix of its own, with its own configuration, queue and port; no mail leaves it.

Two ways lead from it to mdaflow: `mailbox_transport`, through local(8), and
`virtual_transport`, with an lmtp(8) in a chroot, as Debian has it. Needs root.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

from children import PATIENCE, Child, accepts, free_port, until
from mdaflow_server import MAILDIRS, MBOXES, stuffed
from need import need

DOMAINS = f"{MAILDIRS}, {MBOXES}"
NOT_IN_TABLE = f"unlisted@{MAILDIRS}"
"""An address that Postfix itself knows not to exist."""
REWRITTEN = "srs.example.org"
"""The domain of rewritten senders, which goes to mdaflow in every mode."""

MAIN = """\
compatibility_level = 3.6
config_directory = {root}/etc
queue_directory = {root}/queue
data_directory = {root}/data
multi_instance_name = postfix-mdaflow
syslog_name = postfix
maillog_file = {root}/mail.log
maillog_file_prefixes = {root}
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = mx.example.org
myorigin = example.org
disable_dns_lookups = yes
default_transport = error:5.1.2 no mail leaves this machine
relay_transport = error:5.1.2 no mail leaves this machine
relay_domains = {rewritten}
transport_maps = inline:{{ {{ {rewritten} = lmtp:unix:private/mdaflow-lmtp }} }}
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.1
recipient_delimiter = +
notify_classes =
in_flow_delay = 0
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
lmtp_send_xforward_command = yes
"""

MODES: dict[str, dict[str, str]] = {
    "mailbox_transport": {
        "mydestination": DOMAINS,
        "local_recipient_maps": "regexp:{root}/etc/users",
        "mailbox_transport": "lmtp:unix:{root}/queue/private/mdaflow-lmtp",
    },
    "virtual_transport": {
        "mydestination": "",
        "virtual_mailbox_domains": DOMAINS,
        "virtual_mailbox_maps": "regexp:{root}/etc/users",
        "virtual_transport": "lmtp:unix:private/mdaflow-lmtp",
    },
}

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup  unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
flush   unix n - n 1000? 0 flush
showq   unix n - n - - showq
error   unix - - n - - error
retry   unix - - n - - error
local   unix - n n - - local
lmtp    unix - - {chroot} - - lmtp
anvil   unix - - n - 1 anvil
proxymap unix - - n - - proxymap
scache  unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance below `root`, in one of the MODES, with more settings of main.cf."""

    def __init__(self, root: Path, mode: str, **more: str) -> None:
        self.root = root
        self.socket = root / "queue" / "private" / "mdaflow-lmtp"
        self.port = free_port()
        self.log = root / "mail.log"
        self._etc = root / "etc"
        self._child: Child | None = None
        for name in ("etc", "queue", "data"):
            (root / name).mkdir()
        os.chown(root / "data", pwd.getpwnam("postfix").pw_uid, -1)
        chosen = {"alias_maps": ""} | MODES[mode] | more
        settings = "".join(f"{name} = {value}\n" for name, value in chosen.items())
        text = (MAIN + settings).format(root=root, rewritten=REWRITTEN)
        (self._etc / "main.cf").write_text(text)
        chroot = "y" if mode == "virtual_transport" else "n"
        (self._etc / "master.cf").write_text(MASTER.format(port=self.port, chroot=chroot))
        (self._etc / "users").write_text(f"!/^{NOT_IN_TABLE}$/ ok\n")
        # It makes the queue's folders, where mdaflow shall listen.
        subprocess.run([need("postfix"), "-c", self._etc, "check"], check=True, timeout=PATIENCE)

    def start(self) -> None:
        """Start it, and wait until it takes mail."""
        daemons = _output(need("postconf"), "-c", self._etc, "-h", "daemon_directory")
        command = (Path(daemons.strip()) / "master", "-c", self._etc, "-s")
        self._child = Child(command, self.root / "postfix.out")
        self._child.wait_for(lambda: accepts(self.port), "Postfix serves")

    def stop(self) -> None:
        """End it and all its daemons."""
        if self._child is not None:
            child, self._child = self._child, None
            child.stop()

    def sendmail(self, raw: bytes, sender: str, *recipients: str, notify: str = "") -> None:
        """Hand over a message as programs of this machine do; `notify` is for DSN (-N)."""
        wish = ("-N", notify) if notify else ()
        command = (need("sendmail"), "-C", self._etc, "-oi", "-f", sender, *wish, "--")
        subprocess.run([*command, *recipients], input=raw, check=True, timeout=PATIENCE)

    def swaks(self, raw: bytes, sender: str, *recipients: str, more: tuple[str, ...] = ()) -> str:
        """Send a message with CRLF line ends by SMTP; the transcript."""
        command = [need("swaks"), "--server", f"127.0.0.1:{self.port}", "--data", "-", *more]
        to = ("--from", sender, "--to", ",".join(recipients), "--no-data-fixup")
        sent = subprocess.run(
            [*command, *to], input=stuffed(raw), capture_output=True, timeout=PATIENCE
        )
        return sent.stdout.decode(errors="replace")

    def logged(self, *words: str) -> list[str]:
        """The lines of its log that have all these words; waits for the first."""

        def found() -> list[str]:
            lines = self.log.read_text().splitlines()
            return [line for line in lines if all(word in line for word in words)]

        return until(found, f"{words} in the log of Postfix")

    def flush(self) -> None:
        """Let it try everything in the queue now."""
        _output(need("postqueue"), "-c", self._etc, "-f")

    def settle(self) -> None:
        """Wait until there is nothing to deliver any more."""

        def empty() -> bool:
            if not self.queue():
                return True
            # By itself it lets a message rest for a minute whose last delivery agent was slow
            # to end ("skipped, still being delivered").
            time.sleep(0.5)
            self.flush()
            return False

        until(empty, "an empty queue", self.queue)

    def queue(self, recipient: str = "") -> list[dict[str, Any]]:
        """The messages in the queue; those to a recipient, if one is given."""
        lines = _output(need("postqueue"), "-c", self._etc, "-j").splitlines()
        return [json.loads(line) for line in lines if f'"address": "{recipient}' in line]


def _output(*command: str | Path) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout
