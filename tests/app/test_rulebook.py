"""The rules of users: which file counts, and which version of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mdaflow.app import rulebook
from mdaflow.app.rulebook import USER_ACTIONS, UserRules, compile_file, site_program
from mdaflow.engine.run import Stage, run
from mdaflow.errors import ConfigError, TempFail
from mdaflow.lang import compile_rules
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore
from mdaflow.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rules"
    write(found, 'deliver to "One"')
    return found


def write(path: Path, text: str) -> None:
    """As an editor does it: another file each time, also within one tick of the clock."""
    new = path.with_name("new~")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


def folder(stage: Stage | None) -> str:
    assert stage is not None
    return run(stage, Message(b"")).deciding.folder


def test_new_version(path: Path) -> None:
    """A changed file is in force with the next message; an unchanged one is not read again."""
    rules = UserRules(MemoryStore())
    first = rules.stage(str(path))
    assert rules.stage(str(path)) is first
    write(path, 'deliver to "Number two"')
    assert folder(rules.stage(str(path))) == "Number two"


def test_no_file(tmp_path: Path) -> None:
    """A user without a file has no rules."""
    assert UserRules(MemoryStore()).stage(str(tmp_path / "none")) is None


def test_last_good_version(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that does not compile any more leaves its last good version in force."""
    rules = UserRules(MemoryStore())
    rules.stage(str(path))
    write(path, "deliver nowhere")
    assert folder(rules.stage(str(path))) == "One"
    assert f"{path}:1:9: unexpected 'nowhere'" in caplog.text
    assert "its last good version stays in force" in caplog.text


def test_last_good_version_of_another_process(path: Path, tmp_path: Path) -> None:
    """Also for who never saw it, over restarts: it is kept in the store."""
    stores = [SqliteStore(str(tmp_path / "state" / "s.sqlite")) for _ in range(2)]
    UserRules(stores[0]).stage(str(path))
    write(path, "deliver nowhere")
    assert folder(UserRules(stores[1]).stage(str(path))) == "One"
    for store in stores:
        store.close()


def test_never_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that never compiled is as none: the mail goes to the inbox."""
    write(path, "deliver nowhere")
    assert UserRules(MemoryStore()).stage(str(path)) is None
    assert "mail goes to the inbox" in caplog.text


def test_store_away(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the store rules work as ever, but for the last good version."""
    (tmp_path / "file").touch()
    rules = UserRules(SqliteStore(str(tmp_path / "file" / "s.sqlite")))
    assert folder(rules.stage(str(path))) == "One"
    assert "cannot be kept" in caplog.text


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("none")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


UNSAFE: list[tuple[Callable[[Path], object], Callable[[Path], object]]] = [
    (broken_link, lambda path: path.unlink()),
    (fifo, lambda path: path.unlink()),
    (lambda path: path.chmod(0o602), lambda path: path.chmod(0o600)),
    (lambda path: path.parent.chmod(0o777), lambda path: path.parent.chmod(0o700)),
    (lambda path: os.link(path, path.with_name("x")), lambda path: path.with_name("x").unlink()),
]


@pytest.mark.parametrize(("spoil", "mend"), UNSAFE)
def test_unsafe_file(
    spoil: Callable[[Path], object],
    mend: Callable[[Path], object],
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file that somebody else could have written is ignored, which is told once (P27).

    It counts again when it is safe again, and not any more when it becomes unsafe.
    """
    rules = UserRules(MemoryStore())
    for _ in range(2):
        assert folder(rules.stage(str(path))) == "One"
        caplog.clear()
        spoil(path)
        for _ in range(3):
            assert rules.stage(str(path)) is None
        assert caplog.text.count("so its rules are ignored") == 1
        mend(path)
        if not path.exists():
            write(path, 'deliver to "One"')


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that we may not read is ignored: its owner has to mend that."""
    path.chmod(0)
    assert UserRules(MemoryStore()).stage(str(path)) is None
    assert "Permission denied, so its rules are ignored" in caplog.text


@pytest.mark.parametrize("call", ["open", "stat", "lstat"])
@pytest.mark.parametrize("name", ["rules", "more"])
def test_unreadable_for_now(
    call: str, name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read now is never taken for none: the mail can wait."""
    write(path, 'import "more"')
    write(path.with_name("more"), 'deliver to "One"')
    rules = UserRules(MemoryStore())
    real = getattr(os, call)

    def fail(file: Any, *rest: Any, **more: Any) -> Any:
        if str(file).endswith(name):
            raise OSError(5, "Input/output error")
        return real(file, *rest, **more)

    for _ in range(2):  # also when there is an old version
        monkeypatch.setattr(os, call, fail)
        if call != "lstat" or name == "rules":
            with pytest.raises(TempFail):
                rules.stage(str(path))
        monkeypatch.undo()
        assert folder(rules.stage(str(path))) == "One"
        write(path, 'import "more" # again')


# imports


def test_imports(path: Path) -> None:
    """Files are imported from beside the file that says so, from below, and up to its folder."""
    (path.parent / "a/b").mkdir(parents=True)
    write(path, 'import "a/one.rules"\nimport "more" deliver to "{x}{y}{z}"')
    write(path.with_name("more"), 'set x = "X"')
    write(path.parent / "a/one.rules", 'import "b/two.rules" import "../c"')
    write(path.parent / "a/b/two.rules", 'set y = "Y"')
    write(path.with_name("c"), 'set z = "Z"')
    assert folder(UserRules(MemoryStore()).stage(str(path))) == "XYZ"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('import "../x"', "1:8: '../x' is not below the folder of the first file"),
        ('import "/etc/passwd"', "1:8: '/etc/passwd' is not below the folder of the first file"),
        ('import "sub/up"', "sub/up:1:8: '../../x' is not below the folder of the first file"),
        ('import "rules"', "1:8: 'rules' imports itself"),
        ('import "sub/back"', "sub/back:1:8: '../rules' imports itself"),
        ('import "d1"', "d10:1:8: imports are more than 10 levels deep"),
        ('import "link/a"', "1:8: '{}/link/a' cannot be read: in a folder that is a symbolic link"),
        ('import "alias"', "1:8: '{}/alias' cannot be read: not a regular file"),
        ('import "open"', "1:8: '{}/open' cannot be read: writable by others"),
        ('import "fifo"', "1:8: '{}/fifo' cannot be read: not a regular file"),
        ('import "sub"', "1:8: '{}/sub' cannot be read: not a regular file"),
        ('import "none"', "1:8: '{}/none' cannot be read: No such file or directory"),
        ('import "sub/up/x"', "1:8: '{}/sub/up/x' cannot be read: Not a directory"),
        ('import "binary"', "binary:1:1: this is not UTF-8"),
        ('import "bad"', "bad:1:9: unexpected 'nowhere'"),
        ('import "refuses"', "refuses:1:1: 'reject' is not allowed in these rules"),
        ('list l from "none" keep', "1:13: '{}/none' cannot be read: No such file or directory"),
        ('list l from "../x" keep', "1:13: '../x' is not below the folder of the first file"),
        (
            'list l from "link/a" keep',
            "1:13: '{}/link/a' cannot be read: in a folder that is a sym",
        ),
    ],
)
def test_bad_import(text: str, problem: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be imported is an error at its place; the last good version stays in force."""
    here = path.parent
    (here / "sub").mkdir()
    (here / "link").symlink_to("sub")
    write(here / "sub/a", "keep")
    write(here / "sub/up", 'import "../../x"')
    write(here / "sub/back", 'import "../rules"')
    for n in range(1, 12):
        write(here / f"d{n}", f'import "d{n + 1}"')
    (here / "alias").symlink_to("sub/a")
    os.mkfifo(here / "fifo")
    (here / "open").write_text("keep")
    (here / "open").chmod(0o606)
    (here / "binary").write_bytes(b"\xff")
    (here / "binary").chmod(0o600)
    write(here / "bad", "deliver nowhere")
    write(here / "refuses", 'reject "no"')
    rules = UserRules(MemoryStore())
    assert folder(rules.stage(str(path))) == "One"
    write(path, text)
    for _ in range(3):
        assert folder(rules.stage(str(path))) == "One"
    assert problem.format(here) in caplog.text
    assert caplog.text.count("stays in force") == 1


def test_import_that_changes(path: Path) -> None:
    """A changed import is in force with the next message, and so is one that goes or comes."""
    (path.parent / "sub").mkdir()
    imported = path.parent / "sub/x"
    write(path, 'import "sub/x"')
    rules = UserRules(MemoryStore())
    assert rules.stage(str(path)) is None  # there was never a good one
    for name in ("One", "Two"):
        write(imported, f'deliver to "{name}"')
        stage = rules.stage(str(path))
        assert folder(stage) == name
        assert rules.stage(str(path)) is stage
    imported.unlink()
    assert folder(rules.stage(str(path))) == "Two"
    write(imported, 'deliver to "Three"')
    assert folder(rules.stage(str(path))) == "Three"
    (path.parent / "sub").chmod(0o777)
    assert folder(rules.stage(str(path))) == "Three"  # the last good one
    write(imported, 'deliver to "Forged"')
    assert folder(rules.stage(str(path))) == "Three"


def test_last_good_version_with_imports(path: Path, tmp_path: Path) -> None:
    """What is kept of a good version is all of it, whatever becomes of its files."""
    write(path, 'import "more" list l from "l" deliver to "{x}"')
    write(path.with_name("more"), 'set x = "\N{LATIN SMALL LETTER U WITH DIAERESIS}"')
    write(path.with_name("l"), "# nobody")
    store = SqliteStore(str(tmp_path / "state" / "s.sqlite"))
    assert folder(UserRules(store).stage(str(path))) == "\xfc"
    store.close()
    path.with_name("l").unlink()
    write(path.with_name("more"), 'set x = "')
    write(path, 'import "more" list l from "l" deliver to "{x}" and something')
    assert folder(UserRules(store).stage(str(path))) == "\xfc"
    store.close()


def test_last_good_version_that_may_not_be_any_more(path: Path) -> None:
    """A last good version that does what users may not do any more is none."""
    store = MemoryStore()
    write(path, 'reject "no"')
    assert UserRules(store, (*USER_ACTIONS, "reject")).stage(str(path)) is not None
    write(path, 'reject "no')
    assert UserRules(store).stage(str(path)) is None
    assert UserRules(store, (*USER_ACTIONS, "reject")).stage(str(path)) is not None


def test_no_last_good_version(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without one to be kept the store has nothing of a file, good, broken or gone."""
    store = MemoryStore()
    rules = UserRules(store)
    assert folder(rules.stage(str(path), kept=False)) == "One"
    assert store.get(f"rules {path}") is None
    write(path, "deliver nowhere")
    assert rules.stage(str(path), kept=False) is None
    assert "mail goes to the inbox" in caplog.text
    path.unlink()
    assert rules.stage(str(path), kept=False) is None
    assert store.get(f"rules {path}") is None


def test_good_version_without_room(path: Path) -> None:
    """What is too large for the store is not kept, nor what was there before it."""
    store = MemoryStore()
    rules = UserRules(store, room=100 + len(str(path)))
    assert folder(rules.stage(str(path))) == "One"
    assert store.get(f"rules {path}")
    for name in ("Two", "Three"):
        write(path, f'deliver to "{name}" # {"x" * 100}')
        assert folder(rules.stage(str(path))) == name
        assert not store.get(f"rules {path}")
    write(path, "deliver nowhere")
    assert rules.stage(str(path)) is None


@pytest.mark.parametrize("kept", ["", "{", "5", "[]", "null", '{"x": 5}', '{"PATH": 5}', "{}"])
def test_nonsense_in_the_store(kept: str, path: Path) -> None:
    """What is no good version, as of an older release, is none."""
    store = MemoryStore()
    store.put(f"rules {path}", kept.replace("PATH", str(path)))
    write(path, "deliver nowhere")
    assert UserRules(store).stage(str(path)) is None


def test_kept_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good version is written to the store once, however many processes compile it."""
    store = MemoryStore()
    UserRules(store).stage(str(path))
    monkeypatch.setattr(store, "put", None)
    assert folder(UserRules(store).stage(str(path))) == "One"


def test_replaced_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is compiled is compiled anew for the next message."""
    real = compile_rules
    store = MemoryStore()

    def compile_slowly(*arguments: Any, **more: Any) -> Any:
        program = real(*arguments, **more)
        if path.exists():
            write(path, 'deliver to "Changed"')
        return program

    monkeypatch.setattr(rulebook, "compile_rules", compile_slowly)
    rules = UserRules(store)
    assert folder(rules.stage(str(path))) == "One"
    assert store.get(f"rules {path}") is None  # that would be another version
    monkeypatch.undo()
    assert folder(rules.stage(str(path))) == "Changed"


def test_file_that_goes(path: Path) -> None:
    """A user who removes the file has no rules."""
    rules = UserRules(MemoryStore())
    assert folder(rules.stage(str(path))) == "One"
    path.unlink()
    assert rules.stage(str(path)) is None
    write(path, 'deliver to "Two"')
    assert folder(rules.stage(str(path))) == "Two"


def test_lists_are_no_part_of_the_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that changes does not make its rules compile again."""
    write(path, 'list l from "l" if from in l { discard }')
    write(path.with_name("l"), "a@x.org")
    rules = UserRules(MemoryStore())
    stage = rules.stage(str(path))
    write(path.with_name("l"), "b@x.org")
    assert rules.stage(str(path)) is stage
    path.with_name("l").unlink()
    assert rules.stage(str(path)) is stage


# in memory


def test_compiled_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads that need the same new file compile it once."""
    calls: list[str] = []
    ready = threading.Barrier(8)
    real = compile_rules

    def count(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments[1])
        return real(*arguments, **more)

    monkeypatch.setattr(rulebook, "compile_rules", count)
    write(path, "".join(f'if subject is "{n}" {{ deliver to "{n}" }}\n' for n in range(1000)))
    rules = UserRules(MemoryStore())

    def ask() -> Stage | None:
        ready.wait(30)
        return rules.stage(str(path))

    with ThreadPoolExecutor(8) as pool:
        stages = {pool.submit(ask) for _ in range(8)}
        [stage] = {job.result() for job in stages}
    assert stage is not None
    assert calls == [str(path)]


def test_new_version_compiles_beside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a new version is compiled, other messages go by the one that there was."""
    rules = UserRules(MemoryStore())
    rules.stage(str(path))
    begun, go = threading.Event(), threading.Event()
    real = compile_rules

    def slowly(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return real(*arguments, **more)

    monkeypatch.setattr(rulebook, "compile_rules", slowly)
    write(path, 'deliver to "Two"')
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rules.stage, str(path))
        assert begun.wait(30)
        assert folder(rules.stage(str(path))) == "One"
        go.set()
        assert folder(first.result()) == "Two"
    assert folder(rules.stage(str(path))) == "Two"


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many files are kept in memory, and of so many bytes together."""
    paths = [str(tmp_path / f"{n}") for n in range(4)]
    for name in paths:
        write(Path(name), f'deliver to "{Path(name).name}" # {"x" * 1000}')
    for bound, most in (("MAX_KEPT", 2), ("MAX_TEXT", 2500)):
        monkeypatch.setattr(rulebook, bound, most)
        rules = UserRules(MemoryStore())
        stages = [rules.stage(name) for name in paths]
        assert rules.stage(paths[3]) is stages[3]
        assert rules.stage(paths[2]) is stages[2]
        assert rules.stage(paths[0]) is not stages[0]
        monkeypatch.undo()


def test_granted_actions(path: Path) -> None:
    """Users may do more when the site grants it."""
    write(path, 'reject "no"')
    stage = UserRules(MemoryStore(), ("reject",)).stage(str(path))
    assert stage is not None
    assert run(stage, Message(b"")).outcome == "rejected"


def test_files_of_the_site(tmp_path: Path) -> None:
    """A stage of the site is its files in the order of their names; others do not count."""
    (tmp_path / "20-b.rules").write_text('deliver to "B"')
    (tmp_path / "10-a.rules").write_text('list l = ["x"] also deliver to "A"')
    (tmp_path / "30-c.rules.old").write_text("nonsense")
    (tmp_path / ".#20-b.rules").symlink_to("ann@host.1:2")  # an editor's lock
    program = site_program(str(tmp_path))
    assert program is not None
    assert [a.folder for a in run(program, Message(b"")).actions] == ["A", "B"]


def test_no_files_of_the_site(tmp_path: Path) -> None:
    """No folder, or an empty one, is no stage."""
    assert site_program(str(tmp_path)) is None
    assert site_program(str(tmp_path / "none")) is None


def test_all_problems_of_the_site(tmp_path: Path) -> None:
    """All files are checked before the start is refused."""
    (tmp_path / "a.rules").write_text("deliver nowhere")
    (tmp_path / "b.rules").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as caught:
        site_program(str(tmp_path))
    assert [text.splitlines()[0].rpartition("/")[2][:13] for text in caught.value.problems] == [
        "a.rules:1:9: ",
        "b.rules:1:1: ",
    ]


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_unsafe_file_of_the_site(mode: int, tmp_path: Path) -> None:
    """A file that others can write to is no file of the site: nothing starts with it (P52)."""
    (tmp_path / "a.rules").write_text("keep")
    (tmp_path / "a.rules").chmod(mode)
    with pytest.raises(ConfigError, match=r"a\.rules: writable by others than its owner"):
        site_program(str(tmp_path))


@pytest.mark.parametrize("what", ["a.rules", "l", "more", "."])
def test_file_of_the_site_that_is_not_roots(what: str, tmp_path: Path) -> None:
    """Nor is one that belongs to somebody else, be it imported or a list, or its folder does."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    write(tmp_path / "a.rules", 'import "more" list l from "l" if from in l { discard }')
    write(tmp_path / "more", "")
    write(tmp_path / "l", "")
    assert site_program(str(tmp_path)) is not None
    os.chown(tmp_path / what, 4711, 0)
    with pytest.raises(ConfigError, match="somebody else"):
        site_program(str(tmp_path))


def test_file_by_name(path: Path) -> None:
    """Whoever names a file may use what is his; root only what is root's."""
    path.chmod(0o666)
    if os.geteuid() == 0:
        with pytest.raises(OSError, match="writable by others"):
            compile_file(str(path))
    else:
        assert folder(Stage(compile_file(str(path)))) == "One"


def test_removed_rules_do_not_come_back(path: Path, tmp_path: Path) -> None:
    """Rules that were removed are not the last good version of what is written later."""
    store = SqliteStore(str(tmp_path / "state/s"))
    assert folder(UserRules(store).stage(str(path))) == "One"
    path.unlink()
    rules = UserRules(store)  # another process, which never saw them
    assert rules.stage(str(path)) is None
    write(path, "deliver nowhere")
    assert rules.stage(str(path)) is None
    write(path, 'deliver to "Two"')
    assert folder(rules.stage(str(path))) == "Two"
    write(path, "deliver nowhere")
    assert folder(rules.stage(str(path))) == "Two"
    store.close()
