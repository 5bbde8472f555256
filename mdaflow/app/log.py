"""The log: one line for each recipient after the fact, and whatever else there is to say.

The fields of a delivery and their order are one table, the same in text and in JSON. Control
characters from outside are escaped (P50).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from functools import lru_cache
from typing import Any

from .config import Log

log = logging.getLogger("mdaflow")

FIELDS = (
    "to", "orig_to", "from", "message-id", "size", "rule", "where", "delay", "dsn", "status",
    "reason",
)  # fmt: skip
"""Of a delivery, as they stand in a line; those with nothing to say are left out."""

_IN_BRACKETS = {"to", "orig_to", "from"}
_OPTIONAL = {"orig_to", "message-id", "rule", "where"}


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
            words.append(f"{name}=<{text}>" if name in _IN_BRACKETS else f"{name}={text}")
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


def set_up(config: Log) -> None:
    """Send the log where the configuration says. Raises OSError when that cannot be opened."""
    handler = _handler(config.to)
    handler.setFormatter(_Format(config.format, config.to != "syslog"))
    log.handlers[:] = [handler]
    log.setLevel(config.level.upper())
    log.propagate = False


def _handler(to: str) -> logging.Handler:
    if to == "stderr":
        return logging.StreamHandler(sys.stderr)
    if to == "syslog":
        address, mail = "/dev/log", logging.handlers.SysLogHandler.LOG_MAIL
        return logging.handlers.SysLogHandler(address, mail)
    return logging.handlers.WatchedFileHandler(to, encoding="utf-8")
