"""`mdaflow learn`, as a user, an administrator or cron calls it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from need import need
from test_commands import PROGRAM, Home, home, unprivileged  # noqa: F401 - fixtures

from mdaflow.app import collection
from mdaflow.app.collection import Found, collect, collect_aside
from mdaflow.app.learn import own_marks


def mail(n: int, body: str = "Buy cheap pills") -> bytes:
    return f"From: a{n}@example.net\nSubject: Offer {n}\n\n{body} {n}\n".encode()


@pytest.fixture
def box(unprivileged: Home) -> Home:  # noqa: F811
    """Two messages as files, three in a Maildir, two in an mbox."""
    for n in (1, 2):
        unprivileged.write(f"files/{n}.eml", mail(n))
    for n, place in ((3, "cur/3:2,S"), (4, "new/4"), (5, ".Junk/cur/5:2,"), (6, "tmp/6")):
        unprivileged.write(f"box/{place}", mail(n))
    unprivileged.write("box/dovecot.index", b"\0binary")
    one = b"From a Thu Jan  1 00:00:00 1970\n"
    unprivileged.write("mbox", one + mail(7) + b"\n" + one + mail(8) + b"\n")
    return unprivileged


def learn(home: Home, *arguments: str, stdin: bytes = b"") -> dict[str, object]:  # noqa: F811
    """What it says of one user."""
    done = home.call("learn", *arguments, "--json", "--config", home.config(), stdin=stdin)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def totals(file: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:  # it makes no file
        spam, ham = db.execute("SELECT spam, ham FROM state").fetchone()
        return spam, ham


@pytest.mark.parametrize(("place", "number"), [("files", 2), ("box", 3), ("mbox", 2)])
def test_places(box: Home, place: str, number: int) -> None:
    """Messages are learned from files, from a Maildir with its folders, and from an mbox."""
    said = learn(box, "spam", str(box.path / place))
    assert (said["as"], said["learned"], said["known"], said["unread"]) == ("spam", number, 0, 0)
    assert totals(box.path / ".mdaflow/bayes.sqlite") == (number, 0)


def test_again(box: Home) -> None:
    """To learn twice changes nothing, another class moves a message, and it can be forgotten."""
    paths = [str(box.path / place) for place in ("files", "box", "mbox")]
    file = box.path / ".mdaflow/bayes.sqlite"
    learn(box, "spam", *paths)
    said = learn(box, "spam", *paths)
    assert (said["learned"], said["known"]) == (0, 7)
    assert learn(box, "ham", paths[0])["learned"] == 2
    assert totals(file) == (5, 2)
    assert learn(box, "--forget", *paths)["learned"] == 7
    assert totals(file) == (0, 0)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT COUNT(*) FROM tokens").fetchone() == (0,)


def test_standard_input(box: Home) -> None:
    """`-` is a message or an mbox."""
    assert learn(box, "ham", "-", stdin=mail(1))["learned"] == 1
    assert learn(box, "ham", "-", stdin=(box.path / "mbox").read_bytes())["learned"] == 2
    assert learn(box, "ham", str(box.path / "mbox"))["known"] == 2


def test_in_words(box: Home) -> None:
    """Without --json it is one line."""
    done = box.call("learn", "ham", str(box.path / "files"), "--config", box.config())
    name = box.user.pw_name
    assert done.stdout.decode() == f"{name}@mx.example.org: 2 learned as ham, 0 known already\n"
    assert done.stderr == b""


def test_site(box: Home) -> None:
    """What the site learns is in the folder for its state."""
    said = learn(box, "spam", "--site", str(box.path / "files"))
    assert (said["user"], said["learned"]) == ("site", 2)
    assert totals(box.path / "state/bayes.sqlite") == (2, 0)
    assert not (box.path / ".mdaflow").exists()


def test_user(box: Home) -> None:
    """What a user of the site learns is in the home of that user."""
    said = learn(box, "spam", "-u", "bob+x@example.org", str(box.path / "files"))
    assert said["user"] == "bob@example.org"
    assert totals(box.path / "mail/example.org/bob/.mdaflow/bayes.sqlite") == (2, 0)


@pytest.mark.parametrize(
    "arguments",
    [(), ("spam",), ("junk", "x"), ("--forget",), ("--moved", "spam", "x"), ("spam", "--all", "x")],
)
def test_usage(box: Home, arguments: tuple[str, ...]) -> None:
    """What makes no sense is refused."""
    done = box.call("learn", *arguments, "--config", box.config())
    assert done.returncode == 64, done.stderr
    assert not (box.path / ".mdaflow").exists()


def test_not_there(box: Home) -> None:
    """What cannot be read is told, and all else is learned."""
    paths = str(box.path / "nothing"), str(box.path / "files")
    done = box.call("learn", "spam", *paths, "--config", box.config())
    assert done.returncode == 66
    assert b"nothing: No such file" in done.stderr
    assert b" 2 learned as spam, 0 known already, 1 not read" in done.stdout


def test_no_home(box: Home) -> None:
    """A home that is not there is not made: its disk may not be mounted."""
    config = box.config()
    (box.path / "mail/example.org/bob").rmdir()
    done = box.call("learn", "spam", "-u", "bob@example.org", "--config", config, str(box.mail))
    assert done.returncode in (67, 75)
    assert not (box.path / "mail/example.org/bob").exists()


def test_hostile_folder(box: Home) -> None:
    """A FIFO, a link, a device, binary files and a huge one in a Maildir hold nobody up."""
    cur = box.path / "box/cur"
    os.mkfifo(cur / "fifo")
    (cur / "link").symlink_to("/etc/passwd")
    (cur / "loop").symlink_to(box.path)
    (cur / "binary").write_bytes(bytes(range(256)) * 100)
    (cur / "empty").touch()
    (cur / "\udcff\n").write_bytes(mail(9))
    with open(cur / "huge", "wb") as file:
        file.write(mail(10))
        file.truncate(1 << 30)
    done = box.call("learn", "spam", str(box.path / "box"), "--config", box.config())
    assert done.returncode == 66
    assert b" 5 learned as spam, 0 known already, 5 not read" in done.stdout
    told = [line.rpartition(b": ")[2] for line in done.stderr.splitlines()]
    assert sorted(told) == [
        *(b"Not a message",) * 2,
        b"Not a regular file",
        *(b"Too many levels of symbolic links",) * 2,
    ]


def test_collect_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a message in an mbox no more is kept than of a file."""
    monkeypatch.setattr(collection, "MAX_MESSAGE", 1000)
    path = tmp_path / "mbox"
    path.write_bytes(b"From a\nA: b\n\n" + b"x" * 500_000 + b"\n\nFrom b\nC: d\n\nhi\n")
    found = list(collect([str(path)]))
    assert sum(one.bytes for one in found) == path.stat().st_size
    assert [one.message.size < 70_000 for one in found if one.message] == [True, True]


def test_reader_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose files root reads can kill who reads them: that is not the end of the messages."""

    def collected(paths: object) -> Iterator[Found]:
        yield Found("one", None, 0, "unread")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(collection, "collect", collected)
    found = collect_aside([])
    with pytest.raises(OSError, match="broken off"):
        list(found)


def test_gone_meanwhile(tmp_path: Path) -> None:
    """A message that its user reads or deletes while we look is none."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(mail(1))
    found: Iterator[Found] = collect([str(tmp_path)])
    next(found)
    (tmp_path / "b").unlink()
    assert list(found) == []


@pytest.fixture
def junk(unprivileged: Home) -> Home:  # noqa: F811
    """A Maildir in which two messages lie in Junk: one was moved there, one was delivered."""
    base = "Maildir"
    unprivileged.write(f"{base}/.Junk/cur/1:2,S", mail(1))
    unprivileged.write(f"{base}/.Junk/new/2", b"X-Spam-Flag: YES\n" + mail(2))
    unprivileged.write(f"{base}/cur/3:2,S", mail(3))
    for folder in ("new", ".Archive/cur", ".Trash/cur"):
        (unprivileged.path / base / folder).mkdir(parents=True)
    return unprivileged


def moved(home: Home) -> tuple[object, object]:  # noqa: F811
    said = learn(home, "--moved")
    return said["spam"], said["ham"]


def test_moved(junk: Home) -> None:
    """What a user moves to Junk is spam, what is moved out of it to be kept is ham."""
    maildir = junk.path / "Maildir"
    assert moved(junk) == (1, 0)
    assert moved(junk) == (0, 0)
    (maildir / ".Junk/new/2").rename(maildir / ".Archive/cur/2:2,S")
    (maildir / ".Junk/cur/1:2,S").rename(maildir / ".Trash/cur/1:2,S")
    (maildir / "cur/3:2,S").rename(maildir / ".Junk/cur/3:2,S")
    assert moved(junk) == (1, 1)
    assert totals(junk.path / ".mdaflow/bayes.sqlite") == (2, 1)
    (maildir / ".Archive/cur/2:2,S").rename(maildir / ".Junk/cur/2:2,S")
    (maildir / ".Junk/cur/3:2,S").rename(maildir / "cur/3:2,S")
    assert moved(junk) == (1, 1)
    assert totals(junk.path / ".mdaflow/bayes.sqlite") == (2, 1)


def test_trash_with_another_name(junk: Home) -> None:
    """What is deleted is no ham, whatever the language of the mail program."""
    maildir = junk.path / "Maildir"
    config = junk.config(spam={"trash": ["Papierkorb", "Gelöschte Elemente"]})
    for name in (".Papierkorb", ".Gel&APY-schte Elemente"):
        (maildir / name / "cur").mkdir(parents=True)
    for found in (b"1 learned as spam, 0 as ham", b""):
        done = junk.call("learn", "--moved", "--config", config)
        assert (done.returncode, found in done.stdout) == (0, True), done
        for old, new in (("new/2", ".Papierkorb"), ("cur/1:2,S", ".Gel&APY-schte Elemente")):
            if (maildir / ".Junk" / old).exists():
                (maildir / ".Junk" / old).rename(maildir / new / "cur/1:2,S")
    assert totals(junk.path / ".mdaflow/bayes.sqlite") == (1, 0)


def test_other_folder_for_spam(junk: Home) -> None:
    """What stays where it was is not moved out of Junk because Junk has another name now."""
    assert moved(junk) == (1, 0)
    maildir = junk.path / "Maildir"
    (maildir / ".Junk/new/2").rename(maildir / ".Junk/cur/2:2,S")  # it was looked at
    said = learn(junk, "--moved", "--junk", "Spam")
    assert (said["spam"], said["ham"]) == (0, 0)
    (maildir / ".Junk/cur/2:2,S").rename(maildir / "cur/2:2,S")
    said = learn(junk, "--moved", "--junk", "Spam")
    assert (said["spam"], said["ham"]) == (0, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_moved_as_root(junk: Home) -> None:
    """Root has no mail, and has to say whose."""
    call = [PROGRAM, "learn", "--moved", "--config", junk.config()]
    for path in (junk.path, *junk.path.rglob("*")):
        os.lchown(path, 0, 0)
    done = subprocess.run(call, capture_output=True, check=False)
    assert done.returncode == 64
    assert b"say -u USER or --all" in done.stderr


def test_moved_all(junk: Home) -> None:
    """All users of the site are gone through; one whose mailbox is broken stops nobody."""
    for name in ("ann", "eve"):
        for n in (1, 2):
            junk.write(f"mail/example.org/{name}/Maildir/.Junk/cur/{n}", mail(n))
    junk.write("mail/example.org/cid/.mdaflow", "no folder")
    (junk.path / "mail/example.org/bob").mkdir()
    with closing(own_marks(str(junk.path / "mail/example.org/bob"))) as marks:
        marks.put("moved pass", "no time")
    done = junk.call("learn", "--moved", "--all", "--config", junk.config())
    assert done.returncode == 75
    assert sorted(done.stdout.decode().splitlines()) == [
        f"{name}@example.org: 2 learned as spam, 0 as ham" for name in ("ann", "eve")
    ]
    assert b"no folder of ours" in done.stderr
    assert b"bob@example.org: could not convert" in done.stderr


def running(home: Home, *arguments: str) -> subprocess.Popen[bytes]:  # noqa: F811
    home.call("--version")  # all is theirs now
    user = {"user": home.user.pw_uid, "group": home.user.pw_gid} if os.geteuid() == 0 else {}
    environment = {"HOME": str(home.path), "PATH": os.environ["PATH"]}
    return subprocess.Popen([PROGRAM, *arguments], env=environment, cwd="/", **user)  # type: ignore[call-overload,no-any-return]


def wait_for(file: Path, at_least: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if file.exists():
            try:
                if sum(totals(file)) >= at_least:
                    return
            except (sqlite3.Error, TypeError):  # it is being made
                pass
        time.sleep(0.01)
    pytest.fail("nothing was learned")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted(unprivileged: Home, how: signal.Signals) -> None:  # noqa: F811
    """Whoever is stopped has learned whole messages, and the next call learns the rest."""
    for n in range(1500):
        unprivileged.write(f"many/{n}", mail(n, f"pills x{n}y " * 50))
    arguments = "learn", "spam", str(unprivileged.path / "many"), "--config", unprivileged.config()
    file = unprivileged.path / ".mdaflow/bayes.sqlite"
    with running(unprivileged, *arguments) as process:
        wait_for(file, 1)
        process.send_signal(how)
    learned, _ = totals(file)
    assert 0 < learned <= 1500
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT MAX(spam) FROM tokens").fetchone() == (learned,)
        assert db.execute("SELECT COUNT(*) FROM names").fetchone() == (learned,)
    said = learn(unprivileged, "spam", str(unprivileged.path / "many"))
    assert (said["known"], said["learned"]) == (learned, 1500 - learned)


def test_two_at_once(unprivileged: Home) -> None:  # noqa: F811
    """Two that learn the same at once count each message once."""
    for n in range(300):
        unprivileged.write(f"many/{n}", mail(n))
    arguments = "learn", "spam", str(unprivileged.path / "many"), "--config", unprivileged.config()
    with running(unprivileged, *arguments) as one, running(unprivileged, *arguments) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    assert totals(unprivileged.path / ".mdaflow/bayes.sqlite") == (300, 0)


def test_watch(junk: Home) -> None:
    """It goes on until it is stopped."""
    with running(junk, "learn", "--watch", "--config", junk.config()) as process:
        wait_for(junk.path / ".mdaflow/bayes.sqlite", 1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert totals(junk.path / ".mdaflow/bayes.sqlite") == (1, 0)


def test_disk_full(unprivileged: Home, tmp_path: Path) -> None:  # noqa: F811
    """On a full disk it can be tried again, and what was learned stays whole."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    state = unprivileged.path / "state"
    state.mkdir()
    mount = [need("mount"), "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(state)]
    done = subprocess.run(mount, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        learn(unprivileged, "spam", "--site", unprivileged.write("a", mail(0)))
        for n in range(400):
            words = " ".join(f"w{chr(97 + k % 26)}{chr(97 + k // 26)}{n:x}z" for k in range(400))
            unprivileged.write(
                f"many/{n}", mail(n, words.translate({48 + i: 107 + i for i in range(10)}))
            )
        many, config = str(unprivileged.path / "many"), unprivileged.config()
        done_b = unprivileged.call("learn", "spam", "--site", many, "--config", config)
        assert done_b.returncode == 75, done_b.stderr
        assert b"full" in done_b.stderr
        learned, _ = totals(state / "bayes.sqlite")
        with closing(sqlite3.connect(state / "bayes.sqlite")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT COUNT(*) FROM names").fetchone() == (learned,)
    finally:
        subprocess.run([need("umount"), str(state)], check=True)


def test_others_do_not_pay() -> None:
    """Who does not learn does not pay for it."""
    code = "import sys, mdaflow.cli.test; print('mdaflow.scan.bayes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
