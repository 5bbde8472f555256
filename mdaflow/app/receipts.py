"""Telling senders that their mail was delivered, when they asked for it (NOTIFY=SUCCESS).

What a site has done with a message is not told: discarded and quarantined mail is delivered
(RFC 3461 section 5.2.3). Of what could not be delivered our MTA tells, which still has it. There
is one receipt for each message and recipient, and none about mail that is itself a report.

The result of a delivery waits for nothing here: receipts are sent by a thread of their own, one
after the other, each within ten seconds. What cannot be sent is a warning in the log.

Known limits: a receipt is tried once, and those that wait are lost with the process. A message
that is delivered twice brings two. Who forges a sender has the receipt sent to him: an MTA that
faces the world should not offer DSN there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mdaflow.engine.plan import one_line
from mdaflow.errors import MailError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

if TYPE_CHECKING:
    from mdaflow.deliver.execute import Done
    from mdaflow.deliver.job import Means
    from mdaflow.mail.receipt import Relay

    from .build import Site

LIMIT = 5.0
"""Seconds for the envelope of a receipt, and once more for its data."""
MAX_WAITING = 200
"""Receipts that wait to be sent; more are not sent."""

log = logging.getLogger("mdaflow")


def confirm(site: Site, message: Message, envelope: Envelope, done: Done, ident: str) -> None:
    """Tell the sender what became of a message, if that was asked. Never raises, nor waits."""
    if not ("SUCCESS" in envelope.notify and envelope.sender and done.status.ok):
        return
    try:
        action = _action(done)
        if action:
            _tell(site, message, envelope, action, ident, done.relay)
    except Exception as error:  # a bug, too, must not bring back what is stored already
        _warn(ident, envelope, error)


def confirm_expanded(site: Site, message: Message, envelope: Envelope, ident: str) -> None:
    """Tell the sender that all who an alias stands for have a message, if that was asked.

    Never raises, nor waits.
    """
    if not ("SUCCESS" in envelope.notify and envelope.sender):
        return
    try:
        _tell(site, message, envelope, "expanded", ident)
    except Exception as error:
        _warn(ident, envelope, error)


def finish(seconds: float) -> None:
    """Wait until all receipts are sent, or the time is over."""
    lost = _outbox.wait(seconds)
    if lost:
        log.warning("%d receipts were not sent", lost)


def _action(done: Done) -> str:
    """What we have to report (RFC 3461 section 5.2); empty when the next hop does."""
    if done.outcome != "forwarded":
        return "delivered"
    if done.relay is None or not done.relay.dsn:
        return "relayed"  # section 5.2.2
    return "expanded" if len(done.relay.targets) > 1 else ""  # 5.2.7.3, 5.2.1


def _tell(
    site: Site,
    message: Message,
    envelope: Envelope,
    action: str,
    ident: str,
    relay: Relay | None = None,
) -> None:
    from mdaflow.mail.nature import bounce  # only here: few senders ask
    from mdaflow.mail.receipt import MAX_HEAD

    if bounce(message, envelope):
        return
    # a copy: the message is not kept while a receipt waits
    head = bytes(message.raw[: min(message.header_end, MAX_HEAD + 1)])
    receipt = _Receipt(site.means, envelope, head, action, ident, relay)
    if not _outbox.put(receipt.send):
        log.warning("%s: too many receipts wait, none to <%s>", ident, envelope.sender)


class _Receipt(NamedTuple):
    """A receipt that waits."""

    means: Means
    envelope: Envelope
    head: bytes
    action: str
    ident: str
    relay: Relay | None

    def send(self) -> None:
        """Hand it to the next hop, with the null sender (RFC 3461 section 6.1). Never raises."""
        sender = self.envelope.sender
        try:
            from mdaflow.deliver import send  # only for what is sent

            transaction = send.prepare(self.means, "", (sender,), [self._write()], LIMIT)
            transaction.commit()
        except Exception as error:
            _warn(self.ident, self.envelope, error)
        else:
            words = (self.ident, sender, self.action, transaction.answer)
            log.info("%s: receipt to <%s>: %s (%s)", *words)

    def _write(self) -> bytes:
        from mdaflow.mail.receipt import compose

        host = self.means.hostname
        return compose(
            self.envelope,
            self.head,
            self.action,
            hostname=host,
            date=time.time(),
            message_id=f"<receipt.{os.urandom(8).hex()}@{host}>",
            relay=self.relay,
        )


def _warn(ident: str, envelope: Envelope, error: Exception) -> None:
    told = isinstance(error, MailError | OSError | ValueError)
    words = (ident, envelope.sender, one_line(str(error)))
    log.warning("%s: no receipt to <%s>: %s", *words, exc_info=None if told else error)


class _Outbox:
    """What waits to be sent, and a thread that is there as long as something does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def put(self, send: Callable[[], None]) -> bool:
        """Have it sent; False when too much waits. Raises RuntimeError when there is no thread."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                return False
            if self._thread is None:
                thread = threading.Thread(target=self._run, daemon=True)
                thread.start()  # it waits for the lock
                self._thread = thread
            self._waiting.append(send)
            return True

    def wait(self, seconds: float) -> int:
        """Wait until all is sent; how many are not."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return len(self._waiting)

    def _run(self) -> None:
        try:
            while send := self._next():
                send()
        finally:  # however it ends, the next receipt has a thread
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _next(self) -> Callable[[], None] | None:
        """What is sent next; without it there is no thread any more."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            return None


_outbox = _Outbox()
