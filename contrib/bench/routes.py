"""Routing: what it costs to find where mail goes, with 100,000 aliases and 100,000 users.

The tables: a file of aliases(5), one of virtual(5) for 50 domains with a catch-all each, ten
regular expressions, and a passwd-file. Of the aliases 70 to 75 % stand for a user, 5 to 10 % for a
list of five, 20 % for another alias. Of the recipients, 40 % are users, 5 % nobody.

First, what the tables take: seconds until they can be asked, and how much the process grows for
each entry. Beside it stands what `postalias` and `postmap` need to make their database of the same
file; Postfix does that once, we do it in each process and whenever the file has changed.

Second, addresses per second, by kinds of recipients and mixed: all of `resolve`, from the
recipient to users with their homes. Almost every address comes once in a round, and what was read
of one is not found again.

Third, one look-up: the keys of a file against those of one table, here and by `postalias -q -` and
`postmap -q -`. Both read the keys from a file and write what they find. This is less than what
routing is: they do not follow what they find, we do not ask any other table.

All times are CPU time of one process, theirs with its start. Rounds alternate, and a ratio is the
median of the pairwise ratios.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from _servers import Failed, finished

from mdaflow import MemoryStore, open_site
from mdaflow.app.load import loads
from mdaflow.route.aliases import AliasTable
from mdaflow.route.resolve import Router
from mdaflow.route.tables import Table

DOMAINS, EXPRESSIONS = 50, 10
SHARE = 0.6
"""Of the aliases that are in the file of aliases(5)."""
LOOKUPS, RECIPIENTS = 100_000, 10_000
"""Of a round."""
GOALS = {"rate": 20_000, "load": 2.0}
"""Addresses per second, and seconds."""
CHANCE = random.Random(0)

CONFIG = """\
hostname: mx.example.org
domains: [example.org]
aliases: ["{0}/aliases", "virtual:{0}/virtual", "regexp:{0}/regexp"]
users:
  - passwd: {0}/passwd
    home: /var/mail/vhosts/%d/%n
"""


# the tables


class Site(NamedTuple):
    """So many users, aliases of aliases(5), and aliases of virtual(5)."""

    users: int
    aliases: int
    virtual: int

    def user(self, number: int) -> str:
        return f"user{number:06}@d{number % DOMAINS:02}.example"

    def anybody(self) -> str:
        return self.user(CHANCE.randrange(self.users))

    def several(self) -> str:
        return ", ".join(self.anybody() for _ in range(5))


def alias(number: int) -> str:
    return f"alias{number:06}"


def name(number: int) -> str:
    return f"name{number:06}@d{number % DOMAINS:02}.example"


def aliases(site: Site) -> Iterator[str]:
    """Of ten in a row seven stand for a user, one for a list, two for the first of some ten."""
    for number in range(site.aliases):
        chain = alias(CHANCE.randrange(max(number, 10) // 10) * 10)
        kinds = [site.anybody] * 7 + [site.several] + [lambda to=chain: to] * 2
        yield f"{alias(number)}: {kinds[number % 10]()}\n"


def virtual(site: Site) -> Iterator[str]:
    """As `aliases`, of twenty in a row; and the catch-alls."""
    for number in range(site.virtual):
        chain = name(CHANCE.randrange(max(number, 20) // 20) * 20)
        kinds = [site.anybody] * 15 + [site.several] + [lambda to=chain: to] * 4
        yield f"{name(number)}\t{kinds[number % 20]()}\n"
    yield from (f"@d{n:02}.example\t{site.user(n)}\n" for n in range(DOMAINS))


def expressions(site: Site) -> Iterator[str]:
    return (f"/^list{n}-(.*)@example\\.org$/\t{site.user(n)}\n" for n in range(EXPRESSIONS))


def passwd(site: Site) -> Iterator[str]:
    secret = "{SHA512-CRYPT}$6$saltsaltsalt$" + 86 * "x"
    rest = "::::::userdb_quota_rule=*:storage=1G"
    return (f"{site.user(n)}:{secret}{rest}\n" for n in range(site.users))


def write(site: Site, folder: Path) -> None:
    """All tables, line by line, so that nothing of them stays in memory."""
    tables = {"aliases": aliases, "virtual": virtual, "regexp": expressions, "passwd": passwd}
    for file_name, made in tables.items():
        with (folder / file_name).open("w") as file:
            file.writelines(made(site))


# the recipients

Recipient = Callable[[Site, int], str]
RECIPIENT: dict[str, tuple[int, Recipient]] = {
    "user": (40, lambda site, n: site.user(n % site.users)),
    "user+detail": (5, lambda site, n: site.user(n % site.users).replace("@", "+x@")),
    "alias": (15, lambda site, n: f"{alias(n % (site.aliases // 10) * 10)}@example.org"),
    "of an alias": (10, lambda site, n: f"{alias(n % (site.aliases // 10) * 10 + 9)}@example.org"),
    "list of 5": (5, lambda site, n: f"{alias(n % (site.aliases // 10) * 10 + 7)}@example.org"),
    "virtual": (10, lambda site, n: name(n % (site.virtual // 20) * 20)),
    "catch-all": (5, lambda site, n: f"whoever{n}@d{n % DOMAINS:02}.example"),
    "expression": (5, lambda site, n: f"list{n % EXPRESSIONS}-{n}@example.org"),
    "nobody": (5, lambda site, n: f"nobody{n}@example.org"),
}
"""Kinds of recipients -> how many of a hundred in the mix, and a recipient of the kind."""


def recipients(site: Site, kind: str, size: int) -> list[str]:
    _, made = RECIPIENT[kind]
    return [made(site, CHANCE.randrange(1_000_000)) for _ in range(size)]


def mixed(site: Site, size: int) -> list[str]:
    found = [r for kind, (share, _) in RECIPIENT.items()
             for r in recipients(site, kind, size * share // 100)]  # fmt: skip
    CHANCE.shuffle(found)
    return found


# what is measured


def taken(act: Callable[[], object]) -> float:
    """The seconds of CPU that something takes in this process."""
    began = time.process_time()
    act()
    return time.process_time() - began


def resident() -> int:
    """Bytes that this process has in memory."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def postfix(folder: Path, command: str, *arguments: str, keys: str = "/dev/null") -> float:
    """The seconds of CPU that a command of Postfix takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(keys, "rb") as stdin:
        done = subprocess.run(
            [command, "-c", folder, *arguments],
            stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if done.returncode not in (0, 1) or done.stderr:  # 1: a key was not found
        raise Failed(f"{command}: {done.stderr.decode(errors='replace').strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def database(folder: Path) -> str:
    """The kind of database that this Postfix makes. Raises Failed without a Postfix."""
    try:
        (folder / "main.cf").write_text("compatibility_level = 3.6\n")
        done = subprocess.run(["postconf", "-c", folder, "-m"], capture_output=True, text=True)
    except FileNotFoundError:
        raise Failed("no Postfix: apt-get install postfix, or --no-postfix") from None
    known = done.stdout.split()
    found = next((kind for kind in ("lmdb", "hash", "btree") if kind in known), None)
    if found is None:
        raise Failed("this Postfix makes neither lmdb nor hash nor btree")
    return found


COMMANDS = {"aliases": "postalias", "virtual": "postmap"}


def loading(router: Router, folder: Path, kind: str) -> None:
    """Print what the tables take until they can be asked."""
    print(f"\n  {'table':10} {'entries':>9} {'load, s':>9} {'bytes each':>11}  {kind or ''}")
    users: Any = router.tables.users[0]
    tables: dict[str, Table[Any]] = {Path(t.path).name: t for t in router.tables.aliases}
    total = 0.0
    for file_name, table in (*tables.items(), ("passwd", users.table)):
        before = resident()
        seconds = taken(table.load)
        grown, entries = resident() - before, lines(folder / file_name)
        total += seconds
        each = f"{grown / entries:11.0f}" if entries > EXPRESSIONS else f"{'':11}"
        theirs = ""
        if kind and file_name in COMMANDS:
            made = postfix(folder, COMMANDS[file_name], f"{kind}:{folder / file_name}")
            theirs = f"{made:.2f} s ({COMMANDS[file_name]})"
        print(f"  {file_name:10} {entries:9,} {seconds:9.2f} {each}  {theirs}", flush=True)
    print(f"  {'all':10} {'':9} {total:9.2f} {'':11}  (goal: below {GOALS['load']:g} s)")


def lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def rate(router: Router, addresses: Sequence[str]) -> float:
    """Addresses per second."""
    return len(addresses) / taken(lambda: [router.resolve(address) for address in addresses])


def resolving(router: Router, site: Site, rounds: int) -> None:
    """Print addresses per second."""
    print("\n  whole way       destinations  addresses/s")
    sets = {kind: partial(recipients, site, kind) for kind in RECIPIENT}
    for kind, made in (*sets.items(), ("mixed", partial(mixed, site))):
        found = median(rate(router, made(RECIPIENTS)) for _ in range(rounds))
        ends = [d for address in made(1000) for d in router.resolve(address)]
        check(kind, [d.kind for d in ends])
        goal = f"  (goal: {GOALS['rate']:,} or more)" if kind == "mixed" else ""
        print(f"  {kind:15} {len(ends) / 1000:12.1f} {found:12,.0f}{goal}", flush=True)


def check(kind: str, ends: Iterable[str]) -> None:
    """Raises Failed when recipients of a kind do not arrive where they should."""
    wanted = {"nobody": {"refused"}, "mixed": {"user", "refused"}}.get(kind, {"user"})
    if set(ends) != wanted:
        raise Failed(f"{kind}: is {set(ends)}, not {wanted}")


def look_up(table: AliasTable, keys: str) -> None:
    """What `postmap -q -` does."""
    with open(keys) as asked, open(os.devnull, "w") as out:
        for line in asked:
            key = line.rstrip("\n")
            found = table.find((key,), key)
            if found is not None:
                out.write(f"{key}\t{found.text}\n")


def looking_up(router: Router, site: Site, folder: Path, rounds: int, kind: str) -> None:
    """Print look-ups per second, here and by Postfix."""
    print(f"\n  {'look-ups/s':12} {'mdaflow':>10} {'Postfix':>10} {'ratio':>7}")
    keys = {
        "aliases": lambda n: alias(n % site.aliases),
        "virtual": lambda n: name(n % site.virtual),
        "regexp": lambda n: RECIPIENT["expression"][1](site, n),
    }
    for table in router.tables.aliases:
        file_name = Path(table.path).name
        asked = str(folder / f"{file_name}.keys")
        with open(asked, "w") as file:
            made, numbers = keys[file_name], (CHANCE.randrange(1_000_000) for _ in range(LOOKUPS))
            file.writelines(f"{made(number)}\n" for number in numbers)
        command = COMMANDS.get(file_name, "postmap")
        where = f"{kind if file_name in COMMANDS else 'regexp'}:{table.path}"
        pairs = [
            (
                LOOKUPS / taken(partial(look_up, table.get(), asked)),
                LOOKUPS / postfix(folder, command, "-q", "-", where, keys=asked),
            )
            for _ in range(rounds)
        ]
        ours, theirs = (median(column) for column in zip(*pairs, strict=True))
        ratio = median(our / their for our, their in pairs)
        about = f"  ({command} -q -, {where.partition(':')[0]})"
        print(f"  {file_name:12} {ours:10,.0f} {theirs:10,.0f} {ratio:7.2f}{about}", flush=True)


def measure(arguments: argparse.Namespace) -> None:
    inside = round(arguments.aliases * SHARE)
    site = Site(arguments.users, inside, arguments.aliases - inside - DOMAINS - EXPRESSIONS)
    print(f"Python {platform.python_version()}, {arguments.rounds} rounds, CPU time of one process")
    with tempfile.TemporaryDirectory(prefix="mdaflow-bench-") as new:
        folder = Path(new)
        write(site, folder)
        kind = "" if arguments.no_postfix else database(folder)
        router = open_site(loads(CONFIG.format(folder), "mdaflow.yaml"), MemoryStore()).router
        loading(router, folder, kind)
        resolving(router, site, arguments.rounds)
        if kind:
            looking_up(router, site, folder, arguments.rounds, kind)


def main() -> int:
    parser = argparse.ArgumentParser(description="what it costs to find where mail goes")
    parser.add_argument("--aliases", type=int, default=100_000, help="(default 100000)")
    parser.add_argument("--users", type=int, default=100_000, help="(default 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--no-postfix", action="store_true", help="without a peer")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or min(arguments.aliases, arguments.users) < 1000:
        parser.error("at least 1 round, 1000 aliases and 1000 users")
    return finished(partial(measure, arguments))


if __name__ == "__main__":
    sys.exit(main())
