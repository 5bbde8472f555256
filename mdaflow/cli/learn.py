"""`mdaflow learn`: learn what is spam and what is not.

Exit codes: 0; 66 if something could not be read; 67 for a user that is none; 75 if what was learned
cannot be kept.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import click

from mdaflow import Config, PermFail, TempFail, User, parse_mailbox, read_config
from mdaflow.app.caller import NOT_YOURS, user_of
from mdaflow.app.collection import STDIN, Found, collect, collect_aside, size_of
from mdaflow.app.deputies import run_all
from mdaflow.app.expire import listed, tasks
from mdaflow.app.learn import learn, own_counts, own_marks, site_counts, teacher
from mdaflow.app.log import escaped
from mdaflow.app.moved import learn_moved
from mdaflow.errors import INTERNAL

from . import EX_NOINPUT, EX_TEMPFAIL
from .common import as_deputy, config_option, say, site_of, step_down

if TYPE_CHECKING:
    from mdaflow.app.config import Spam
    from mdaflow.app.learn import Counts

CLASSES = {"spam": True, "ham": False}
AT_ONCE = 4
"""Mailboxes of accounts that are gone through at the same time."""
PAUSE = 10.0
"""Seconds between the passes of `--watch`."""
SITE = "site"

Do = Callable[[User | None], int]
"""Learns for a user, or for the site (None); the exit code."""


@click.command("learn")
@click.argument("words", metavar="[spam|ham] [PATH]...", nargs=-1)
@click.option("--forget", is_flag=True, help="Forget the messages, whatever they were learned as.")
@click.option("--site", "for_site", is_flag=True, help="For the site; as root without -u, too.")
@click.option(
    "-u", "names", multiple=True, metavar="USER", help="A user, by address or login; repeatable."
)
@click.option("--moved", is_flag=True, help="From what was moved to Junk, and from there.")
@click.option("--all", "everybody", is_flag=True, help="With --moved: all users.")
@click.option("--watch", is_flag=True, help="As --moved, again and again.")
@click.option("--junk", metavar="FOLDER", help="The spam folder; else that of the configuration.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each user.")
@config_option
def command(
    words: Sequence[str],
    forget: bool,
    for_site: bool,
    names: Sequence[str],
    moved: bool,
    everybody: bool,
    watch: bool,
    junk: str | None,
    as_json: bool,
    config: str | None,
) -> int:
    """Learn messages as spam or as ham, from files, Maildirs, mbox files, or `-`.

    A message counts once, as what it was learned last. For the caller, for the users that are
    named, or for the site.
    """
    settings = read_config(config)
    moved = moved or watch
    if moved and (words or forget or for_site):
        raise click.UsageError("--moved takes no messages, and is for users")
    if everybody and not moved:
        raise click.UsageError("--all is for --moved")
    if moved and not (names or everybody) and os.geteuid() == 0:  # who has no mail
        raise click.UsageError("say -u USER or --all")
    if moved:
        do: Do = partial(_moved, spam=settings.spam, junk=junk, as_json=as_json)
        return _watched(lambda: _for_users(settings, names, everybody, do), again=watch)
    kind, paths = _asked(words, forget)
    do = partial(_learn, settings, kind, paths, as_json=as_json)
    if os.geteuid() == 0 and (for_site or not names):
        found = collect_aside(paths)
        step_down(settings)
        return _learn(settings, kind, paths, None, as_json=as_json, found=found)
    return do(None) if for_site else _for_users(settings, names, False, do)


def _asked(words: Sequence[str], forget: bool) -> tuple[str, Sequence[str]]:
    """The class, empty to forget, and the paths."""
    kind, paths = ("", words) if forget else (words[0] if words else "", words[1:])
    if kind not in (*CLASSES, "" if forget else None):
        raise click.UsageError("say what it is: mdaflow learn spam PATH, or mdaflow learn ham PATH")
    if not paths:
        raise click.UsageError("name files, Maildirs or mbox files; - is standard input")
    return kind, paths


def _watched(act: Callable[[], int], *, again: bool) -> int:
    code = act()
    while again:
        time.sleep(PAUSE)
        code = act()
    return code


def _for_users(settings: Config, names: Sequence[str], everybody: bool, do: Do) -> int:
    """Learn for users: as root as whose mail it is, else as who calls."""
    as_root = os.geteuid() == 0 and (settings.has_accounts or settings.has_uids)
    if not as_root:
        step_down(settings)
    here = site_of(settings, kept=False)
    named: Sequence[str | None] = names or ([] if everybody else [None])
    users = [user_of(here, name) for name in named]
    if not as_root and everybody and settings.has_accounts:
        raise PermFail(NOT_YOURS, "the mail of accounts is gone through by root, as each of them")
    if not as_root:
        return _go(chain(users, listed(here.users if everybody else ())), do)
    code = 0
    deputed = (
        task._replace(act=partial(as_deputy, task.act))
        for task in tasks(here, users, partial(_go, do=do), everybody=everybody, only="")
    )
    for name, ended in run_all(deputed, most=AT_ONCE):
        if ended < 0:
            say(escaped(f"mdaflow: {name}: not done in time, or killed"), err=True)
        code = max(code, ended if ended >= 0 else EX_TEMPFAIL)
    return code


def _go(users: Iterable[User], do: Do) -> int:
    return max(map(do, users), default=0)


def _learn(
    settings: Config,
    kind: str,
    paths: Sequence[str],
    user: User | None,
    *,
    as_json: bool,
    found: Iterable[Found] | None = None,
) -> int:
    """Learn for a user, or for the site, what is `found`, else what we find; the exit code."""
    found = collect(paths) if found is None else found
    done: Counter[str] = Counter()
    with _kept(user), closing(_counts(settings, user)) as counts, _progress(paths, as_json) as step:
        teach = teacher(settings) if user is None else None
        for one in learn(counts, found, CLASSES.get(kind), teach):
            step(one.bytes)
            done["learned" if one.new else "unread" if one.trouble else "known"] += 1
            if one.trouble:
                say(escaped(f"mdaflow: {one.path}: {one.trouble}"), err=True)
    who = user.address if user else SITE
    counted = {what: done[what] for what in ("learned", "known", "unread")}
    if as_json:
        click.echo(json.dumps({"user": who, "as": kind or "forgotten", **counted}))
    else:
        how = f"learned as {kind}" if kind else "forgotten"
        same = "known already" if kind else "not known"
        trouble = f", {done['unread']} not read" if done["unread"] else ""
        say(escaped(f"{who}: {done['learned']} {how}, {done['known']} {same}{trouble}"))
    return EX_NOINPUT if done["unread"] else 0


def _counts(settings: Config, user: User | None) -> Counts:
    if user is None:
        return site_counts(settings, patient=True)
    return own_counts(user.home, patient=True)


def _moved(user: User | None, *, spam: Spam, junk: str | None, as_json: bool) -> int:
    """Learn from what a user moved; the exit code."""
    assert user is not None
    done = Counter({"spam": 0, "ham": 0})
    try:
        with _kept(user), closing(own_counts(user.home, patient=True)) as counts:
            mailbox, marks = parse_mailbox(user.mailbox, user.home), own_marks(user.home)
            where, now = junk or spam.junk[0], time.time()
            for bad, one in learn_moved(mailbox, counts, marks, where, now, spam.trash):
                done["spam" if bad else "ham"] += one.new
    except Exception as error:  # one mailbox does not stop the others, whatever is in it
        who = "" if isinstance(error, TempFail) else f"{user.address}: "
        say(escaped(f"mdaflow: {who}{str(error) or type(error).__name__}"), err=True)
        return EX_TEMPFAIL
    if as_json:
        click.echo(json.dumps({"user": user.address, **done}))
    elif done.total():
        say(escaped(f"{user.address}: {done['spam']} learned as spam, {done['ham']} as ham"))
    return 0


@contextmanager
def _kept(user: User | None) -> Iterator[None]:
    """Whatever the system refuses may work later."""
    try:
        yield
    except OSError as error:
        who = f"{user.address}: " if user else ""
        raise TempFail(INTERNAL, f"{who}{error}") from error


@contextmanager
def _progress(paths: Sequence[str], as_json: bool) -> Iterator[Callable[[int], None]]:
    """What takes the bytes that were read, and shows them on a terminal."""
    if as_json or STDIN in paths or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=size_of(paths) or 1, label="learning", file=sys.stderr) as bar:
        yield bar.update
