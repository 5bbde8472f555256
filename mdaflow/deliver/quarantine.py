"""Quarantine a message: a Maildir for each user, the envelope beside each message.

`quarantine/ADDRESS` is the Maildir, whatever detail the recipient's address had. A message in it
begins with `X-mdaflow-Quarantine: NAME`, which `trace.stored` takes out again on release;
`envelopes/NAME.json` in the same folder says who sent it to whom, and why it is here. It is on
the disk before the message can be seen. One without a message is the leftover of a crash, and
harmless.

Two users never share a folder (P49). The quarantine itself is never made: when it is
missing, its disk may not be mounted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress

from mdaflow.engine.plan import Action
from mdaflow.errors import INTERNAL, TempFail
from mdaflow.mail.trace import stored, trace_fields

from . import maildir
from .job import Job
from .mailbox import Mailbox, Prepared, open_directory, temporary_failures, write

FIELD = "X-mdaflow-Quarantine"
"""The header field that names a message's envelope."""
ENVELOPES = "envelopes"
"""The folder of the envelopes in a recipient's Maildir."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 200  # bytes of a file name; there is room for a suffix
_MOST_WHY = 1000  # characters
_MOST_LOGGED = 200  # of them
_UNSAFE = re.compile(rb"[^A-Za-z0-9@+=_.-]|\A\.")


def prepare(job: Job, action: Action) -> Prepared:
    """The message, not yet visible in its recipient's quarantine, and its envelope.

    Raises TempFail; then nothing is left behind.
    """
    root = job.means.quarantine
    if not root:
        raise TempFail(INTERNAL, "there is no quarantine: set `quarantine:` to a folder")
    with temporary_failures():
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise TempFail(INTERNAL, f"the quarantine {root} is no folder")
    name, whose = os.urandom(12).hex(), component(job.whose)
    trace = trace_fields(job.envelope, job.means.hostname, job.ident)
    chunks = stored(action.message or job.message, f"{FIELD}: {name}\n".encode() + trace)
    note = _Note(os.path.join(root, whose, ENVELOPES, f"{name}.json"))
    try:
        with temporary_failures():
            note.write(root, whose, _envelope(job, action))
        message = maildir.prepare(Mailbox("maildir", root, whose), "", chunks, ())
    except BaseException:
        note.remove()
        raise
    return _Quarantined(message, note, action.text)


def component(text: str) -> str:
    """Any text as one component of a path: never hidden, never the same for two texts.

    Other bytes than those of plain addresses are `%XX`; what gets too long is a hash.
    """
    raw = text.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], raw).decode() or "%"
    if len(name) <= _LONGEST:
        return name
    from hashlib import sha256  # a millisecond that hardly anybody needs

    return f"%-{sha256(raw).hexdigest()}"  # `-` is no digit: the name of no other text


def _envelope(job: Job, action: Action) -> bytes:
    e = job.envelope
    return json.dumps(
        {
            "sender": e.sender,
            "recipient": e.recipient,
            "original": e.original,
            "client": {"ip": e.client.ip, "name": e.client.name, "helo": e.client.helo},
            "received": e.received,
            "queue_id": e.queue_id,
            "why": action.text[:_MOST_WHY],
            "rule": action.rule,
            "where": str(action.span or ""),
        },
        indent=1,
    ).encode()


class _Note:
    """The file of an envelope."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, root: str, whose: str, content: bytes) -> None:
        """Write it and sync it, with the folders that are missing. Raises OSError."""
        here = open_directory(root, (whose, ENVELOPES))
        try:
            fd = os.open(os.path.basename(self._path), _NEW_FILE, 0o600, dir_fd=here)
            try:
                write(fd, [content])
                os.fsync(fd)
            finally:
                os.close(fd)
            os.fsync(here)
        finally:
            os.close(here)

    def remove(self) -> None:
        """Remove it, if it is there. Never raises."""
        with suppress(OSError):
            os.unlink(self._path)


class _Quarantined:
    """A message and its envelope."""

    def __init__(self, message: Prepared, note: _Note, why: str) -> None:
        self.where = f"quarantine: {why[:_MOST_LOGGED]}" if why else "quarantine"
        self._message = message
        self._note = note

    def commit(self) -> None:
        """Make the message visible. Raises TempFail."""
        try:
            self._message.commit()
        except BaseException:
            self._note.remove()
            raise

    def abort(self) -> None:
        """Take both back."""
        self._message.abort()
        self._note.remove()
