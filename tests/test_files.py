"""Which files of users and of the site are read, and what is kept of them."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mdaflow import files
from mdaflow.app import lists
from mdaflow.app.lists import ListFiles, parse_list
from mdaflow.errors import TempFail
from mdaflow.files import Cache, Made, Reading, Unsafe, version_of

Spoil = Callable[[Path], object]
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root to give a file away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder of a user's home."""
    path = tmp_path / "home/folder/rules"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    path.chmod(0o600)
    return path


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


def remade(make: Callable[[Path], object]) -> Spoil:
    """Something else in place of the file."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


def symbolic_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("other"))


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, chdir(path.parent):
        sock.bind(path.name)  # a whole path may be too long


class chdir:
    """`with chdir(folder):`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = Path.cwd()
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


def linked_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("real"))
    path.parent.symlink_to("real")


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("needs the right to make devices")


ANYBODYS: dict[str, tuple[Spoil, str]] = {
    "symbolic link": (symbolic_link, "not a regular file"),
    "dangling link": (remade(lambda path: path.symlink_to("none")), "not a regular file"),
    "link to itself": (remade(lambda path: path.symlink_to(path.name)), "not a regular file"),
    "hard link": (hard_link, "has more than one link"),
    "FIFO": (remade(os.mkfifo), "not a regular file"),
    "folder": (remade(os.mkdir), "not a regular file"),
    "socket": (remade(bind), "not a regular file"),
    "device": (remade(device), "not a regular file"),
    "group may write": (lambda path: path.chmod(0o620), "writable by others"),
    "all may write": (lambda path: path.chmod(0o602), "writable by others"),
    "link to the folder": (linked_folder, "in a folder that is a symbolic link"),
    "open folder": (lambda path: path.parent.chmod(0o707), "in a folder that others can write"),
    "open home": (lambda path: path.parent.parent.chmod(0o707), "in a folder that others can wri"),
}
GIVEN_AWAY: dict[str, tuple[Spoil, str]] = {
    "file": (lambda path: os.chown(path, 4711, 0), "owned by somebody else"),
    "folder": (lambda path: os.chown(path.parent, 4711, 0), "in a folder of somebody else"),
}


@pytest.mark.parametrize("name", ANYBODYS)
def test_unsafe_file_of_a_user(
    name: str, file: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody else could have written, or that is none, does not count (P27)."""
    monkeypatch.setattr(files, "_is_private", lambda gid, uid: False)
    spoil, reason = ANYBODYS[name]
    spoil(file)
    with pytest.raises(Unsafe, match=reason):
        Reading(100, home=home)(str(file))


GROUPS = {
    "own": ("bob", [], 0, True),
    "own, with its owner": ("bob", ["bob"], 0, True),
    "with another member": ("bob", ["ann"], 0, False),
    "of another name": ("users", [], 0, False),
    "not the first one": ("bob", [], 1, False),
}
"""Name, members, how far its gid is from that of the file's owner, and whether it may write."""


@pytest.mark.parametrize("which", GROUPS)
def test_private_group(which: str, file: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group may write to a file when nobody but the owner of the file is in it."""
    name, members, away, private = GROUPS[which]
    gid = file.stat().st_gid
    bob = pwd.struct_passwd(("bob", "x", 1, gid + away, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: bob)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "", gid, members)))
    file.chmod(0o660)
    try:
        found = Reading(100, home=home)(str(file))
    except Unsafe:
        found = b""
    assert found == (b"x" if private else b"")


@needs_root
@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_file_of_another_user(name: str, file: Path, home: str) -> None:
    """Nor does one that belongs, or whose folder belongs, to somebody else."""
    spoil, reason = GIVEN_AWAY[name]
    spoil(file)
    with pytest.raises(Unsafe, match=reason):
        Reading(100, home=home)(str(file))


@needs_root
def test_file_of_the_owner(file: Path, home: str) -> None:
    """What belongs to the owner of the home, to root or to us is the user's."""
    os.chown(home, 4711, 0)
    for owner in (4711, 0):
        os.chown(file, owner, 0)
        os.chown(file.parent, owner, 0)
        assert Reading(100, home=home)(str(file)) == b"x"


def test_home_may_be_a_link(file: Path, tmp_path: Path) -> None:
    """The way to the home is the site's: it may lead through links."""
    (tmp_path / "link").symlink_to("home")
    path = f"{tmp_path}/link/folder/rules"
    assert Reading(100, home=f"{tmp_path}/link")(path) == b"x"


def test_sticky_folder(file: Path, home: str) -> None:
    """In a folder as /tmp nobody replaces the file of another."""
    file.parent.chmod(0o1777)
    assert Reading(100, home=home)(str(file)) == Reading(100)(str(file)) == b"x"


def test_linked_folder_on_the_way(file: Path, home: str) -> None:
    """No folder between the home and the file is a link, wherever it leads."""
    below = file.parent / "below"
    below.mkdir()
    (below / "x").write_text("x")
    (file.parent / "link").symlink_to("below")
    assert Reading(100, home=home)(f"{below}/x") == b"x"
    with pytest.raises(Unsafe):
        Reading(100, home=home)(f"{file.parent}/link/x")
    with pytest.raises(Unsafe):
        Reading(100, home=home)(f"{file.parent}/link/none")


def test_what_is_no_file_is_not_opened(
    file: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a device or a FIFO may do something: it is looked at first."""
    file.unlink()
    os.mkfifo(file)
    opened: list[str] = []
    real = os.open

    def note(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", note)
    for reading in (Reading(100, home=home), Reading(100), Reading(100, trusting=True)):
        with pytest.raises(Unsafe):
            reading(str(file))
    assert opened == [home, "folder"]


def test_limit(file: Path, home: str) -> None:
    """No more is read than whoever refuses it needs to see."""
    file.write_bytes(b"x" * 1000)
    for reading in (Reading(100, home=home), Reading(100)):
        assert len(reading(str(file))) == 101


FAULTS = {"open": (13, 5, 24, 12, 116, 40), "read": (5, 116), "stat": (5, 116, 13)}


@pytest.mark.parametrize(("call", "number"), [(c, n) for c, codes in FAULTS.items() for n in codes])
def test_what_may_go_away(
    call: str, number: int, file: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user has not to mend is a temporary failure; for the site it is what it is."""
    error = OSError(number, os.strerror(number))

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(*(("builtins.open", fail) if call == "read" else (os, call, fail)))
    mends = number in (13, 40)  # EACCES, ELOOP
    with pytest.raises(OSError if mends else TempFail):
        Reading(100, home=home)(str(file))
    with pytest.raises(OSError, match=error.strerror):
        Reading(100)(str(file))


OF_THE_SITE: dict[str, tuple[Spoil, str]] = {
    "group may write": (lambda path: path.chmod(0o664), "writable by others"),
    "all may write": (lambda path: path.chmod(0o646), "writable by others"),
    "group may write to the folder": (lambda path: path.parent.chmod(0o770), "in a folder that"),
    "all may write to the folder": (lambda path: path.parent.chmod(0o707), "in a folder that"),
    "FIFO": (remade(os.mkfifo), "not a regular file"),
    "link to a device": (remade(lambda path: path.symlink_to("/dev/null")), "not a regular file"),
}


@pytest.mark.parametrize("name", OF_THE_SITE)
def test_unsafe_file_of_the_site(name: str, file: Path) -> None:
    """What others can write to is no file of the site (P52)."""
    spoil, reason = OF_THE_SITE[name]
    spoil(file)
    with pytest.raises(Unsafe, match=reason):
        Reading(100)(str(file))


@needs_root
@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_file_of_the_site_that_is_not_roots(name: str, file: Path) -> None:
    """What belongs to somebody else is none either."""
    spoil, reason = GIVEN_AWAY[name]
    spoil(file)
    with pytest.raises(Unsafe, match=reason):
        Reading(100)(str(file))


def test_link_of_the_site(file: Path) -> None:
    """A file of the site may be a link: the file counts that it leads to."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert Reading(100)(str(link)) == b"x"
    file.chmod(0o666)
    with pytest.raises(Unsafe):
        Reading(100)(str(link))
    assert Reading(100, trusting=True)(str(link)) == b"x"


# versions


def content(path: Path) -> None:
    """Other content of the same size and time."""
    about = path.stat()
    time.sleep(0.02)  # the clock of a file system is slow
    path.write_text("y")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def replaced(path: Path) -> None:
    """As an editor does it."""
    new = path.with_name("new")
    new.write_text("x")
    new.replace(path)


CHANGES: dict[str, Spoil] = {
    "content": content,
    "mode": lambda path: path.chmod(0o640),
    "second link": hard_link,
    "replaced": replaced,
    "gone": lambda path: path.unlink(),
    "link": symbolic_link,
    "mode of the folder": lambda path: path.parent.chmod(0o707),
    "link to the folder": linked_folder,
}


@pytest.mark.parametrize("name", CHANGES)
def test_change(name: str, file: Path, home: str) -> None:
    """Whatever changes what is read, or whether it is safe, is seen."""
    reading = Reading(100, home=home)
    reading(str(file))
    made = Made("x", reading.versions, 1)
    assert made.is_current
    (file.parent / "log").write_text("a file beside it is none of it")
    assert made.is_current
    CHANGES[name](file)
    assert not made.is_current


def test_change_behind_a_link(file: Path) -> None:
    """Of a link the file is looked at that it leads to."""
    link = file.with_name("link")
    link.symlink_to("rules")
    before = version_of(str(link))
    content(file)
    assert version_of(str(link)) != before
    link.unlink()
    link.symlink_to("link")
    loop = version_of(str(link))
    link.unlink()
    assert version_of(str(link)) not in (loop, before)


def test_cannot_be_looked_at(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at may have changed."""
    made = Made("x", {str(file): version_of(str(file))}, 1)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "lstat", fail)
    assert not made.is_current


# what is kept


def made(value: str, size: int = 1) -> Callable[[], Made[str]]:
    return lambda: Made(value, {}, size)


def refuse() -> Made[str]:
    raise AssertionError("made twice")


def test_bounds() -> None:
    """So many are kept, the last used ones, of so many bytes together."""
    cache: Cache[str] = Cache(3, 100)
    for name in ("a", "b", "c"):
        cache.get(name, made(name))
    assert cache.get("a", refuse) == "a"
    cache.get("d", made("d"))
    assert [cache.get(name, made(f"new {name}")) for name in ("a", "d", "b")] == ["a", "d", "new b"]
    cache.get("e", made("e", 99))
    assert cache.get("b", refuse) == "new b"
    cache.get("f", made("f", 1000))  # alone it may be larger
    assert cache.get("f", refuse) == "f"
    cache.get("g", made("g"))
    assert cache.get("f", made("new f")) == "new f"


def test_size_of_what_changes(file: Path) -> None:
    """What is made anew takes the place of what there was."""
    cache: Cache[str] = Cache(100, 100)

    def make() -> Made[str]:
        return Made("x", {str(file): version_of(str(file))}, 40)

    cache.get("b", made("b", 40))
    for number in range(10):
        file.write_text("x" * number)
        cache.get("a", make)
    assert cache.get("b", refuse) == "b"


def test_made_once_for_all() -> None:
    """Many threads that want the same wait for the one that makes it."""
    cache: Cache[str] = Cache(9, 9)
    begun, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def slowly() -> Made[str]:
        calls.append(1)
        begun.set()
        assert go.wait(30)
        return Made("x", {}, 1)

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, "a", slowly)
        assert begun.wait(30)
        others = [pool.submit(cache.get, "a", refuse) for _ in range(7)]
        assert cache.get("b", made("b")) == "b"  # nobody else waits
        go.set()
        assert {job.result() for job in (first, *others)} == {"x"}
    assert calls == [1]


def test_old_one_meanwhile(file: Path) -> None:
    """While a new version is made, others use the one that there was."""
    cache: Cache[str] = Cache(9, 9)
    begun, go = threading.Event(), threading.Event()
    versions = {str(file): version_of(str(file))}
    cache.get("a", lambda: Made("old", versions, 1))
    file.write_text("changed")

    def slowly() -> Made[str]:
        begun.set()
        assert go.wait(30)
        return Made("new", {str(file): version_of(str(file))}, 1)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get, "a", slowly)
        assert begun.wait(30)
        assert cache.get("a", refuse) == "old"
        go.set()
        assert first.result() == "new"
    assert cache.get("a", refuse) == "new"


def test_hung_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever for what another thread reads."""
    monkeypatch.setattr(files, "WAIT", 0.01)
    cache: Cache[str] = Cache(9, 9)
    begun, go = threading.Event(), threading.Event()

    def hang() -> Made[str]:
        begun.set()
        assert go.wait(30)
        return Made("x", {}, 1)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get, "a", hang)
        assert begun.wait(30)
        with pytest.raises(TempFail):
            cache.get("a", refuse)
        go.set()
        assert first.result() == cache.get("a", refuse) == "x"


def test_failure_is_not_kept() -> None:
    """Who waited for what could not be made tries it himself."""
    cache: Cache[str] = Cache(9, 9)
    begun, go = threading.Event(), threading.Event()

    def fail() -> Made[str]:
        begun.set()
        assert go.wait(30)
        raise OSError(5, "Input/output error")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", fail)
        assert begun.wait(30)
        second = pool.submit(cache.get, "a", made("x"))
        go.set()
        with pytest.raises(OSError, match="Input"):
            first.result()
        assert second.result() == "x"


# lists


def test_entries() -> None:
    """One a line, without comments and what surrounds it, in the order of the file."""
    text = "\ufeff# a comment\r\n b@x.org \n\n@d.org # why\n\t\nB@x.org\u2028ü".encode()
    assert parse_list(text) == ("b@x.org", "@d.org", "B@x.org", "ü")
    assert parse_list(b"") == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a\n\xff\n", "no UTF-8 at byte 3"),
        (b"x\n" * 500_001, "more than 500,000 entries"),
        (b"#" * ((16 << 20) + 1), "larger than 16 MiB"),
    ],
)
def test_bad_list(
    text: bytes, reason: str, file: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is none is one for its author, and is not read again for each message."""
    file.write_bytes(text)
    lists = ListFiles()
    with pytest.raises(ValueError, match=reason):
        lists.entries(str(file), home)
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(ValueError, match=reason):
        lists.entries(str(file), home)
    monkeypatch.undo()
    file.write_text("good")
    assert lists.entries(str(file), home) == ("good",)


def test_list_that_changes(file: Path, home: str) -> None:
    """A list is the same object until its file changes; it may go, and come back."""
    lists = ListFiles()
    first = lists.entries(str(file), home)
    assert first == ("x",)
    assert lists.entries(str(file), home) is first
    file.write_text("y\nz")
    assert lists.entries(str(file), home) == ("y", "z")
    file.unlink()
    with pytest.raises(FileNotFoundError):
        lists.entries(str(file), home)
    file.write_text("again")
    assert lists.entries(str(file), home) == ("again",)


def test_owner_of_a_list(file: Path, home: str) -> None:
    """A file is judged for each owner by himself: what is good for one is not for the other."""
    lists = ListFiles()
    assert lists.entries(str(file), home) == lists.entries(str(file)) == ("x",)
    os.link(file, file.with_name("other"))
    assert lists.entries(str(file)) == ("x",)
    with pytest.raises(Unsafe):
        lists.entries(str(file), home)


def test_huge_list(file: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may be large; only so many bytes of lists are kept."""
    monkeypatch.setattr(lists, "MAX_LISTED", 5_000_000)
    kept = ListFiles()
    file.write_text("\n".join(f"user{n}@example.com" for n in range(200_000)))
    entries = kept.entries(str(file), home)
    assert len(entries) == 200_000
    other = file.with_name("other")
    other.write_text("\n".join(f"user{n}@example.net" for n in range(200_000)))
    kept.entries(str(other), home)
    assert kept.entries(str(file), home) is not entries
