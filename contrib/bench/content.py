"""What it costs to look into a message of 4 KB: CPU of one process, everything warm.

The messages are letters, newsletters in HTML and letters with an attachment, each of 4 KB and of
other words, out of 30,000, the common ones more often. 4,000 others were learned before, so that
the classifier knows several 100,000 tokens; the site has 2,000 known spams, and lists of 10,000
senders, hosts and links. No name server is asked.

    our tests        the tests of spam that look at the message alone
    and learned      the same with what was learned
    all              `spam.score` of a user, as a rule asks: with known spam and senders
    readings         all readings of the message, and the dangers of its attachments

With clamd (Debian's clamav-daemon) a real one is started with one signature, and asked over its
unix socket by us, and by a loop that sends the same bytes and reads the answer: in turns, and the
ratio is the median of the ratios of neighbours. That is wall time: clamd is another process.
"""

from __future__ import annotations

import argparse
import base64
import gc
import random
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from _servers import Failed

from mdaflow import Envelope, Message, User, open_site
from mdaflow.app.collection import Found
from mdaflow.app.config import Config, Folders, Spam
from mdaflow.app.learn import learn, site_counts
from mdaflow.app.weights import read_weights
from mdaflow.engine.context import Fact
from mdaflow.scan.clamd import Clamd
from mdaflow.scan.dangers import dangers
from mdaflow.scan.spam import Spam as Tests

SIZE, LEARNED, KNOWN, LISTED = 4096, 4000, 2000, 10_000
GOALS = {"all": 5.0, "rate": 200.0}
"""Milliseconds of a message, and messages per second of one core."""
CHANCE = random.Random(0)
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
BOB = "bob@example.org"


def word(number: int) -> str:
    """One of 30,000 words; the first ones are short."""
    made = ""
    while number or not made:
        number, letter = divmod(number, 26)
        made += LETTERS[letter]
    return made


def words(count: int) -> Iterator[str]:
    """As they come in a language: half of them are of the first hundred."""
    for _ in range(count):
        yield word(min(int(CHANCE.paretovariate(0.6) * 3), 30_000))


def text(size: int) -> str:
    """So many characters in lines."""
    said, lines = " ".join(words(size // 3))[:size], []
    for at in range(0, len(said), 72):
        lines.append(said[at : at + 72])
    return "\n".join(lines)


def head(kind: str) -> str:
    sender = f"{word(CHANCE.randrange(9999))}@{word(CHANCE.randrange(9999))}.example"
    return (
        f"Return-Path: <{sender}>\n"
        f"Received: from mail.{sender.partition('@')[2]} (mail [192.0.2.7])\n"
        "\tby mx.example.org (Postfix) with ESMTPS id 4XyZ1; Sat, 21 Nov 2026 10:00:00 +0000\n"
        f"From: {word(CHANCE.randrange(999)).title()} <{sender}>\nTo: {BOB}\n"
        f"Subject: {' '.join(words(6))}\nDate: Sat, 21 Nov 2026 10:00:00 +0000\n"
        f"Message-ID: <{CHANCE.randrange(10**12)}@{sender.partition('@')[2]}>\n"
        f"MIME-Version: 1.0\nContent-Type: {kind}\n\n"
    )


def letter() -> str:
    return head("text/plain; charset=utf-8") + text(SIZE - 500)


def newsletter() -> str:
    """A text, and the same with links."""
    site = f"https://www.{word(CHANCE.randrange(9999))}.example"
    said = text((SIZE - 1500) // 2)
    html = "".join(
        f'<p style="color:#333">{line} <a href="{site}/{n}?u={n * 7919}">{line[:9]}</a></p>\n'
        for n, line in enumerate(said.split("\n"))
    )
    return (
        head('multipart/alternative; boundary="b"').replace("To:", "List-Unsubscribe: <x>\nTo:")
        + f"--b\nContent-Type: text/plain\n\n{said[: SIZE // 4]}\n"
        f"--b\nContent-Type: text/html\n\n<html><body>{html}</body></html>\n--b--\n"
    )


def attached() -> str:
    """A letter with a file."""
    content = base64.encodebytes(CHANCE.randbytes(SIZE // 4)).decode()
    return (
        head('multipart/mixed; boundary="b"')
        + f"--b\nContent-Type: text/plain\n\n{text(SIZE // 3)}\n"
        '--b\nContent-Type: application/pdf; name="report.pdf"\n'
        f"Content-Transfer-Encoding: base64\n\n{content}\n--b--\n"
    )


KINDS = (letter, newsletter, attached)


def messages(count: int) -> list[Message]:
    return [Message(KINDS[n % len(KINDS)]().encode()) for n in range(count)]


def site_in(root: Path) -> Config:
    """A site that has learned, with its lists."""
    home = root / "mail/example.org/bob"
    home.mkdir(parents=True)
    known = root / "known/new"
    known.mkdir(parents=True)
    for number, message in enumerate(messages(KNOWN)):
        (known / f"{number}").write_bytes(bytes(message.raw))
    listed = root / "listed"
    listed.write_text("".join(f"{word(n * 3)}.listed.example\n" for n in range(LISTED)))
    lists = (str(listed),)
    config = Config(
        hostname="mx.example.org",
        users=(Folders(f"{root}/mail"),),
        state=f"{root}/state",
        spam=Spam(known=(str(known.parent),), bad_senders=lists, bad_hosts=lists, bad_links=lists),
    )
    counts = site_counts(config, patient=True)
    for spam in (True, False):
        found = (Found("", message) for message in messages(LEARNED // 2))
        for _ in learn(counts, found, spam):
            pass
    counts.close()
    return config


def cpu(act: Callable[[Message], object], mails: Sequence[Message]) -> float:
    """Milliseconds of CPU that something takes for a message, as none has seen it before."""
    fresh = [Message(bytes(message.raw)) for message in mails]
    began = time.process_time()
    for message in fresh:
        act(message)
    return (time.process_time() - began) * 1000 / len(fresh)


def measured(root: Path, rounds: int, size: int) -> dict[str, float]:
    """The median of some rounds, in milliseconds of a message."""
    config = site_in(root)
    site = open_site(config)
    [post] = site.answers.scanning.posted("spam")
    assert site.answers.own is not None
    site.answers.own.known.refresh(60.0)  # as it is after some mail
    user, envelope = User(BOB, f"{root}/mail/example.org/bob", "maildir:Maildir"), Envelope("", BOB)
    bare = Tests(read_weights())

    def score(message: Message) -> object:
        ask = site.answers.about(user, really=True, message=message)
        return ask(Fact("spam.score", message, envelope))

    acts: dict[str, Callable[[Message], object]] = {
        "our tests": lambda message: bare.scan(message, envelope, 1.0),
        "and learned": lambda message: post.scanner.scan(message, envelope, 1.0),
        "all": score,
        "readings": dangers,
    }
    for _ in range(3):  # what is indexed at the first mail, and what Python keeps
        for act in acts.values():
            cpu(act, messages(60))
    gc.collect()
    gc.freeze()  # as the server does
    found: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        mails = messages(size)
        for name, act in acts.items():
            found[name].append(cpu(act, mails))
    return {name: median(times) for name, times in found.items()}


def clamd(rounds: int, size: int) -> tuple[float, float, float]:
    """Milliseconds of our scan and of a bare loop, and the median of their ratios."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from clamd_server import ClamdServer

    with ClamdServer(DisableCache="yes") as server:  # or it knows the second of two equal ones
        scanner, envelope = Clamd((server.address,)), Envelope()

        def ours(message: Message) -> None:
            scanner.scan(message, envelope, 30.0)

        def loop(message: Message) -> None:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(server.socket)
                raw = bytes(message.raw)
                line.sendall(b"nINSTREAM\n" + struct.pack("!L", len(raw)) + raw + bytes(4))
                if line.recv(100) != b"stream: OK\n":
                    raise Failed("clamd does not say OK")

        wall(ours, messages(50))
        pairs = []
        for _ in range(rounds):
            mails = messages(size)
            pairs.append((wall(ours, mails), wall(loop, mails)))
    return (
        median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)
    )  # fmt: skip


def wall(act: Callable[[Message], object], mails: Sequence[Message]) -> float:
    began = time.perf_counter()
    for message in mails:
        act(message)
    return (time.perf_counter() - began) * 1000 / len(mails)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=300)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="mdaflow-bench-"))
    try:
        found = measured(root, options.rounds, options.messages)
    finally:
        shutil.rmtree(root)
    for name, took in found.items():
        print(f"{name:<12} {took:6.2f} ms CPU")
    print(f"messages per second of a core, all of it: {1000 / found['all']:.0f}")
    if not (shutil.which("clamd") or Path("/usr/sbin/clamd").exists()):
        print("clamd is not installed, so it was not asked")
    else:
        ours, loop, ratio = clamd(options.rounds, options.messages)
        print(f"clamd: {ours:.3f} ms by us, {loop:.3f} ms by a bare loop: {ratio:.2f} times")
    good = found["all"] < GOALS["all"] and 1000 / found["all"] > GOALS["rate"]
    print("wanted: less than 5 ms, and more than 200 messages per second")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
