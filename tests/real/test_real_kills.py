"""Killed workers, restarts and reloads under mail, here of a real Postfix: nothing is lost."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from mdaflow_server import Mdaflow, new_root
from need import need
from postfix import Postfix
from storm import (
    WORKERS,
    Clients,
    Found,
    Mails,
    by_lmtp,
    by_smtp,
    cycles,
    in_the_storm,
    kill_workers,
    look,
    new_mails,
    refusals,
    sent_in_doubt,
    stored,
)

SEED = random.randrange(2**32)
KILLED, CHANGED = 1000, 200
"""Messages."""
MOST_KILLS = 16
LEAST_ROUNDS = 3
STOPS, KILLS = 20, 30
SESSIONS = 6


@pytest.fixture
def servers() -> Iterator[tuple[Mdaflow, Postfix]]:
    """An mdaflow behind a Postfix, without other mail. As root, `user:` is nobody."""
    if os.geteuid() != 0:
        pytest.skip("needs root: Postfix does")
    need("postfix")
    root = new_root()
    with ExitStack() as stack:
        mdaflow, postfix = in_the_storm(root)
        stack.callback(mdaflow.close)
        for server in (mdaflow, postfix):
            stack.callback(server.stop)
            server.start()
        yield mdaflow, postfix


def delivered(mdaflow: Mdaflow, postfix: Postfix, mails: Mails, count: int) -> Found:
    """What is there when the queue is empty: nobody was refused, and all is there, whole."""
    postfix.settle()
    found = look(mails)
    assert found.lost(range(count)) == set()
    assert found.broken == []
    assert refusals(mdaflow, mails, postfix) == []
    return found


def test_killed_workers(servers: tuple[Mdaflow, Postfix]) -> None:
    """With workers killed again and again, all mail arrives whole; twice only what Postfix had to
    send again, because it lost the connection after the final dot."""
    mdaflow, postfix = servers
    print("seed", SEED)
    mails = new_mails(mdaflow, SEED)
    clients = Clients(mails, by_smtp(postfix.port))
    with clients.sending(range(KILLED), SESSIONS):
        kills = kill_workers(
            mdaflow,
            random.Random(SEED),
            lambda: not clients.done or stored(mails) < KILLED * 0.9,
            MOST_KILLS,
        )
    found = delivered(mdaflow, postfix, mails, KILLED)
    doubt = sent_in_doubt(postfix.log.read_text())
    print(f"{kills} kills, {doubt.total()} in doubt, {found.doubled.total()} twice")
    # A worker that is killed takes with it the replies to what it has just stored: to one message
    # for each of its connections. Of each of them Postfix says so in its log.
    assert kills
    assert found.doubled <= doubt
    assert found.writers.isdisjoint({0, *mdaflow.workers()})
    mdaflow.stop()
    assert not mdaflow.socket.exists()


def test_changed_again_and_again(servers: tuple[Mdaflow, Postfix]) -> None:
    """With restarts and reloads in turn, all mail arrives once."""
    mdaflow, postfix = servers
    print("seed", SEED)
    mails = new_mails(mdaflow, SEED)
    dice = random.Random(SEED)
    clients = Clients(mails, by_smtp(postfix.port))
    rounds = 0
    with clients.sending(range(CHANGED), SESSIONS):
        while not clients.done or stored(mails) < CHANGED or rounds < LEAST_ROUNDS:
            mdaflow.reload()
            time.sleep(dice.uniform(0, 0.2))
            mdaflow.stop()
            mdaflow.start()
            postfix.flush()
            rounds += 1
    found = delivered(mdaflow, postfix, mails, CHANGED)
    assert found.doubled.total() == 0
    assert found.leftovers == []


@pytest.mark.parametrize(("end", "count"), [(Mdaflow.stop, STOPS), (Mdaflow.kill, KILLS)])
def test_ended_under_load(end: Callable[[Mdaflow], None], count: int) -> None:
    """With ends of the whole server again and again, all that was acknowledged is there, whole; and
    if it ends by SIGTERM all is there once."""
    print("seed", SEED)
    root = new_root()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        mdaflow = Mdaflow(root / "site", root / "lmtp", WORKERS)
        stack.callback(mdaflow.stop)
        mails = new_mails(mdaflow, SEED)
        told: dict[str, Counter[int]] = {"sent": Counter(), "taken": Counter()}
        clients = Clients(
            mails, by_lmtp(mdaflow.socket), lambda word, number: told[word].update([number])
        )
        with clients.sending(itertools.count(), SESSIONS):
            for _ in cycles(mdaflow, random.Random(SEED), count, end):
                pass
        mdaflow.stop()
        mdaflow.check_log()
        found = look(mails)
        doubt = told["sent"] - told["taken"] if end is Mdaflow.kill else Counter[int]()
        assert len(told["taken"]) > 100 * count
        assert found.lost(told["taken"]) == set()
        assert found.doubled <= doubt
        assert found.broken == refusals(mdaflow, mails) == []
        assert found.leftovers == [] or end is Mdaflow.kill
