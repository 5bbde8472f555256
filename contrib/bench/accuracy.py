"""How well spam is told from ham: our own tests, what was learned, and both together.

HAM and SPAM are folders (of files, below each other or not; Maildirs) or mbox files. With
`--train-ham` and `--train-spam`, the classifier learns those, and all of HAM and SPAM is judged.
Without them HAM and SPAM are divided into folds, and each fold is judged by what was learned from
the others. All mail of one sender's domain is in one fold, so that nobody is known beforehand.

Figures: the area under the curve of true against false positives (1 is perfect, 0.5 is chance); the
spam that is found where 1 ham of 1,000, and of 100, is taken for spam; spam, ham and newsletters
at the threshold. With `--ablation`, what is lost without each test.

Nothing is asked of the network. Rivals learn and judge the same messages, where they are installed.
"""

from __future__ import annotations

import argparse
import mailbox
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from mdaflow.app.weights import read_weights
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan import Hit
from mdaflow.scan.bayes import Classifier, MemoryCounts, lesson
from mdaflow.scan.spam import Table, bayes_hits, own_hits
from mdaflow.scan.spam.clues import Site
from mdaflow.scan.spam.links import site

THRESHOLD = 5.0


class Mail(NamedTuple):
    """A message, and the end of its file's name."""

    name: str
    message: Message


class Judged(NamedTuple):
    """What was found in a message."""

    name: str
    own: list[Hit]
    evidence: float | None
    hits: list[Hit]

    @property
    def score(self) -> float:
        return sum(hit.score for hit in self.hits)


class Sample(NamedTuple):
    """The scores of both classes."""

    spam: Sequence[float]
    ham: Sequence[float]

    def area(self) -> float:
        """How often spam has more than ham; the same score counts half."""
        both = sorted([(s, 1) for s in self.spam] + [(s, 0) for s in self.ham])
        found, below = 0.0, 0
        for _, tied in groupby(both, itemgetter(0)):
            marks = [mark for _, mark in tied]
            found += sum(marks) * (below + marks.count(0) / 2)
            below += marks.count(0)
        return found / (len(self.spam) * len(self.ham))

    def found(self, share: float) -> float:
        """The share of spam that has more than all ham but this share of it."""
        limit = sorted(self.ham, reverse=True)[int(share * len(self.ham))]
        return above(self.spam, limit + 1e-9)

    def row(self) -> str:
        at = (above(self.spam, THRESHOLD), above(self.ham, THRESHOLD))
        shares = (self.found(0.001), self.found(0.01), *at)
        return f"{self.area():8.5f}" + "".join(f"{100 * share:10.2f}" for share in shares)


HEAD = f"{'area':>8}{'at 0.1 %':>10}{'at 1 %':>10}{'spam >= 5':>10}{'ham >= 5':>10}"


def above(scores: Sequence[float], limit: float) -> float:
    """The share of scores from `limit` on."""
    return sum(score >= limit for score in scores) / max(1, len(scores))


# mail


def read(path: str) -> list[Mail]:
    """All messages of a folder or an mbox file, in the order of their names."""
    return [Mail(name[-60:], Message.from_wire(raw)) for name, raw in _raw(Path(path))]


def _raw(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        if path.open("rb").read(5) != b"From ":
            yield str(path), path.read_bytes()
            return
        box = mailbox.mbox(path, create=False)
        yield from ((f"{path}:{key}", box.get_bytes(key)) for key in box.iterkeys())
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file() and not name.startswith("dovecot"):
                yield from _raw(file)


def fold_of(mail: Mail, folds: int) -> int:
    """By the domain that the author says he is from."""
    authors = mail.message.addresses("From")
    return crc32(site(authors[0].domain.lower()).encode() if authors else b"") % folds


# judging


def learned(spam: Iterable[Mail], ham: Iterable[Mail]) -> Classifier:
    """A classifier that has learned both."""
    counts = MemoryCounts()
    for mails, is_spam in ((spam, True), (ham, False)):
        counts.learn([lesson(mail.message, is_spam) for mail in mails])
    return Classifier(counts)


def judge(mail: Mail, classifier: Classifier | None, table: Table) -> Judged:
    own = own_hits(mail.message, Envelope("unknown"), Site(), table)
    judgement = classifier.judge(mail.message) if classifier else None
    evidence = judgement.evidence if judgement else None
    return Judged(mail.name, own, evidence, [*own, *bayes_hits(evidence, table)])


class Split(NamedTuple):
    """What is learned, and what is judged by it."""

    train_spam: list[Mail]
    train_ham: list[Mail]
    spam: list[Mail]
    ham: list[Mail]
    newsletters: list[Mail]


def splits(arguments: argparse.Namespace) -> list[Split]:
    spam, ham = read(arguments.spam), read(arguments.ham)
    newsletters = read(arguments.newsletters) if arguments.newsletters else []
    if arguments.train_ham:
        train = read(arguments.train_spam), read(arguments.train_ham)
        return [Split(*train, spam, ham, newsletters)]
    folds = arguments.folds
    parts = [[[m for m in box if (fold_of(m, folds) == n) is here] for box in (spam, ham)
              for here in (False, True)] for n in range(folds)]  # fmt: skip
    return [
        Split(learn_spam, learn_ham, test_spam, test_ham, newsletters if n == 0 else [])
        for n, (learn_spam, test_spam, learn_ham, test_ham) in enumerate(parts)
    ]


# rivals


def bogofilter(split: Split) -> tuple[list[float], list[float]]:
    """Its scores of spam and ham."""
    with tempfile.TemporaryDirectory() as folder:
        call = ["bogofilter", "-C", "-d", folder]
        for mails, flag in ((split.train_spam, "-s"), (split.train_ham, "-n")):
            subprocess.run([*call, flag, "-M"], input=_mbox(mails), check=True)
        return _bogo(call, split.spam), _bogo(call, split.ham)


def _bogo(call: list[str], mails: list[Mail]) -> list[float]:
    found = subprocess.run([*call, "-TT", "-M"], input=_mbox(mails), stdout=subprocess.PIPE).stdout
    return [float(line.split()[-1]) for line in found.splitlines()]


def spamassassin(split: Split) -> tuple[list[float], list[float]]:
    """Its scores without the network and without what it may have learned."""
    return _assassin(split.spam), _assassin(split.ham)


def _assassin(mails: list[Mail]) -> list[float]:
    call = ["spamassassin", "-L", "--cf=use_bayes 0", "--mbox"]
    found = subprocess.run(call, input=_mbox(mails), stdout=subprocess.PIPE, check=True).stdout
    return [float(m[1]) for m in re.finditer(rb"^X-Spam-Status:.*?score=(\S+)", found, re.M)]


def _mbox(mails: Iterable[Mail]) -> bytes:
    return b"".join(
        b"From judge@localhost Thu Jan  1 00:00:00 2004\n"
        + re.sub(rb"^(>*From )", rb">\1", mail.message.raw, flags=re.M).rstrip(b"\n")
        + b"\n\n"
        for mail in mails
    )


RIVALS: dict[str, Callable[[Split], tuple[list[float], list[float]]]] = {
    "bogofilter": bogofilter,
    "spamassassin": spamassassin,
}


# what is printed


def row(name: str, sample: Sample) -> None:
    print(f"  {name:<16}{sample.row()}", flush=True)


def own_score(judged: Judged) -> float:
    return sum(hit.score for hit in judged.own)


def evidence(judged: Judged) -> float:
    return judged.evidence or 0.0


WAYS = {"together": lambda j: j.score, "own tests": own_score, "learned": evidence}


def worst(judged: Sequence[Judged], number: int, what: str, *, highest: bool) -> None:
    print(f"\n  {what}")
    for one in sorted(judged, key=lambda j: j.score, reverse=highest)[:number]:
        hits = sorted(one.hits, key=lambda hit: hit.score, reverse=highest)
        told = " ".join(f"{hit.name}={hit.score:g}" for hit in hits[:8])
        print(f"  {one.score:6.2f} {one.name[-44:]:<44} {told}")


def ablation(spam: Sequence[Judged], ham: Sequence[Judged]) -> None:
    """What is lost without each test."""
    whole = Sample([j.score for j in spam], [j.score for j in ham])
    by_test: dict[str, list[list[int]]] = defaultdict(lambda: [[], []])
    for mark, judged in enumerate((spam, ham)):
        for at, one in enumerate(judged):
            for hit in one.hits:
                by_test[hit.name][mark].append(at)
    area, found = whole.area(), whole.found(0.001)
    print(f"\n  {'without':<24}{'spam':>8}{'ham':>8}{'area':>10}{'at 0.1 %':>10}")
    for name in sorted(by_test):
        less = Sample(*(
            [j.score - sum(h.score for h in j.hits if h.name == name) for j in judged]
            for judged in (spam, ham)
        ))  # fmt: skip
        spam_met, ham_met = (
            100 * len(at) / len(judged)
            for at, judged in zip(by_test[name], (spam, ham), strict=True)
        )
        lost = (1e5 * (less.area() - area), 100 * (less.found(0.001) - found))
        print(f"  {name:<24}{spam_met:8.2f}{ham_met:8.2f}{lost[0]:+10.1f}{lost[1]:+10.2f}")
    print("  in % of the messages that meet it; the area in 100,000ths, the spam found in %")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="how well spam is told from ham")
    parser.add_argument("ham", metavar="HAM", help="a folder or an mbox file")
    parser.add_argument("spam", metavar="SPAM")
    parser.add_argument("--train-ham", metavar="DIR", help="learn this, and judge all of HAM, SPAM")
    parser.add_argument("--train-spam", metavar="DIR")
    parser.add_argument("--newsletters", metavar="DIR", help="ham that is judged by itself")
    parser.add_argument("--folds", type=int, default=5, help="without --train-... (default 5)")
    parser.add_argument("--weights", metavar="FILE", help="a site's own weights")
    parser.add_argument("--worst", type=int, default=5, help="how many to show (default 5)")
    parser.add_argument("--ablation", action="store_true", help="what each test is good for")
    parser.add_argument("--rivals", action="store_true", help=f"{' and '.join(RIVALS)}, if there")
    arguments = parser.parse_args()
    if bool(arguments.train_ham) != bool(arguments.train_spam) or arguments.folds < 2:
        parser.error("--train-ham and --train-spam go together; at least 2 folds")
    return arguments


def main() -> int:
    arguments = parse()
    given = arguments.weights
    table = read_weights(Path(given).read_bytes() if given else b"", given or "")
    spam: list[Judged] = []
    ham: list[Judged] = []
    news: list[Judged] = []
    rivals = {name: Sample([], []) for name in RIVALS if arguments.rivals and shutil.which(name)}
    folds = splits(arguments)
    print(f"  {'fold':<16}{HEAD}")
    took = 0.0
    for number, split in enumerate(folds, 1):
        classifier = learned(split.train_spam, split.train_ham)
        began = time.process_time()
        now = [[judge(m, classifier, table) for m in box] for box in split[2:]]
        took += time.process_time() - began
        if len(folds) > 1:
            row(f"{number}", Sample([j.score for j in now[0]], [j.score for j in now[1]]))
        for box, more in zip((spam, ham, news), now, strict=True):
            box += more
        for name, sample in rivals.items():
            for scores, more_scores in zip(sample, RIVALS[name](split), strict=True):
                scores += more_scores  # type: ignore[operator]
    print(f"\n  {len(spam):,} spam, {len(ham):,} ham; % of them; {THRESHOLD:g} is the threshold")
    print(f"  {'':<16}{HEAD}")
    for name, way in WAYS.items():
        row(name, Sample([way(j) for j in spam], [way(j) for j in ham]))
    for name, sample in rivals.items():
        row(name, sample)
    if news:
        both = [100 * above([way(j) for j in news], THRESHOLD) for way in list(WAYS.values())[:2]]
        print(f"\n  {len(news):,} newsletters: {both[0]:.2f} % of them >= {THRESHOLD:g}")
        print(f"  by own tests alone {both[1]:.2f} %")
    judged = len(spam) + len(ham) + len(news)
    print(f"  {1000 * took / judged:.2f} ms of CPU for a message")
    worst(ham, arguments.worst, "ham that looks most like spam", highest=True)
    worst(spam, arguments.worst, "spam that looks most like ham", highest=False)
    if news:
        worst(news, arguments.worst, "newsletters that look most like spam", highest=True)
    if arguments.ablation:
        ablation(spam, ham)
    return 0


if __name__ == "__main__":
    sys.exit(main())
