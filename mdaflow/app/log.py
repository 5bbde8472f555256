"""The log: one line for each recipient after the fact, and whatever else there is to say.

The fields of a delivery and their order are one table, the same in text and in JSON. Control
characters from outside are escaped (P50).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any

from mdaflow.errors import ConfigError, MailError
from mdaflow.mail.envelope import Envelope

from .config import Log

log = logging.getLogger("mdaflow")

FIELDS = (
    "to", "orig_to", "from", "message-id", "size", "rule", "where", "delay", "dsn", "status",
    "reason",
)  # fmt: skip
"""Of a delivery, as they stand in a line; those with nothing to say are left out."""

_IN_BRACKETS = {"to", "orig_to", "from"}
_OPTIONAL = {"orig_to", "message-id", "rule", "where"}


_WORD = re.compile(r"<?[^\s,<>]*>?")
_BREAK = re.compile(r"[\s,<>]")  # what could look like the end of a field


def _hex(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def escaped(text: str) -> str:
    """Text on one line, with what is not printable as `\\xNN`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode()


def delivery(queue_id: str, fields: dict[str, Any]) -> None:
    """Write the line of one recipient."""
    if log.isEnabledFor(logging.INFO):
        # not log.info: it would look for the line of source that says so, in each call
        record = log.makeRecord(log.name, logging.INFO, "", 0, "delivery", (), None)
        record.queue_id, record.fields = queue_id, fields
        log.handle(record)


def bracketed(address: str) -> str:
    """An address in brackets, for a line of words: nothing in it looks like the end of it."""
    return f"<{_one_word(escaped(address))}>"


def _one_word(text: str) -> str:
    return text if _WORD.fullmatch(text) else _BREAK.sub(_hex, text)


def about(envelope: Envelope) -> dict[str, Any]:
    """The fields of a delivery that say whose it was."""
    return {
        "to": envelope.recipient,
        "orig_to": "" if envelope.original == envelope.recipient else envelope.original,
        "from": envelope.sender,
    }


def refused(envelope: Envelope, size: int, error: MailError) -> None:
    """Write the line of one recipient of a message that could not even be taken."""
    status = error.status
    fields = about(envelope) | {
        "size": size,
        "delay": 0.0,
        "dsn": status.enhanced,
        "status": "deferred" if status.temporary else "rejected",
        "reason": str(error),
    }
    delivery(envelope.queue_id, fields)


def report(error: ConfigError) -> None:
    """Write what is wrong with a configuration."""
    for problem in error.problems:
        log.error("%s", problem)


def _line(queue_id: str, fields: dict[str, Any]) -> str:
    words = []
    for name in FIELDS[:-1]:
        value = fields.get(name, "")
        if (name in _OPTIONAL and not value) or name == "where":
            continue
        text = escaped(str(value))
        if name == "rule":
            quoted = text.replace('"', "'")
            words.append(f'rule="{quoted}" ({escaped(fields["where"])})')
        else:
            word = _one_word(text)
            words.append(f"{name}=<{word}>" if name in _IN_BRACKETS else f"{name}={word}")
    return f"{escaped(queue_id) or 'NOQUEUE'}: {', '.join(words)} ({escaped(fields['reason'])})"


_CONTINUED = "\n    "  # so that no line can be made to look like one of ours


def _lines(text: str) -> str:
    return _CONTINUED.join(escaped(line) for line in text.split("\n"))


@lru_cache(8)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class _Format(logging.Formatter):
    def __init__(self, log_format: str, stamped: bool) -> None:
        super().__init__()
        self._json = log_format == "json"
        self._stamped = stamped

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        queue_id = getattr(record, "queue_id", "")
        if self._json:
            return self._as_json(record, queue_id, fields)
        text = record.getMessage() if fields is None else _line(queue_id, fields)
        if fields is None:
            text = _lines(text)
            level = record.levelname.lower()
            text = text if record.levelno == logging.INFO else f"{level}: {text}"
        if record.exc_info:
            text += _CONTINUED + _lines(self.formatException(record.exc_info))
        stamp = f"{_stamp(int(record.created))}.{record.msecs:03.0f} " if self._stamped else ""
        return f"{stamp}mdaflow/lmtp[{record.process}]: {text}"

    def _as_json(self, record: logging.LogRecord, queue_id: str, fields: Any) -> str:
        entry: dict[str, Any] = {"time": record.created, "level": record.levelname.lower()}
        if fields is None:
            entry["message"] = record.getMessage()
        else:
            entry |= {"queue_id": queue_id} | {n: fields[n] for n in FIELDS if n in fields}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


def set_up(config: Log, *, tell: bool = False) -> None:
    """Send the log where the configuration says; with `tell`, errors to standard error too.

    Raises OSError when the log cannot be opened.
    """
    handlers = [_handler(config.to)]
    handlers[0].setFormatter(_Format(config.format, config.to != "syslog"))
    if tell and config.to != "stderr":  # who starts a server shall see why it does not
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[1].setFormatter(_Format("text", True))
        handlers[1].setLevel(logging.ERROR)
    log.handlers[:] = handlers
    log.setLevel(config.level.upper())
    log.propagate = False


class _File(logging.handlers.WatchedFileHandler):
    """A file that may be rotated away. What cannot be written there goes to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except Exception:  # the file's folder may be closed to us: no reason to fail a delivery
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        _to_stderr(self, record)


class _Syslog(logging.handlers.SysLogHandler):
    """syslog. What it does not take goes to standard error."""

    def handleError(self, record: logging.LogRecord) -> None:
        _to_stderr(self, record)


def _to_stderr(handler: logging.Handler, record: logging.LogRecord) -> None:
    with suppress(Exception):  # there is nobody left to tell
        sys.stderr.write(f"{handler.format(record)}\n")
        sys.stderr.flush()


def _handler(to: str) -> logging.Handler:
    if to == "stderr":
        return logging.StreamHandler(sys.stderr)
    if to == "syslog":
        address, mail = "/dev/log", logging.handlers.SysLogHandler.LOG_MAIL
        return _Syslog(address, mail)
    return _File(to, encoding="utf-8")
