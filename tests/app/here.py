"""A mail system in a folder: a site with its SQLite store, and the user bob."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fake_mta import closed_hop

from mdaflow.app import pipeline
from mdaflow.app.build import Site, open_site
from mdaflow.app.config import Config, Folders, Log, Rules
from mdaflow.app.log import set_up
from mdaflow.deliver.mailbox import Mailbox, locate
from mdaflow.errors import Status
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.redis import RedisStore
from mdaflow.store.shared import Shared
from mdaflow.store.sqlite import SqliteStore

ANN, BOB = "ann@example.com", "bob@example.org"
HEADER = f"From: Ann <{ANN}>\nTo: {BOB}\nSubject: hello\nMessage-ID: <1@x>\n"
RAW = f"{HEADER}\nbody\n".encode()


class Here:
    """A mail system in a folder, with the user bob."""

    def __init__(self, root: Path, format: str = "maildir") -> None:
        self.root = root
        self.format = format
        self.home = root / "mail/example.org/bob"
        self.home.mkdir(parents=True)
        (root / "quarantine").mkdir()
        self.hop = closed_hop()
        self.rules = {"before": "", "user": "", "after": ""}
        self.quota = self.quota_messages = 0
        self.over_quota: Literal["defer", "reject"] = "defer"
        self.quota_warning = 90
        self.store = ""
        self.grant: tuple[str, ...] = ()
        self.deny: tuple[str, ...] = ()
        self.more: dict[str, Any] = {}
        """What else the configuration says."""
        self._log = Log(to=f"{root}/log", format="json")
        set_up(self._log)
        self._site: Site | None = None

    def set(self, user: str = "", before: str = "", after: str = "") -> None:
        """Other rules; for those of the site it is opened again."""
        for stage, text in (("before", before), ("after", after)):
            (self.root / stage).mkdir(exist_ok=True)
            (self.root / stage / "1.rules").write_text(text)
            (self.root / stage / "1.rules").chmod(0o644)
        path = self.home / ".mdaflow/rules"
        path.parent.mkdir(exist_ok=True)
        new = path.with_name("new~")  # as an editor does it
        new.write_text(user)
        new.chmod(0o600)
        new.replace(path)
        self.close()

    @property
    def site(self) -> Site:
        """The site as it is set."""
        if self._site is None:
            self._site = self.open()
        return self._site

    def open(self) -> Site:
        """One more site of this kind, as another process has one."""
        root = self.root
        rules = Rules(
            before=f"{root}/before",
            after=f"{root}/after",
            grant=self.grant,  # type: ignore[arg-type]
            deny=self.deny,  # type: ignore[arg-type]
        )
        spec = "maildir:Maildir" if self.format == "maildir" else "mbox:mail"
        return open_site(
            Config(
                hostname="mx.example.org",
                users=(Folders(f"{root}/mail", spec, self.quota, self.quota_messages),),
                over_quota=self.over_quota,
                quota_warning=self.quota_warning,
                rules=rules,
                state=f"{root}/state",
                store=self.store,
                quarantine=f"{root}/quarantine",
                next_hop=self.hop,
                log=self._log,
                **self.more,
            )
        )

    def close(self) -> None:
        """Forget the site; the next use opens it anew."""
        if self._site is not None:
            close(self._site)
        self._site = None

    def send(
        self, raw: bytes = RAW, sender: str = ANN, to: str = BOB, fence: bool = True
    ) -> Status:
        """Deliver a message."""
        return pipeline.deliver_message(
            self.site, Message(raw), Envelope(sender, to, received=1.8e9), lambda: fence
        )

    @property
    def log(self) -> list[dict[str, Any]]:
        """All entries of the log."""
        return [json.loads(line) for line in (self.root / "log").read_text().splitlines()]

    @property
    def entry(self) -> dict[str, Any]:
        """The last line about a delivery."""
        return [entry for entry in self.log if "dsn" in entry][-1]

    @property
    def said(self) -> list[str]:
        """All else in the log."""
        return [entry["message"] for entry in self.log if "message" in entry]

    @property
    def folders(self) -> dict[str, int]:
        """The messages in each folder of bob; a notice of ours is in `notices`."""
        found: dict[str, int] = {}
        for folder in self._names():
            for raw in self.mails(folder):
                name = "notices" if b"(mail rules)" in raw else folder or "INBOX"
                found[name] = found.get(name, 0) + 1
        return found

    def mails(self, folder: str = "") -> list[bytes]:
        """The messages of a folder, as they are stored."""
        mailbox = Mailbox(self.format, str(self.home), self._mailbox)
        place = Path(self.home, *locate(mailbox, folder))
        if self.format == "maildir":
            return sorted(f.read_bytes() for sub in ("new", "cur") for f in place.glob(f"{sub}/*"))
        raw = place.read_bytes() if place.exists() else b""
        return [part for part in re.split(rb"^From .*\n", raw, flags=re.M) if part]

    @property
    def _mailbox(self) -> str:
        return "Maildir" if self.format == "maildir" else "mail"

    def _names(self) -> Iterator[str]:
        base = self.home / self._mailbox
        if self.format == "maildir":
            yield ""
            yield from (p.name[1:].replace(".", "/") for p in base.glob(".[!.]*") if p.is_dir())
        else:
            yield ""
            yield from (
                str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()
                and p.name not in ("inbox", ".lock")
            )  # fmt: skip

    def leftovers(self) -> list[str]:
        """What no delivery may leave: temporary files, locks."""
        return [
            str(path) for path in self.home.rglob("*")
            if path.name.endswith(".lock") or (path.parent.name == "tmp" and path.is_file())
        ]  # fmt: skip


def close_log() -> None:
    """Forget the log of the process."""
    log = logging.getLogger("mdaflow")
    for handler in log.handlers:
        handler.close()
    log.handlers[:] = []
    log.propagate = True


def close(site: Site) -> None:
    """Close the store of a site."""
    store = site.answers.store
    for one in (store._far, store._near) if isinstance(store, Shared) else (store,):
        assert isinstance(one, SqliteStore | RedisStore)
        one.close()
