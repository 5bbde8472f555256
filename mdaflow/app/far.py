"""What the process of an account has done by the worker: the other end of steward.py.

The site's store, its facts, and the actions that take its rights are a call each: words go there,
and what comes back is the result, or the exception that was raised there.
"""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from mdaflow.deliver.job import Job
from mdaflow.engine.context import Fact
from mdaflow.engine.plan import Action
from mdaflow.errors import MailError, from_oserror
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.receipt import Relay

from .answers import Answer
from .carry import Carried
from .frames import MAX_RAW, Frames, result, sealed_file


class Far:
    """What is done by the worker: the site's store, its facts, actions that take its rights."""

    def __init__(self) -> None:
        self.frames: Frames | None = None

    def call(self, *words: object, raw: bytes = b"", files: tuple[int, ...] = ()) -> Any:
        """Have something done; what it returns. Raises what it raises, and OSError."""
        if self.frames is None:
            raise OSError("nobody is there to ask")
        self.frames.send(words, raw, files)
        return result(self.frames.receive().value)

    def fence(self) -> bool:
        """Is it not too late? Never raises."""
        try:
            return bool(self.call("fence"))
        except (OSError, MailError):  # nobody waits for it any more
            return False

    def fact(self, fact: Fact) -> Answer:
        """The answer to a fact about the message that is being delivered."""
        found = self.call("fact", fact.name, fact.arguments, fact.owner, fact.within)
        return None if found is None else list(found)

    def seen(self) -> None:
        """The message is known from now on."""
        self.call("seen")

    def get(self, key: str) -> str | None:
        """As of a Store."""
        found: str | None = self.call("get", key)
        return found

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """As of a Store."""
        self.call("put", key, value, seconds)

    def add(self, key: str, value: str, seconds: float | None = None) -> bool:
        """As of a Store."""
        return bool(self.call("add", key, value, seconds))

    def prepare(self, job: Job, action: Action) -> Step:
        """An action that is carried out there. Raises TempFail, PermFail."""
        a, how, raw, file = action, "same", b"", -1
        edited = action.message
        if edited is not None and edited is not job.message:
            if edited.raw is job.message.raw:
                how, raw = "head", edited.head
            else:
                how, file = "whole", sealed_file(edited.under(edited.head))
        words = (
            a.verb, a.folder, a.text, sorted(a.flags), a.also, a.owner, a.rule, a.span or (),
            a.targets, a.options, a.handle,
        )  # fmt: skip
        try:
            files = (file,) if file >= 0 else ()
            answer = self.call("prepare", job.ident, job.own, words, how, raw=raw, files=files)
        finally:
            if file >= 0:
                os.close(file)
        number, where = answer
        return Step(self, number, where)


class Step:
    """An action that waits at the worker's."""

    relay: Relay | None = None

    def __init__(self, far: Far, number: int, where: str) -> None:
        self.where = where
        self._far = far
        self._number = number

    def commit(self) -> None:
        """Have it carried out. Raises TempFail, PermFail."""
        try:
            self.where, relay = self._far.call("commit", self._number)
        except OSError as error:
            raise from_oserror(error) from error
        if relay is not None:
            host, answer, dsn, targets = relay
            self.relay = Relay(host, answer, dsn, tuple(targets))

    def abort(self) -> None:
        """Have it taken back."""
        with suppress(OSError, MailError):
            self._far.call("abort", self._number)


class FarLog(logging.Handler):
    """The log is the worker's."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self._frames = frames

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        with suppress(OSError):
            self._frames.send(["log", record.levelno, text[:MAX_RAW]])
            self._frames.receive()


def words_of(envelope: Envelope) -> dict[str, Any]:
    """An envelope in words; `envelope_of` makes it that again."""
    return asdict(envelope)


def envelope_of(words: dict[str, Any]) -> Envelope:
    """The envelope that `words_of` was given."""
    client, notify = Client(**words["client"]), tuple(words["notify"])
    return Envelope(**words | {"client": client, "notify": notify})


def told(carried: Carried) -> list[object]:
    """What became of a message, in words that `steward` understands."""
    done = carried.done
    status = [done.status.code, done.status.enhanced, done.status.text]
    return [
        "done", status, done.outcome, list(done.places), done.trouble,
        carried.rule, carried.where, done.relay,
    ]  # fmt: skip
