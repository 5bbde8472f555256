"""Mailboxes and folder names: what is accepted, what is refused, and which path it gives."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdaflow import deliver
from mdaflow.deliver import mailbox
from mdaflow.deliver.mailbox import Mailbox, components, locate, parse_mailbox
from mdaflow.errors import PermFail

MAILDIR = Mailbox("maildir", "/home/bob", "Maildir")
MBOX = Mailbox("mbox", "/home/bob", "mail")


@pytest.mark.parametrize(
    ("spec", "path", "inbox"),
    [
        ("maildir:Maildir", "Maildir", ("Maildir",)),
        ("maildir:~/Maildir", "Maildir", ("Maildir",)),
        ("maildir:mail//./box/", "mail/box", ("mail", "box")),
        ("maildir:.", ".", ()),
        ("mbox:mail", "mail", ("mail", "inbox")),
        ("mbox:.", ".", ("inbox",)),
        ("mbox:mail:INBOX=mbox", "mail", ("mbox",)),
        ("mbox:~/mail:INBOX=~/mail/in", "mail", ("mail", "in")),
        ("maildir:Maildir:LAYOUT=fs:UTF-8:SUBSCRIBE", "Maildir", ("Maildir",)),
        ("mbox:mail:UTF-8:INBOX=mbox:LAYOUT=fs", "mail", ("mbox",)),
    ],
)
def test_mailbox_is_parsed(spec: str, path: str, inbox: tuple[str, ...]) -> None:
    """A mailbox is a format and a path below the home directory, as Dovecot writes it."""
    box = parse_mailbox(spec, "/home/bob")
    assert (box.format, box.home, box.path) == (spec.split(":")[0], "/home/bob", path)
    assert locate(box, "INBOX") == inbox


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("", "unknown mailbox ''"),
        ("Maildir", "unknown mailbox 'Maildir'"),
        ("mdbox:mail", "unknown mailbox 'mdbox:mail'"),
        ("maildir:", "'' is not a path below"),
        ("maildir:/var/mail/bob", "'/var/mail/bob' is not a path below"),
        ("maildir:~//etc", "is not a path below"),
        ("maildir:../alice/Maildir", "is not a path below"),
        ("maildir:a/../../b", "is not a path below"),
        ("maildir:~alice/Maildir", "is not a path below"),
        ("maildir:~", "is not a path below"),
        ("maildir:Mail\0dir", "is not a path below"),
        ("maildir:Maildir:INBOX=x", "unknown option 'INBOX=x'"),
        ("mbox:mail:INDEX=x", "unknown option 'INDEX=x'"),
        ("mbox:mail:LAYOUT=maildir++", "unknown option 'LAYOUT=maildir"),
        ("maildir:Maildir:LAYOUT=index", "unknown option 'LAYOUT=index'"),
        ("maildir:Maildir:UTF-8=yes", "unknown option 'UTF-8=yes'"),
        ("maildir:Maildir:", "unknown option ''"),
        ("maildir:Maildir:SEPARATOR=", "unknown option 'SEPARATOR='"),
        ("mbox:mail:SEPARATOR=a", "unknown option 'SEPARATOR=a'"),
        ("mbox:mail:SEPARATOR=..", "unknown option 'SEPARATOR=..'"),
        ("mbox:mail:INBOX", "'' is not a path below"),
        ("mbox:mail:INBOX=.", "'.' is not a file"),
        ("mbox:mail:INBOX=/bob", "'/bob' is not a file in the spool"),
        ("mbox:mail:INBOX=/var/../bob", "'/var/../bob' is not a file in the spool"),
        ("mbox:mail:INBOX=/var/mail/bob.lock", "is not a file in the spool"),
        ("mbox:mail:INBOX=../x", "'../x' is not a path below"),
    ],
)
def test_bad_mailbox_is_refused(spec: str, text: str) -> None:
    """A mailbox that is unknown or leads out of the home directory is refused with the reason."""
    with pytest.raises(ValueError, match=text):
        parse_mailbox(spec, "/home/bob")


def test_every_format_has_a_deliverer() -> None:
    """What can be configured can be delivered to."""
    assert {parse_mailbox(f"{name}:mail", "/").format for name in deliver.FORMATS} == set(
        deliver.FORMATS
    )


@pytest.mark.parametrize("name", ["", "INBOX", "inbox", "InBox"])
def test_inbox(name: str) -> None:
    """INBOX in any case, and the empty name, are the inbox."""
    assert components(MAILDIR, name) == ()
    assert mailbox.describe(MAILDIR, name) == "maildir INBOX"


@pytest.mark.parametrize(
    ("folder", "maildir", "mbox"),
    [
        ("Board", ".Board", "Board"),
        ("lists/dev", ".lists.dev", "lists/dev"),
        ("lists/dev.python", ".lists.dev-python", "lists/dev.python"),
        ("INBOX/x", ".INBOX.x", "INBOX/x"),
        ("\u0131nbox", ".&ATE-nbox", "&ATE-nbox"),
        ("R&D", ".R&-D", "R&-D"),
        ("Entwürfe", ".Entw&APw-rfe", "Entw&APw-rfe"),
        ("a~b/c d", ".a~b.c d", "a~b/c d"),
        # RFC 3501 section 5.1.3
        ("peter/台北/日本語", ".peter.&U,BTFw-.&ZeVnLIqe-", "peter/&U,BTFw-/&ZeVnLIqe-"),
        ("\U0001f4ec", ".&2D3c7A-", "&2D3c7A-"),
    ],
)
def test_folder_has_the_path_that_dovecot_expects(folder: str, maildir: str, mbox: str) -> None:
    """A folder is a Maildir++ directory, or an mbox file, named in modified UTF-7."""
    assert locate(MAILDIR, folder) == ("Maildir", maildir)
    assert locate(MBOX, folder) == ("mail", *mbox.split("/"))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ("", ".lists.v1-2.&APw--R&-D"),
        (":LAYOUT=maildir++", ".lists.v1-2.&APw--R&-D"),
        (":UTF-8", ".lists.v1-2.ü-R&D"),
        (":LAYOUT=fs", "lists/v1.2/&APw--R&-D"),
        (":UTF-8:LAYOUT=fs", "lists/v1.2/ü-R&D"),
    ],
)
def test_layouts_and_names_as_dovecot_has_them(options: str, path: str) -> None:
    """A Maildir has one directory for a folder or one for each level, in UTF-7 or in UTF-8."""
    box = parse_mailbox(f"maildir:Mail{options}", "/home/bob")
    assert locate(box, "lists/v1.2/ü-R&D") == ("Mail", *path.split("/"))
    assert locate(box, "") == ("Mail",)
    mbox = parse_mailbox(f"mbox:mail{options.replace(':LAYOUT=maildir++', '')}", "/home/bob")
    utf8 = "UTF-8" in options
    assert locate(mbox, "v1.2/ü") == ("mail", "v1.2", "ü" if utf8 else "&APw-")


@pytest.mark.parametrize("separator", ["/", ".", "^", "|", "~"])
@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("maildir:Mail", ".lists.&APw-.b c"),
        ("maildir:Mail:UTF-8", ".lists.ü.b c"),
        ("maildir:Mail:LAYOUT=fs", "lists/&APw-/b c"),
        ("mbox:Mail", "lists/&APw-/b c"),
    ],
)
def test_separator(spec: str, path: str, separator: str) -> None:
    """Whatever divides a name, it is the same folder; what else would divide one is refused."""
    box = parse_mailbox(f"{spec}:SEPARATOR={separator}", "/home/bob")
    name = separator.join(("lists", "ü", "b c"))
    assert locate(box, name) == ("Mail", *path.split("/"))
    assert mailbox.describe(box, name) == f"{box.format} {name}"
    assert locate(box, "inbox") == locate(box, "")
    bad = ["..", "a/..", separator, f"a{separator}", f"{separator}a", f"a{separator * 2}b"]
    bad += [f"a{separator}.b", f"a{separator}..", "~a", separator.join("a" * 17)]
    for folder in bad if separator == "/" else [*bad, "a/b", "/a", f"a{separator}b/c"]:
        with pytest.raises(PermFail):
            locate(box, folder)


@pytest.mark.parametrize(
    ("separator", "maildir", "mbox"),
    [("/", ".v1-2^x", "v1.2^x"), (".", ".v1.2^x", "v1/2^x"), ("^", ".v1-2.x", "v1.2/x")],
)
def test_other_characters_divide_nothing(separator: str, maildir: str, mbox: str) -> None:
    """A character that does not divide is a part of the name, but a dot in Maildir++."""
    for kind, path in (("maildir", maildir), ("mbox", mbox)):
        box = parse_mailbox(f"{kind}:Mail:SEPARATOR={separator}", "/home/bob")
        assert locate(box, "v1.2^x") == ("Mail", *path.split("/"))


@pytest.mark.parametrize(
    "name",
    [
        *("cur", "new", "tmp", "subscriptions", "maildirsize", "maildirfolder", "x.lock"),
        *("dovecot-uidlist", "dovecot-keywords", "dovecot.index.log", "courierimapuiddb"),
    ],
)
def test_part_of_a_maildir_is_no_folder(name: str) -> None:
    """Where folders are in each other, what a Maildir consists of is none of them."""
    box = parse_mailbox("maildir:Mail:LAYOUT=fs", "/home/bob")
    for folder in (name, f"a/{name}", f"{name}/a"):
        with pytest.raises(PermFail):
            locate(box, folder)
    assert locate(box, "dovecot.org/dovecot-news") == ("Mail", "dovecot.org", "dovecot-news")
    assert locate(MAILDIR, name)


@pytest.mark.parametrize(
    "folder",
    [
        *("/", "/etc/passwd", "a//b", "a/", "//"),
        *("..", ".", "a/..", "../a", "a/./b", ".ssh", "a/.b", "..a"),
        *("~", "~root", "~/a", "a\\b", "\\"),
        *("a\0b", "a\nb", "\x7f", "\x1b[2J", "a\x85", "\ud800", "a\udcff"),
        *("x" * 256, "ü" * 100, "/".join("a" * 17)),
    ],
)
@pytest.mark.parametrize("box", [MAILDIR, MBOX], ids=lambda box: box.format)
def test_bad_folder_name_is_refused(box: Mailbox, folder: str) -> None:
    """A name that cannot be a folder is refused for good, before any file is touched."""
    with pytest.raises(PermFail) as caught:
        locate(box, folder)
    assert str(caught.value.status) == "554 5.3.0 Bad folder name"


def test_longest_names() -> None:
    """Names are as long as the file system allows, with the dot of Maildir++ and mbox's lock."""
    assert locate(MAILDIR, "x" * 254) == ("Maildir", "." + "x" * 254)
    assert locate(MBOX, "x" * 250) == ("mail", "x" * 250)
    for box, folder in ((MAILDIR, "x" * 127 + "/" + "x" * 127), (MBOX, "x" * 251)):
        with pytest.raises(PermFail):
            locate(box, folder)


@pytest.mark.parametrize("spec", ["maildir:Mail", "maildir:Mail:LAYOUT=fs", "mbox:mail"])
def test_length_is_that_on_the_disk(spec: str) -> None:
    """What counts is bytes, each part and the whole, as they are written on the disk."""
    for options, most in (("", 93), (":UTF-8", 83)):
        box = parse_mailbox(spec + options, "/home/bob")
        assert 248 < len(locate(box, "台" * most)[-1].encode()) < 252
        for long in ("台" * (most + 3), "/".join(["台" * 60] * 7)):
            with pytest.raises(PermFail):
                locate(box, long)


def test_mbox_folder_is_no_dotlock() -> None:
    """A folder whose file would be another folder's dotlock is refused."""
    for folder in ("dev.lock", "dev.lock/x"):
        with pytest.raises(PermFail):
            locate(MBOX, folder)


@given(st.text())
def test_any_folder_name_is_a_safe_path_or_refused(folder: str) -> None:
    """Whatever the name, the path stays below the mailbox and has sane components."""
    specs = ["maildir:Mail:LAYOUT=fs", "maildir:Mail:UTF-8", "mbox:mail:UTF-8"]
    specs += [f"{spec}:SEPARATOR={char}" for spec in specs for char in ".|~"]
    for box in (MAILDIR, MBOX, *(parse_mailbox(spec, "/home/bob") for spec in specs)):
        try:
            root, *below = locate(box, folder)
        except PermFail:
            continue
        assert root == box.path
        for name in below:
            assert name not in ("", ".", "..")
            assert "/" not in name
            assert box.utf8 or name.isascii()
            assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in name)
            assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    ("folder", "home", "place"),
    [
        ("mbox:/var/mail/archive", "/var/mail", ("archive",)),
        ("mbox:/archive", "/", ("archive",)),
        ("mbox://srv/./mail//in box", "/srv/mail", ("in box",)),
        ("mbox:/srv/.hidden", "/srv", (".hidden",)),
        ("mbox:/srv/ü", "/srv", ("ü",)),
        ("mbox:/srv/a:INBOX=b", "/srv", ("a:INBOX=b",)),
        ("maildir:/srv/journal", "/srv", ("journal",)),
        ("maildir:/srv/journal/", "/srv", ("journal",)),
        ("maildir:/journal", "/", ("journal",)),
    ],
)
def test_elsewhere(folder: str, home: str, place: tuple[str, ...]) -> None:
    """An absolute path is a mailbox whose inbox is there, and the log calls it by its name."""
    found = mailbox.elsewhere(folder)
    assert found
    box, below = found
    assert (box.format, box.home, below) == (folder.split(":")[0], home, "")
    assert locate(box, below) == place
    assert mailbox.describe(box, below) == f"{box.format} {place[-1]}"


@pytest.mark.parametrize(
    "folder",
    ["", "INBOX", "Board", "mbox", "mbox:", "mbox:x", "maildir:~/x", "mdbox:/x", "/x", "a/mbox:/x"],
)
def test_not_elsewhere(folder: str) -> None:
    """Any other name is a folder of the recipient's."""
    assert mailbox.elsewhere(folder) is None


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//", "/.", "/..", "/srv/..", "/srv/../x", "/../x", "/x/../", "/a\0b", "/a\nb/c"),
        *("/x.lock", "/~x", "/srv/~", "/" + "x" * 251, "/" + "ü" * 126, "/\udc80"),
    ],
)
@pytest.mark.parametrize("kind", ["mbox", "maildir"])
def test_bad_path_elsewhere(kind: str, path: str) -> None:
    """A path that leads up, or ends in no usable name, is refused for good."""
    with pytest.raises(PermFail):
        mailbox.elsewhere(f"{kind}:{path}")


@given(st.text(alphabet="./~:ab\0"))
def test_any_path_elsewhere_is_safe_or_refused(path: str) -> None:
    """Whatever the path, what is stored in is one component below its parent."""
    for kind in ("mbox", "maildir"):
        try:
            box, below = mailbox.elsewhere(f"{kind}:/{path}") or (MAILDIR, "")
        except PermFail:
            continue
        [name] = locate(box, below)
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert ".." not in box.home.split("/")


def test_write_survives_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are written, however few the system takes at a time."""
    whole = os.writev
    sizes = iter([0, 1, 3, 2, 5, 1, 7, 100] * 100)

    def short(fd: int, views: list[memoryview]) -> int:
        return whole(fd, [memoryview(b"".join(views))[: next(sizes) + 1]])

    monkeypatch.setattr(os, "writev", short)
    chunks: list[mailbox.Chunk] = [
        b"",
        b"abc",
        b"",
        memoryview(b"defgh"),
        *(b"%d," % number for number in range(200)),
    ]
    with (tmp_path / "file").open("wb") as file:
        size = mailbox.write(file.fileno(), chunks)
    assert (tmp_path / "file").read_bytes() == b"".join(chunks)
    assert size == len(b"".join(chunks))


def test_write_gives_up_when_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no byte and reports no error does not hang us."""
    monkeypatch.setattr(os, "writev", lambda fd, views: 0)
    with pytest.raises(OSError, match="takes no bytes"):
        mailbox.write(-1, [b"abc"])
