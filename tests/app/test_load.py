"""Reading the configuration: every problem at its place, and no trap of YAML 1.1."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mdaflow.app import load
from mdaflow.app.config import Config, Folders, Lmtp
from mdaflow.deliver.mailbox import parse_mailbox
from mdaflow.errors import ConfigError

BAD = sorted((Path(__file__).parent.parent / "bad_config").glob("*.yaml"))


def problems(text: bytes | str, name: str = "c.yaml") -> list[str]:
    """What `loads` says of a text, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load.loads(text, name)
    assert all(line.startswith(f"{name}:") for line in caught.value.problems)
    return [line.removeprefix(f"{name}:") for line in caught.value.problems]


def expected(raw: bytes) -> list[str]:
    return re.findall(r"# error: (.*)", raw.decode("utf-8", "replace"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that may be read."""
    tmp_path.chmod(0o700)
    path = tmp_path / "mdaflow.yaml"
    path.write_text("hostname: mx.example.org\n")
    path.chmod(0o644)
    return path


@pytest.fixture
def no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither $MDAFLOW_CONFIG nor a file in the usual place, which is this path."""
    monkeypatch.delenv(load.VARIABLE, raising=False)
    monkeypatch.setattr(load, "DEFAULT", str(tmp_path / "etc.yaml"))
    return tmp_path / "etc.yaml"


# Bad files


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_gives_its_errors_and_no_others(path: Path) -> None:
    """Each bad file gives exactly the errors written beside its lines: line, column and text."""
    raw = path.read_bytes()
    assert expected(raw), "the file says no error"
    assert sorted(problems(raw)) == sorted(expected(raw))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_without_libyaml_the_errors_are_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pure Python parser leads to the same errors, but for its own words on bad syntax."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    raw = path.read_bytes()
    found, wanted = sorted(problems(raw)), sorted(expected(raw))
    if "not YAML" in wanted[0]:
        found, wanted = ([line.split(":")[0] for line in lines] for lines in (found, wanted))
    assert found == wanted


def test_bad_files_were_found() -> None:
    """The folder of bad files is where this test looks for it."""
    assert len(BAD) > 20


def test_problems_stand_in_the_order_of_the_file() -> None:
    """Problems of form, type and value come in one list, sorted by line and column."""
    text = "zzz: 1\nlmtp:\n  threads: 0\n  threads: 999\nhostname: &a x\nlog: 1\n"
    assert [line.split(":")[0] for line in problems(text)] == ["1", "4", "4", "5", "6"]


def test_file_over_a_mebibyte_is_refused() -> None:
    """A file of more than 1 MiB is refused unread, one of just 1 MiB is read."""
    fits = b"#" * (load.MAX_BYTES - 1) + b"\n"
    assert load.loads(fits, "c.yaml") == Config()
    assert problems(fits + b"\n") == ["1:1: larger than 1 MiB"]


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: "])
def test_deep_nesting_is_refused(opening: str) -> None:
    """Thousands of levels give one error, however they are written, and no recursion."""
    [problem] = problems(opening * 50_000)
    assert problem.endswith(("deeper than 20 levels", "a key must be a plain word"))


@pytest.mark.parametrize("text", ["- x\n", "a: x\n"])
def test_too_many_values_are_refused(text: str) -> None:
    """A file of a hundred thousand values, equal keys or not, is not read to its end."""
    last = f"10000:{text.index('x') + 1}: more than 10000 values"
    assert problems(text * 100_000)[-1] == last


def test_no_more_problems_than_anyone_reads() -> None:
    """Of thousands of unknown keys a hundred are listed."""
    assert len(problems("".join(f"key{n}: 1\n" for n in range(5000)))) == load.MAX_PROBLEMS


# Good files


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n", "~\n", "\ufeff\n", b""])
def test_empty_file_gives_the_defaults(text: bytes | str) -> None:
    """A file that says nothing gives Config()."""
    assert load.loads(text, "c.yaml") == Config()


VALUES = [
    ("lmtp: {mode: 0660}", "lmtp.mode", "0660"),
    ("lmtp: {mode: '0660'}", "lmtp.mode", "0660"),
    ("lmtp: {mode: 660}", "lmtp.mode", "660"),
    ("lmtp: {max_size: 50M}", "lmtp.max_size", 50 << 20),
    ("lmtp: {max_size: 1.5 G}", "lmtp.max_size", 3 << 29),
    ("lmtp: {max_size: 512K}", "lmtp.max_size", 512 << 10),
    ("lmtp: {max_size: '4096'}", "lmtp.max_size", 4096),
    ("lmtp: {max_size: 4096}", "lmtp.max_size", 4096),
    ("lmtp: {idle: 120}", "lmtp.idle", 120.0),
    ("lmtp: {idle: 0.5}", "lmtp.idle", 0.5),
    ("lmtp: {idle: 30 seconds}", "lmtp.idle", 30.0),
    ("lmtp: {idle: 2 minutes}", "lmtp.idle", 120.0),
    ("lmtp: {idle: 1h}", "lmtp.idle", 3600.0),
    ("lmtp: {idle: 1 day}", "lmtp.idle", 86400.0),
    ("lmtp: {idle: 2 weeks}", "lmtp.idle", 1209600.0),
    ("lmtp: {listen: ['[::1]:24', 'localhost:24']}", "lmtp.listen", ("[::1]:24", "localhost:24")),
    ("lmtp: {peers: []}", "lmtp.peers", ()),
    ("lmtp: {reserve: 0}", "lmtp.reserve", 0),
    ("lmtp: {trusted: [192.0.2.9/24]}", "lmtp.trusted", ("192.0.2.0/24",)),
    ("lmtp: {owner: 'postfix:postdrop'}", "lmtp.owner", "postfix:postdrop"),
    ("hostname: no", "hostname", "no"),
    ("hostname: 007", "hostname", "007"),
    ("user: 1000", "user", "1000"),
    ("user: 'true'", "user", "true"),
    ("user: ''", "user", ""),
    ("recipient_delimiter: ''", "recipient_delimiter", ""),
    ("recipient_delimiter: +-", "recipient_delimiter", "+-"),
    ("log: {to: /var/log/mdaflow}", "log.to", "/var/log/mdaflow"),
    ("log: {to: syslog, format: json}", "log.format", "json"),
]


@pytest.mark.parametrize(("text", "path", "value"), VALUES)
def test_value_is_taken_as_meant(text: str, path: str, value: object) -> None:
    """Units, octal modes and words that YAML 1.1 misreads mean what they say."""
    found: Any = load.loads(text, "c.yaml")
    for name in path.split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))


def test_paths_are_taken_from_the_folder_of_the_file() -> None:
    """Relative paths of the site are made absolute; those below a user's folder stay."""
    text = """
        users: [{folders: ../mail, mailbox: 'mbox:m:INBOX=in'}, {folders: /abs}]
        state: state
        rules: {before: rules.d/before, user: my.rules}
    """
    config = load.loads(text, "/etc/mdaflow/mdaflow.yaml")
    assert config.users == (Folders("/etc/mail", "mbox:m:INBOX=in"), Folders("/abs"))
    assert config.state == "/etc/mdaflow/state"
    assert config.rules.before == "/etc/mdaflow/rules.d/before"
    assert config.rules.user == "my.rules"


@pytest.mark.parametrize(
    "mailbox",
    [
        *("maildir:Mail", "maildir:Mail:LAYOUT=maildir++", "maildir:a/b:UTF-8:LAYOUT=fs:SUBSCRIBE"),
        *("mbox:mail:UTF-8", "mbox:mail:INBOX=in:SUBSCRIBE", "mbox:mail:LAYOUT=fs"),
    ],
)
def test_mailbox_that_is_accepted_is_one(mailbox: str) -> None:
    """What a file may say of mailboxes is what a delivery understands."""
    config = load.loads(f"users: [{{folders: /a, mailbox: '{mailbox}'}}]", "c.yaml")
    assert config.users[0].mailbox == mailbox
    assert parse_mailbox(mailbox, "/home").home == "/home"


def test_what_is_not_said_keeps_its_default() -> None:
    """A section with one setting has the defaults in all others."""
    assert load.loads("lmtp: {threads: 3}", "c.yaml") == Config(lmtp=Lmtp(threads=3))


# Any bytes at all

YAML_LIKE = st.lists(
    st.sampled_from(
        [
            *("lmtp", "users", "folders", "threads", "log", "level", "info", "1", "0x1", "~", "no"),
            *(":", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!!str ", "? "),
            *("<<", "|", ">", "'", '"', "\\", "#", "---\n", "...\n", "%YAML 1.1\n", "\t", "\ufeff"),
            *("\x00", "\x85", "\u2028", "é", "😀"),
        ]
    )
).map(lambda words: "".join(words).encode())


@given(st.one_of(st.binary(max_size=200), st.text().map(lambda t: t.encode("utf-16")), YAML_LIKE))
def test_any_bytes_give_a_configuration_or_placed_problems(raw: bytes) -> None:
    """Any bytes give a Config, or a ConfigError whose every line has file, line and column."""
    lines: tuple[str, ...]
    try:
        lines = (repr(load.loads(raw, "c.yaml")),)
    except ConfigError as error:
        lines = error.problems
    assert lines
    for line in lines:
        assert re.match(r"Config\(|c\.yaml:[1-9][0-9]*:[1-9][0-9]*: .", line)
        assert line.isprintable()


# The file


def test_file_is_loaded(file: Path) -> None:
    """A file of our own that others may only read is loaded."""
    assert load.load(str(file)).hostname == "mx.example.org"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    """A file writable by group or world is refused, with what to do (P52)."""
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load.load(str(file))
    assert caught.value.problems == (f"{file}: is writable by others; chmod go-w it",)


def test_folder_that_others_may_write_is_refused(file: Path) -> None:
    """A file is not trusted in a folder where others may put another in its place (P52)."""
    file.parent.chmod(0o777)
    with pytest.raises(ConfigError, match=r"is writable by others") as caught:
        load.load(str(file))
    assert caught.value.problems[0].startswith(f"{file.parent}: ")


def test_sticky_folder_is_trusted(file: Path) -> None:
    """In a folder like /tmp nobody can replace the file of somebody else."""
    file.parent.chmod(0o1777)
    assert load.load(str(file)).hostname == "mx.example.org"


def test_folder_behind_a_link_is_checked(file: Path, tmp_path: Path) -> None:
    """A link leads to a file whose own folder is checked too."""
    inner = tmp_path / "inner"
    inner.mkdir()
    target = file.rename(inner / "real.yaml")
    file.symlink_to(target)
    assert load.load(str(file)).hostname == "mx.example.org"
    inner.chmod(0o777)
    with pytest.raises(ConfigError, match=r"inner: is writable by others"):
        load.load(str(file))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_file_of_somebody_else_is_refused(file: Path) -> None:
    """A file that belongs neither to root nor to the invoking user is refused (P52)."""
    os.chown(file, 4321, -1)
    with pytest.raises(ConfigError) as caught:
        load.load(str(file))
    assert caught.value.problems == (f"{file}: belongs to somebody else; chown it to root",)


def test_file_of_root_is_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user other than the owner may use a file of root, and nobody else's."""
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    if file.stat().st_uid == 0:
        assert load.load(str(file)).hostname == "mx.example.org"
    else:
        with pytest.raises(ConfigError, match="belongs to somebody else"):
            load.load(str(file))


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    """A FIFO or a folder in the place of the file is refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(ConfigError, match="is not a file"):
        load.load(str(fifo))
    with pytest.raises(ConfigError, match="Is a directory"):
        load.load(str(tmp_path))


def test_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A file that cannot be opened is a ConfigError with the system's reason."""
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load.load(str(tmp_path / "none.yaml"))


# Which file


def test_without_a_file_the_defaults_hold(no_file: Path) -> None:
    """With no option, no variable and no file in /etc there is no file, and Config()."""
    assert load.find(None) is None
    assert load.read_config(None) == Config()


def test_option_goes_before_variable_before_etc(
    no_file: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is that of --config, else of $MDAFLOW_CONFIG, else the one in /etc."""
    no_file.write_text("")
    assert load.find(None) == str(no_file)
    other = tmp_path / "other.yaml"
    other.write_text("")
    monkeypatch.setenv(load.VARIABLE, str(other))
    assert load.find(None) == str(other)
    assert load.find(str(file)) == str(file)
    assert load.read_config(str(file)).hostname == "mx.example.org"
    monkeypatch.setenv(load.VARIABLE, "")
    assert load.find(None) == str(no_file)


@pytest.mark.parametrize("name", ["", "/nonexistent/mdaflow.yaml"])
def test_option_that_names_no_file_is_an_error(name: str, no_file: Path) -> None:
    """--config of a file that is not there never means the defaults."""
    with pytest.raises(ConfigError, match="no such file, but --config names it"):
        load.find(name)


def test_variable_that_names_no_file_is_an_error(
    no_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$MDAFLOW_CONFIG of a file that is not there never means the defaults."""
    monkeypatch.setenv(load.VARIABLE, "/nonexistent/mdaflow.yaml")
    with pytest.raises(ConfigError, match=r"no such file, but \$MDAFLOW_CONFIG names it"):
        load.find(None)


def test_dangling_link_in_etc_is_an_error(no_file: Path) -> None:
    """A link to nowhere in /etc is a mistake, not the absence of a configuration."""
    no_file.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        load.read_config(None)


def test_start_without_a_file_imports_no_parser(tmp_path: Path) -> None:
    """To find that there is no file costs no import of yaml, pydantic, json or difflib."""
    script = (
        "import sys; from mdaflow.app import load; load.DEFAULT = sys.argv[1];"
        "load.read_config(None);"
        "print(*{'yaml', 'pydantic', 'json', 'difflib', 'ipaddress'} & set(sys.modules))"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-S", "-c", script, str(tmp_path / "none")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "\n"


# The schema


def test_schema_knows_every_class_and_describes_every_setting() -> None:
    """No class takes keys nobody knows (P51), and each setting that is no section is described."""
    schema = load.schema()
    classes = [schema, *schema["$defs"].values()]
    sources = {"Folders", "System", "Passwd", "Sql", "Static"}
    scanners = {"Clamd", "Spamd", "Rspamd", "Package", "Virus", "Spam", "Dns"}
    titles = {"Config", "Lmtp", "Rules", "Limits", "Log", "Forward", "Srs", *sources, *scanners}
    assert {one["title"] for one in classes} == titles
    for one in classes:
        assert one["additionalProperties"] is False
        for name, setting in one["properties"].items():
            assert "$ref" in setting or setting["description"], name


def test_schema_says_what_the_file_may_hold() -> None:
    """Sizes and times may be numbers or text with a unit, and the schema is plain JSON."""
    lmtp = json.loads(json.dumps(load.schema()))["$defs"]["Lmtp"]["properties"]
    number, text = lmtp["max_size"]["anyOf"]
    assert number == {"type": "integer", "minimum": 1, "maximum": 1 << 40}
    assert re.search(text["pattern"], "50M")
    assert not re.search(text["pattern"], "50X")
    assert lmtp["threads"]["maximum"] == 256
