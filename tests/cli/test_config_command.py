"""`mdaflow config check | show | schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.app import load
from mdaflow.app.config import Config, Folders, Lmtp, Log, Rules
from mdaflow.cli.config import command, dump


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return written(tmp_path, "hostname: mx.example.org\nlmtp: {idle: 2 minutes}\n")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return written(tmp_path, "hostname: a b\nlmtp:\n  lsten: x\n")


def written(folder: Path, text: str) -> Path:
    path = folder / "mdaflow.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def complaints(path: Path) -> list[str]:
    return [
        f"{path}:1:11: hostname: must be a host name, not 'a b'",
        f"{path}:3:3: lmtp.lsten: unknown key; did you mean 'listen'?",
    ]


def test_check_of_a_good_file(good: Path) -> None:
    """A good file is `FILE: ok`, exit code 0."""
    result = run("check", "--config", str(good))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{good}: ok\n", "")


def test_check_of_a_bad_file(bad: Path) -> None:
    """All problems of a bad file are on standard error, exit code 78."""
    result = run("check", "--config", str(bad))
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.splitlines() == complaints(bad)


def test_check_reads_the_tables(good: Path) -> None:
    """What is wrong in the files of aliases and access that it names is reported, once, too."""
    folder = good.parent
    for name, text in (("aliases", "sales ann\n"), ("access", "example.org MAYBE\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    tables = f"aliases: [{folder}/aliases]\naccess: [{folder}/access]\n"
    good.write_text(good.read_text() + tables)
    done = run("check", "--config", str(good))
    assert done.exit_code == 78
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        f"{folder}/aliases:1",
        f"{folder}/access:1",
    ]


def test_check_as_json(good: Path) -> None:
    """--json prints the file and its problems as one object; the exit code stays."""
    result = run("check", "--json", "--config", str(good))
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"file": str(good), "problems": [], "warnings": []}
    good.write_text("hostname: a b\nlmtp:\n  lsten: x\n")
    result = run("check", "--json", "--config", str(good))
    assert result.exit_code == 78
    assert json.loads(result.stdout) == {
        "file": str(good),
        "problems": complaints(good),
        "warnings": [],
    }


def test_check_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no file at all the defaults are in force, which is no error."""
    monkeypatch.delenv(load.VARIABLE, raising=False)
    monkeypatch.setattr(load, "DEFAULT", str(tmp_path / "none.yaml"))
    result = run("check")
    assert result.exit_code == 0
    assert "the defaults are in force: ok" in result.stdout


def test_show_prints_what_is_in_force(good: Path) -> None:
    """`show` prints the settings of the file and the defaults of all others."""
    result = run("show", "--config", str(good))
    assert result.exit_code == 0
    assert load.loads(result.stdout, "shown.yaml") == load.load(str(good))
    assert "hostname: mx.example.org\n" in result.stdout
    assert "  idle: 120.0\n" in result.stdout
    assert "  threads: 16\n" in result.stdout


def test_show_as_json(good: Path) -> None:
    """`show --json` prints the same as JSON, which loads as well."""
    result = run("show", "--json", "--config", str(good))
    assert json.loads(result.stdout)["lmtp"]["idle"] == 120.0
    assert load.loads(result.stdout, "shown.yaml") == load.load(str(good))


def test_show_of_a_bad_file(bad: Path) -> None:
    """`show` of a bad file shows its problems and nothing else, exit code 78."""
    result = run("show", "--config", str(bad))
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.splitlines() == complaints(bad)


@pytest.mark.parametrize("name", ["check", "show"])
def test_missing_file(name: str) -> None:
    """A --config that is not there is a problem of configuration, exit code 78."""
    result = run(name, "--config", "/nonexistent/mdaflow.yaml")
    assert result.exit_code == 78
    assert "/nonexistent/mdaflow.yaml: no such file" in result.stderr


def test_schema_is_json() -> None:
    """`schema` prints the JSON Schema, with or without --json."""
    assert json.loads(run("schema").stdout) == load.schema()
    assert run("schema", "--json").stdout == run("schema").stdout


LETTERS = st.characters(categories=["L", "N", "P", "S"], exclude_characters="/:~")
NAMES = st.one_of(
    st.sampled_from(["no", "12:30", "0660", "1_000", "null", "-", "'", "a: b", "# c", "!x", "1e5"]),
    st.text(LETTERS, min_size=1).filter(lambda name: name not in (".", "..")),
).filter(lambda name: ":" not in name)
RELATIVE = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ABSOLUTE = RELATIVE.map(lambda path: f"/{path}")
LOGINS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", fullmatch=True) | st.just("")
MAILBOXES = st.one_of(
    RELATIVE.map(lambda path: f"maildir:{path}"),
    st.tuples(RELATIVE, RELATIVE).map(lambda paths: "mbox:{}:INBOX={}".format(*paths)),
)
SECONDS = st.floats(0.001, 3e8)
CONFIGS = st.builds(
    Config,
    hostname=st.from_regex(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,80})?", fullmatch=True),
    user=LOGINS,
    users=st.lists(st.builds(Folders, ABSOLUTE, MAILBOXES), min_size=1, max_size=3).map(tuple),
    recipient_delimiter=st.text("-+=_.!#%&*^~", max_size=12),
    lmtp=st.builds(
        Lmtp,
        listen=st.lists(
            st.sampled_from(["unix:/a b", "[::1]:24", "mx:1"]), min_size=1, max_size=3
        ).map(tuple),
        mode=st.integers(0, 0o777).map("{:04o}".format),
        max_size=st.integers(1, 1 << 40),
        idle=SECONDS,
        deadline=SECONDS,
    ),
    rules=st.builds(Rules, before=ABSOLUTE, user=RELATIVE, after=ABSOLUTE),
    state=ABSOLUTE,
    log=st.builds(Log, to=ABSOLUTE, format=st.sampled_from(["text", "json"])),
)


@given(CONFIGS)
def test_what_is_shown_loads_to_an_equal_configuration(config: Config) -> None:
    """The YAML of any configuration loads again to an equal one."""
    assert load.loads(dump(config), "shown.yaml") == config


def test_check_of_scanners(tmp_path: Path) -> None:
    """Wrong weights and a missing quarantine are problems, a scanner that is away a warning."""
    (tmp_path / "weights").write_text("HTML_ONY: 5\n")
    scanners = f"scanners:\n  - clamd: ['unix:{tmp_path}/none']\nspam: {{tests: weights}}\n"
    path = written(tmp_path, f"{scanners}quarantine: {tmp_path}/quarantine\n")
    result = run("check", "--config", str(path))
    assert result.exit_code == 78
    assert "/weights:1:1: HTML_ONY: no such test; did you mean 'HTML_ONLY'?" in result.stderr
    assert "no such folder, and viruses go there" in result.stderr
    path.write_text(f"scanners:\n  - clamd: ['unix:{tmp_path}/none']\nquarantine: {tmp_path}\n")
    result = run("check", "--config", str(path))
    assert (result.exit_code, result.stderr.startswith("warning: scanners: clamd: ")) == (0, True)
    late = path.read_text().replace("'unix", "'unix").replace("none']", "none']\n    timeout: 100")
    path.write_text(late)
    result = run("check", "--config", str(path))
    assert "scanners: their timeouts are 100 s together; lmtp.deadline leaves 96 s" in result.stderr


@pytest.mark.parametrize(
    ("setting", "module", "problem"),
    [
        ("spam: {dns: {clients: {dnsbl.example: CLIENT}}}", "mdaflow.scan.dns", "spam.dns: needs"),
        ("store: redis://127.0.0.1:1/0", "mdaflow.store.redis", "store: needs"),
    ],
)
def test_check_of_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, module: str, problem: str
) -> None:
    """What a server does not start without is missed by the check, with how to get it."""
    path = written(tmp_path, f"{setting}\n")
    monkeypatch.setitem(sys.modules, module, None)
    result = run("check", "--config", str(path))
    assert result.exit_code == 78
    assert problem in result.stderr
    assert f"{sys.prefix}/bin/pip install 'mdaflow[" in result.stderr


@pytest.mark.parametrize(
    ("clamd", "lmtp", "warned"),
    [
        ("", "50M", True),
        ("", "25M", False),
        ("max_size: 50M", "50M", False),
        ("on_error: deliver-tagged", "50M", False),
    ],
)
def test_check_of_sizes(tmp_path: Path, clamd: str, lmtp: str, warned: bool) -> None:
    """What is too large to be scanned would be put off until it bounces."""
    scanner = f"scanners:\n  - clamd: ['unix:{tmp_path}/none']\n    {clamd}\n"
    path = written(tmp_path, f"{scanner}lmtp: {{max_size: {lmtp}}}\nquarantine: {tmp_path}\n")
    result = run("check", "--config", str(path))
    assert result.exit_code == 0
    assert ("clamd: mail of more than 25M is put off" in result.stderr) == warned
