"""Many rules: what 5,000 of them cost against 50, and against Dovecot with Pigeonhole Sieve.

First, the evaluation of one message in this process: 50 and 5,000 rules of three kinds, with
messages that hit the first, a middle, the last and no rule. Each round takes other messages, and
parsing them is part of the time. Beside it stands what 5,000 rules cost when they are tried one
by one.

Second, the time from the text of 1,000 rules to what can be run.

Third, both servers (see _servers.py), with mailboxes in memory: the messages per second that
they sort by 5, 50, 500 and 5,000 rules. Every rule looks for its list in List-Id; there are no
regular expressions, which are what costs Sieve most. Every message is for the last rule, and at
the end of each round the messages in its folder are counted.

Rounds alternate, and a ratio is the median of the pairwise ratios, so that other work on the
machine falls on both sides.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median

from _servers import (
    SIDES,
    Failed,
    Side,
    Site,
    User,
    check,
    dovecot_version,
    finished,
    need,
    send,
    started,
)

from mdaflow.engine import index
from mdaflow.engine.run import Stage, run
from mdaflow.lang import compile_rules
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message

FEW, MANY, COMPILED = 50, 5000, 1000
MESSAGES = 200
"""Messages of a round in this process."""
SIZES = (5, 50, 500, 5000)
USERS, SESSIONS, WARM = 4, 2, 8
NOBODY = 99_999
"""A number that no rule has; they begin with FIRST, so that all are as long."""
FIRST = 10_000
PLACES = {
    "first": (FIRST, FIRST),
    "middle": (FIRST + FEW // 2, FIRST + MANY // 2),
    "last": (FIRST + FEW - 1, FIRST + MANY - 1),
    "none": (NOBODY, NOBODY),
}
"""The rules that are hit, of few and of many."""
SENDER = "dave@example.com"
ENVELOPE = Envelope(SENDER, "bob@example.org")
WORDS = ("about", "budget", "call", "draft", "meeting", "news", "notes", "office", "order", "plan",
         "please", "project", "release", "review", "status", "team", "ticket", "week")  # fmt: skip

# Conditions, and a field of a message that meets them.
LIST = ('header "List-Id" contains "<list%d.example.org>"', "List-Id: A list <list%d.example.org>")
PLAIN = [
    ('from is "user%d@example.com"', "From: A user <user%d@example.com>"),
    ('to is "user%d@example.org"', "To: Bob <bob@example.org>, <user%d@example.org>"),
    ('subject contains "[project %d]"', "Subject: Re: [project %d] the"),
]
PATTERNS = [
    (r"subject matches /^\[ticket-%d(-[0-9]+)?\]/", "Subject: [ticket-%d-7] the"),
    (r"subject matches /\border %d\b.*(shipped|late)/", "Subject: Your order %d has shipped:"),
    (r"subject matches /(re|fwd|aw): plan %d /", "Subject: Fwd: plan %d of the"),
    (r"subject matches /^(minutes|notes) of .*meeting %d/", "Subject: Notes of the meeting %d:"),
    (r"subject matches /invoice[ -]no[. ]*%d\/20[0-9]{2}$/", "Subject: Invoice no. %d/2026"),
]
# Five of each, so that the first, middle and last of 50 and of 5,000 rules are of one sort.
KINDS = {"list": [LIST], "mixed": [LIST, *PLAIN, PATTERNS[0]], "regex": PATTERNS}
HEADER = {
    "From": f"Dave <{SENDER}>",
    "To": "Bob <bob@example.org>, Ann <ann@example.org>",
    "Date": "Fri, 20 Nov 2026 10:00:00 +0100",
    "Message-ID": "<20261120.1@example.com>",
    "Subject": "Notes of the",
    "List-Id": "Another list <another.example.org>",
}


def rules(kind: str, size: int) -> str:
    """So many rules of a kind; each delivers to a folder with its number."""
    conditions = [test for test, _ in KINDS[kind]]
    tests = (conditions[n % len(conditions)] % n for n in range(FIRST, FIRST + size))
    numbered = enumerate(tests, FIRST)
    return "".join(f'rule "{n}" when {test} {{ deliver to "{n}" }}\n' for n, test in numbered)


CHANCE = random.Random(0)


def mail(kind: str, number: int) -> bytes:
    """A message for one rule, or for none; no two of them are the same."""
    fields = [field for _, field in KINDS[kind]]
    name, _, value = (fields[number % len(fields)] % number).partition(": ")
    header = HEADER | {name: value}
    if not header["Subject"].endswith("/2026"):
        header["Subject"] += f" {' '.join(CHANCE.choices(WORDS, k=4))}"
    lines = [f"{name}: {value}" for name, value in header.items()]
    return "\n".join([*lines, "", "See below.", ""]).encode()


# in this process


def evaluation(rounds: int) -> None:
    """Print what one message costs with few and with many rules."""
    print("\n  evaluation of one message, µs")
    print(f"  {'rules':>6} {'it hits':>8} {FEW:>9} {MANY:>9,} {'ratio':>7} {'one by one':>13}")
    for kind in KINDS:
        few, many = (Stage(compile_rules(rules(kind, size))) for size in (FEW, MANY))
        _, made = (cost(stage, kind, NOBODY, 1) for stage in (few, many))
        for place, (one, other) in PLACES.items():
            pairs = [(cost(few, kind, one), cost(many, kind, other)) for _ in range(rounds)]
            index.ENABLED = False
            slow = cost(many, kind, other, MESSAGES // 20)
            index.ENABLED = True
            row = " ".join(f"{median(column):9.1f}" for column in zip(*pairs, strict=True))
            ratio = median(theirs / ours for ours, theirs in pairs)
            print(f"  {kind:>6} {place:>8} {row} {ratio:7.2f} {slow:13.0f}", flush=True)
        print(f"  {kind:>6} {'the look-up is made in':>42} {made / 1000:6.0f} ms")


def cost(stage: Stage, kind: str, number: int, messages: int = MESSAGES) -> float:
    """The microseconds of one message for a rule. Raises Failed when another one gets it."""
    raws = [mail(kind, number) for _ in range(messages)]
    began = time.perf_counter()
    plans = [run(stage, Message(raw), ENVELOPE) for raw in raws]
    took = time.perf_counter() - began
    folder = "" if number == NOBODY else str(number)
    if any(plan.deciding.folder != folder for plan in plans):
        raise Failed(f"rule {number} of '{kind}' does not get its mail")
    return 1e6 * took / messages


def compilation(rounds: int) -> None:
    """Print how long a program of many rules takes."""
    print(f"\n  {COMPILED:,} rules, from text to what can be run, ms")
    for kind in KINDS:
        text = rules(kind, COMPILED)
        times: list[float] = []
        for _ in range(rounds):
            began = time.perf_counter()
            Stage(compile_rules(text))
            times.append(1000 * (time.perf_counter() - began))
        print(f"  {kind:>6} {median(times):8.0f}", flush=True)


# against Dovecot


def sieve(size: int) -> str:
    """As `rules("list", size)`, in Sieve."""
    test = 'if header :contains "list-id" "<list%d.example.org>" { fileinto "%d"; stop; }\n'
    numbers = range(FIRST, FIRST + size)
    return 'require ["fileinto"];\n' + "".join(test % (n, n) for n in numbers)


def users(size: int) -> list[str]:
    return [f"rules{size}-{n}" for n in range(1, USERS + 1)]


def servers(rounds: int, messages: int, folder: str) -> dict[str, list[float]]:
    """Messages per second by side and size."""
    need()
    site = Site(
        [User(name, rules("list", n), sieve(n)) for n in SIZES for name in users(n)],
        USERS * max(SESSIONS, WARM),
    )
    print(f"\n  messages/s   mdaflow   Dovecot {dovecot_version()}   ratio", flush=True)
    with ExitStack() as stack:
        new = tempfile.TemporaryDirectory(prefix="mdaflow-bench-", dir=folder)
        root = Path(stack.enter_context(new))
        root.chmod(0o755)
        sides = [stack.enter_context(started(name, root / name, site)) for name in SIDES]
        for _, side, size in product(range(2), sides, SIZES):  # all processes shall know all rules
            deliver(side, size, 4 * WARM, WARM)
        found = {(side.name, size): list[float]() for side, size in product(sides, SIZES)}
        for _, size, side in product(range(rounds), SIZES, sides):
            found[side.name, size].append(rate(side, size, messages // USERS))
    rates = {name: [median(found[name, size]) for size in SIZES] for name in SIDES}
    for at, size in enumerate(SIZES):
        ours, theirs = (found[name, size] for name in SIDES)
        ratio = median(our / their for our, their in zip(ours, theirs, strict=True))
        print(
            f"  {size:>10,} {rates['mdaflow'][at]:9.1f} {rates['dovecot'][at]:9.1f} {ratio:16.2f}"
        )
    return rates


def rate(side: Side, size: int, each: int) -> float:
    """The messages per second of one round."""
    for name in users(size):
        shutil.rmtree(side.maildir(name), ignore_errors=True)
    deliver(side, size, SESSIONS, SESSIONS)  # makes the mailboxes
    took = deliver(side, size, each, SESSIONS)
    last = f".{FIRST + size - 1}"
    check(side, sum(side.stored(name, last) for name in users(size)), (each + SESSIONS) * USERS)
    return each * USERS / took


def deliver(side: Side, size: int, each: int, sessions: int) -> float:
    """Have messages for the last rule sent to all users of a size; the seconds it took."""
    message = side.root / f"message{size}"
    message.write_bytes(
        mail("list", FIRST + size - 1) + b"A line of the text of a message.\n" * 100
    )
    return send(side, users(size), each, sessions, ["-f", SENDER, "-F", message])


# the drawing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, INSET = 720, 380, 64, 150, 64, 56, 36
NAMES = {"mdaflow": "mdaflow", "dovecot": "Dovecot, Sieve"}
STYLE = """
  text { font-family: system-ui, sans-serif; font-size: 14px; fill: #24292f }
  .head { font-size: 17px; font-weight: 600 } .grid { stroke: #d0d7de } .tick { fill: #57606a }
  .line { fill: none; stroke-width: 3; stroke-linejoin: round }
  .mdaflow { stroke: #0969da; fill: #0969da } .dovecot { stroke: #bc4c00; fill: #bc4c00 }
  text.mdaflow, text.dovecot { stroke: none; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .grid { stroke: #3d444d } .tick { fill: #9198a1 }
    .mdaflow { stroke: #58a6ff; fill: #58a6ff } .dovecot { stroke: #f0883e; fill: #f0883e }
  }
"""


def drawing(rates: Mapping[str, Sequence[float]], command: str) -> str:
    """The rates as SVG: a line for each side, the number of rules on a logarithmic scale."""
    highest = max(max(line) for line in rates.values())
    step = nice(highest / 4)
    most = step * math.ceil(highest / step)
    span = math.log(SIZES[-1] / SIZES[0])

    def x(size: int) -> float:
        return LEFT + INSET + (WIDTH - LEFT - RIGHT - INSET) * math.log(size / SIZES[0]) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Messages per second against the number of rules</title>",
        f"<desc>Made by: {command}</desc><style>{STYLE}</style>",
        f'<text class="head" x="{LEFT}" y="28">Messages per second, by the number of rules</text>',
    ]
    for grid in range(0, most + 1, step):
        out.append(f'<path class="grid" d="M{LEFT} {y(grid):.1f}H{WIDTH - RIGHT}"/>')
        out.append(text("tick", LEFT - 8, y(grid) + 5, f"{grid:,}", "end"))
    for size in SIZES:
        out.append(text("tick", x(size), HEIGHT - BOTTOM + 22, f"{size:,}", "middle"))
    out.append(text("tick", x(SIZES[-1]) + 30, HEIGHT - BOTTOM + 22, "rules", "start"))
    for name, line in rates.items():
        points = [(x(size), y(value)) for size, value in zip(SIZES, line, strict=True)]
        path = "L".join(f"{at:.1f} {up:.1f}" for at, up in points)
        out.append(f'<path class="line {name}" style="fill:none" d="M{path}"/>')
        for (at, up), value in zip(points, line, strict=True):
            out.append(f'<circle class="{name}" cx="{at:.1f}" cy="{up:.1f}" r="4"/>')
            beside = 22 if name == "mdaflow" else -10
            out.append(text("tick", at, up + beside, f"{value:,.0f}", "middle"))
        out.append(text(name, points[-1][0] + 12, points[-1][1] + 5, NAMES[name], "start"))
    return "\n".join([*out, "</svg>", ""])


def text(kind: str, x: float, y: float, said: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'


def nice(value: float) -> int:
    """The next of 1, 2, 5, 10, 20 …"""
    tens: int = 10 ** int(math.log10(max(1.0, value)))
    return next(n * tens for n in (1, 2, 5, 10) if n * tens >= value)


def main() -> int:
    parser = argparse.ArgumentParser(description="what 5,000 rules cost")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of rounds (default 9)")
    parser.add_argument("--messages", type=int, default=400,
                        help="of a round of the servers (default 400)")  # fmt: skip
    parser.add_argument("--folder", default="/dev/shm", metavar="DIR",
                        help="where the servers work, in memory (default /dev/shm)")  # fmt: skip
    parser.add_argument("--no-servers", action="store_true", help="only the parts without root")
    parser.add_argument("--svg", metavar="FILE", help="draw the rates of the servers")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.messages < USERS * SESSIONS:
        parser.error(f"at least 1 round and {USERS * SESSIONS} messages")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {arguments.rounds} rounds")

    def measure() -> None:
        evaluation(arguments.rounds)
        compilation(arguments.rounds)
        if not arguments.no_servers:
            rates = servers(arguments.rounds, arguments.messages, arguments.folder)
            if arguments.svg:
                command = " ".join(("contrib/dev bench rules", *sys.argv[1:]))
                Path(arguments.svg).write_text(drawing(rates, command))

    return finished(measure)


if __name__ == "__main__":
    sys.exit(main())
