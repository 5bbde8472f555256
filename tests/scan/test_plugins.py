"""Scanners of other packages: the example, and the bad ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mdaflow import ConfigError, Envelope, Hit, Message, Report, Scanner, Unscanned
from mdaflow.scan import plugins
from mdaflow.scan.plugins import MAX_HUNG, Guarded, checked, load

ROOT = Path(__file__).parents[2]
LETTER = Message(b"Subject: x\n\nHello\n")
LONG, SHORT = 60.0, 0.05


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the example."""
    pytest.importorskip("hatchling", reason="needs hatchling (mdaflow[dev])")
    folder = tmp_path_factory.mktemp("example")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*pip, *offline, str(ROOT / "contrib/scanner-example")], check=True)
    return folder


@pytest.fixture
def language(example: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example is installed."""
    monkeypatch.syspath_prepend(str(example))
    yield
    sys.modules.pop("mdaflow_language", None)


def text(body: str) -> Message:
    """A message of so much text."""
    return Message(f"Content-Type: text/plain; charset=utf-8\n\n{body}\n".encode())


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("How are you? 123", ("latin",)),
        ("Привет, как дела?", ("cyrillic",)),
        ("Привет dear friend", ("latin", "cyrillic")),
        ("Привет, как дела? Ok", ("cyrillic",)),
        ("Καλημέρα", ("greek",)),
        ("안녕하세요", ("korean",)),
        ("こんにちは カタカナ", ("japanese",)),
        ("你好", ("chinese",)),
        ("123 !? 😀", ()),
    ],
)
def test_example(body: str, found: tuple[str, ...]) -> None:
    """The example, installed by pip, names the writing of a message."""
    report = load("language").scan(text(body), Envelope(), LONG)
    assert report == Report(findings={"language": found} if found else {})


@pytest.mark.usefixtures("language")
def test_options() -> None:
    """A scanner has its options, and says what is wrong with them."""
    mixed = text("Привет, как дела? Ok")
    found = load("language", {"share": 0.1}).scan(mixed, Envelope(), LONG)
    assert found.findings == {"language": ("cyrillic", "latin")}
    with pytest.raises(ConfigError, match=r"'language' \(mdaflow_language:make\): .*share is a n"):
        load("language", {"share": 7})


@pytest.mark.usefixtures("language")
def test_not_installed() -> None:
    """What is not installed is said, with what was meant or what there is."""
    with pytest.raises(ConfigError, match=r"no scanner 'langauge' .* did you mean 'language'"):
        load("langauge")
    with pytest.raises(ConfigError, match="no scanner 'colour' is installed: there are language"):
        load("colour")


def test_none_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any scanner of another package that is said."""
    monkeypatch.setattr(plugins, "entry_points", lambda **_: ())
    with pytest.raises(ConfigError, match="there is none of another package"):
        load("language")


def package(folder: Path, name: str, value: str, module: str = "") -> None:
    """What pip leaves of a package with one scanner, by hand."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mdaflow.scanners]\nodd = {value}\n")
    if module:
        (folder / f"{value.partition(':')[0]}.py").write_text(module)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("", "ModuleNotFoundError"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def make(\n", "SyntaxError"),
        ("x = 1\n", "AttributeError"),
        ("make = 1\n", "TypeError"),
        ("def make(options): options['a'] = 1\n", "TypeError"),
        ("def make(options): raise ValueError('red\\nblue')\n", "ValueError: red.blue"),
        ("def make(options): return None\n", "makes no scanner"),
        ("def make(options): raise SystemExit(4)\n", "SystemExit: 4"),
        ("import sys\nsys.exit('no model')\n", "SystemExit: no model"),
    ],
)
def test_broken_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    """A package that makes no scanner is an error of the configuration, with the reason."""
    name = f"broken_{len(module)}"
    package(tmp_path, "broken", f"{name}:make", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"scanner 'odd' \({name}:make\).*{said}"):
        load("odd")


def test_two_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When two packages have a scanner of one name, nobody guesses which is meant."""
    package(tmp_path, "first", "first:make")
    package(tmp_path, "second", "second:make")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="'odd' is installed twice: first:make, second:make"):
        load("odd")


class Doing:
    """A scanner that does what a test says."""

    name = "doing"

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do = do

    def scan(self, message: Message, envelope: Envelope, seconds: float) -> Report:
        """What the test says."""
        report: Report = self._do()
        return report


def guarded(do: Callable[[], Any]) -> Guarded:
    """The same, kept within bounds."""
    return Guarded(Doing(do), "doing")


def test_whole_report() -> None:
    """What a report may say comes through as it is."""
    report = Report(
        viruses=("Eicar",),
        hits=(Hit("A_1", -2, "some"), Hit("B", 3.5)),
        findings={"place": ("a", "ü"), "x-1.b_c": ()},
        unscanned="one part is encrypted",
    )
    assert guarded(lambda: report).scan(LETTER, Envelope(), LONG) == report


def fail(error: BaseException) -> Callable[[], Any]:
    """What raises that."""

    def do(*_: object) -> Any:
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unscanned("too\nlarge"), "^too.large$"),
        (ValueError("x" * 9999), "^ValueError: x{488}$"),
        (KeyError("a"), "^KeyError: 'a'$"),
        (RecursionError(), "^RecursionError: $"),
        (SystemExit(3), "^SystemExit: 3$"),
        (KeyboardInterrupt(), "^KeyboardInterrupt: $"),
    ],
)
def test_raises(error: BaseException, said: str) -> None:
    """Whatever a scanner raises, the message is unscanned, with the reason on one line."""
    with pytest.raises(Unscanned, match=said):
        guarded(fail(error)).scan(LETTER, Envelope(), LONG)


class Unending(Mapping[str, tuple[str, ...]]):
    """Findings without end."""

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return ()

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "x"


MANY = ("x",) * 101


@pytest.mark.parametrize(
    "report",
    [
        *(None, {}, (), "clean", True, Report),
        *(Report(viruses=viruses) for viruses in ("Eicar", ("",), ("a\nb",), (b"x",), MANY)),
        *(Report(viruses=viruses) for viruses in (None, 7, ("x" * 501,), ("\ud800",))),
        *(Report(hits=hits) for hits in (("A",), (("A", 1.0, ""),), (Hit("A", 1.0),) * 101)),
        *(Report(hits=(Hit(name, 1.0),)) for name in ("", "a", "A B", "A\n", "A" * 65, None, 7)),
        *(Report(hits=(Hit("A", score),)) for score in ("1", None, 1e7, -1e7, 10**400)),
        *(Report(hits=(Hit("A", float(score)),)) for score in ("nan", "inf", "-inf")),
        *(Report(hits=(Hit("A", 1.0, why),)) for why in ("a\nb", "x" * 501, 7)),
        *(Report(findings=findings) for findings in (None, [], "x", {"": ()}, {"a b": ()})),
        *(Report(findings={"a": values}) for values in ("x", None, (7,), ("a\0",), MANY)),
        Report(findings={f"n{n}": () for n in range(101)}),
        Report(findings={7: ()}),
        Report(findings=Unending()),
        *(Report(unscanned=why) for why in (7, "a\nb", "x" * 501)),
    ],
)
def test_nonsense(report: Any) -> None:
    """A report with anything in it that does not belong there is none."""
    with pytest.raises(Unscanned, match="Error"):
        guarded(lambda: report).scan(LETTER, Envelope(), LONG)


def test_a_copy_is_checked() -> None:
    """What a scanner changes later changes nothing."""
    findings = {"a": ("b",)}
    report = checked(Report(findings=findings))
    findings["a"] = ("c\n",)
    assert report.findings == {"a": ("b",)}


def test_hangs() -> None:
    """A scanner that hangs is left behind at the deadline, and asked no more after some times."""
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def hang() -> Report:
        begun.release()
        go_on.wait()
        return Report()

    scanner = guarded(hang)
    try:
        for _ in range(MAX_HUNG):
            with pytest.raises(Unscanned, match="does not answer"):
                scanner.scan(LETTER, Envelope(), SHORT)
            assert begun.acquire(timeout=LONG)
        for _ in range(3):
            with pytest.raises(Unscanned, match="hangs in 8 messages"):
                scanner.scan(LETTER, Envelope(), LONG)
        assert not begun.acquire(blocking=False)
    finally:
        go_on.set()
    for thread in threading.enumerate():
        if thread.name == "scanner doing":
            thread.join()
    assert scanner.scan(LETTER, Envelope(), LONG) == Report(), "it is asked again when it goes on"


def test_no_time() -> None:
    """Without any time a scanner that waits is left behind at once."""
    go_on = threading.Event()
    with pytest.raises(Unscanned, match="does not answer"):
        guarded(go_on.wait).scan(LETTER, Envelope(), -1)
    go_on.set()


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the message is unscanned."""
    monkeypatch.setattr(threading.Thread, "start", fail(RuntimeError("can't start new thread")))
    with pytest.raises(Unscanned, match="can't start"):
        guarded(Report).scan(LETTER, Envelope(), LONG)


def test_per_recipient() -> None:
    """A scanner says that its answer depends on the recipient; by default it does not."""
    own = Doing(Report)
    assert not Guarded(own, "doing").per_recipient
    own.per_recipient = True  # type: ignore[attr-defined]
    scanner: Scanner = Guarded(own, "doing")
    assert getattr(scanner, "per_recipient", None)
