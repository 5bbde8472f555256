"""`mdaflow check`: errors, warnings, tests and coverage, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_commands import RULES, Home, home  # noqa: F401 - a fixture

TESTED = """\
rule "Board" when from is "ceo@example.org" {
    also deliver to "Copy"
    deliver to "Board"
}
rule "Big" when size > 5M { deliver to "Big" }
rule when subject is "rum" { discard }

test "the board" {
    message \"\"\"
    From: ceo@example.org

    now
    \"\"\"
    expect deliver to "Board"
    expect also deliver to "Copy"
    expect rule "Board"
}
test "others" {
    message "samples/x.eml"
    expect keep
}
"""
WRONG = """\
test "wrong" {
    message "samples/x.eml"
    expect discard
    expect rule "Big"
}
"""
KEPT = 'deliver to "INBOX", for no rule finished it'
DOUBTFUL = 'list nobody = ["eve@example.com"]\nrule "A" when size > 1 { keep }\n'


@pytest.fixture
def rules(home: Home) -> str:  # noqa: F811
    home.write("samples/x.eml", b"From: x@example.org\r\n\r\n")
    return home.write("my.rules", TESTED)


def test_good_and_bad(home: Home) -> None:  # noqa: F811
    """A file is named when it is right, and what is wrong is shown with a caret."""
    good, bad = home.write("a.rules", RULES), home.write("b.rules", "deliver nowhere\n")
    done = home.call("check", good)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{good}: ok\n", b"")
    done = home.call("check", good, bad)
    assert done.returncode == 65
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"{bad}:1:9: unexpected 'nowhere'")
    assert lines[1:] == ["    deliver nowhere", "            ^^^^^^^"]


def test_tests_that_pass(home: Home, rules: str) -> None:  # noqa: F811
    """Tests are counted, and rules that none of them reaches are named."""
    done = home.call("check", rules)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        f"{rules}: ok",
        "  tests: 2 passed",
        '  no test reaches: "Big" (my.rules:5), rule when subject is "rum" (my.rules:6)',
    ]


def test_tests_that_fail(home: Home, rules: str) -> None:  # noqa: F811
    """A test that fails says where, what was expected and what happened; exit code 65."""
    home.write("my.rules", TESTED + WRONG)
    done = home.call("check", rules)
    assert done.returncode == 65
    assert done.stdout.decode().splitlines()[:5] == [
        f"{rules}: failed",
        "  tests: 2 passed, 1 failed",
        '  "wrong" (my.rules:22)',
        f"    {rules}:24:5: expect discard: the plan is {KEPT}",
        f'    {rules}:25:5: expect rule "Big": its condition did not hold',
    ]


def test_trace(home: Home, rules: str) -> None:  # noqa: F811
    """With -v the trace of a test that failed is shown, of no other."""
    home.write("my.rules", TESTED + WRONG)
    text = home.call("check", "-v", rules).stdout.decode()
    assert "        my.rules:5  size > 5M -> false (21)\n" in text
    assert text.count("  size > 5M -> ") == 1


def test_a_sample_that_is_missing(home: Home, rules: str) -> None:  # noqa: F811
    """A message that cannot be read fails its test."""
    os.unlink(home.path / "samples/x.eml")
    done = home.call("check", rules)
    assert done.returncode == 65
    assert b"the message 'samples/x.eml' cannot be read: No such file" in done.stdout


def test_warnings(home: Home) -> None:  # noqa: F811
    """Warnings are shown with their line; only with --strict they change the exit code."""
    path = home.write("my.rules", DOUBTFUL)
    done = home.call("check", path)
    assert (done.returncode, done.stdout.decode()) == (0, f"{path}: ok, 1 warning\n")
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"{path}:1:6: warning: ")
    assert lines[1:] == ['    list nobody = ["eve@example.com"]', "         ^^^^^^"]
    strict = home.call("check", "--strict", path)
    assert (strict.returncode, strict.stdout.decode()) == (65, f"{path}: failed, 1 warning\n")


def test_separator(home: Home) -> None:  # noqa: F811
    """Where a dot divides the levels of folders, dots are as they should be, and no slash is."""
    path = home.write("my.rules", 'rule when subject is "x" { deliver to "a/b" }\n')
    config = home.config(users=[{"folders": "mail", "mailbox": "mbox:mail:SEPARATOR=."}])
    done = home.call("check", "--config", config, path)
    assert b'no folder name has a / here; write "a.b"' in done.stderr
    mail = 'message """\nSubject: b.c\n\nx\n"""\n'
    case = f'test "x" {{\n{mail}expect deliver to "a.b-c"\n}}\n'
    home.write("my.rules", f'deliver to "a.{{subject}}"\n{case}')
    done = home.call("check", "--config", config, path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_warning_in_an_import(home: Home) -> None:  # noqa: F811
    """A warning about an imported file shows the line of that file."""
    home.write("more.rules", "# more\n" + DOUBTFUL)
    done = home.call("check", home.write("my.rules", 'import "more.rules"\n'))
    assert b"more.rules:2:6: warning: " in done.stderr
    assert b"    list nobody = " in done.stderr


def test_json(home: Home, rules: str) -> None:  # noqa: F811
    """One object for each file, with errors, warnings, tests and coverage."""
    home.write("my.rules", DOUBTFUL + TESTED + WRONG)
    bad = home.write("b.rules", "deliver nowhere\n")
    done = home.call("check", "--json", rules, bad)
    assert (done.returncode, done.stderr) == (65, b"")
    first, second = json.loads(done.stdout)
    assert first["file"] == rules
    assert first["errors"] == []
    warning = first["warnings"][0]
    assert {**warning, "code": "", "message": ""} == {
        "file": rules, "line": 1, "column": 6, "code": "", "message": "",
    }  # fmt: skip
    assert warning["code"]
    assert warning["message"]
    assert [test["passed"] for test in first["tests"]] == [False, True, False]
    assert first["tests"][2]["name"] == "wrong"
    assert first["tests"][2]["where"] == f"{rules}:24:1"
    assert first["tests"][2]["failures"][1] == {
        "where": f"{rules}:27:5",
        "message": 'expect rule "Big": it was not reached',
    }
    assert first["coverage"] == {
        "rules": 4,
        "reached": 1,
        "unreached": [
            {"rule": "Board", "where": f"{rules}:3:1"},
            {"rule": "Big", "where": f"{rules}:7:1"},
            {"rule": 'rule when subject is "rum"', "where": f"{rules}:8:1"},
        ],
    }
    [error] = second.pop("errors")
    assert (error["file"], error["line"], error["column"]) == (bad, 1, 9)
    assert error["code"] == "unexpected"
    assert error["message"].startswith("unexpected 'nowhere'")
    nothing = {"rules": 0, "reached": 0, "unreached": []}
    assert second == {"file": bad, "warnings": [], "tests": [], "coverage": nothing}


def test_what_is_installed(home: Home) -> None:  # noqa: F811
    """Without files: those of the site, and the caller's own."""
    config = home.config()
    home.write("before/1.rules", 'reject "no"')
    home.write(".mdaflow/rules", 'reject "no"')
    done = home.call("check", "--config", config)
    assert done.returncode == 65
    assert done.stdout.decode().endswith("before/1.rules: ok\n")
    assert b".mdaflow/rules:1:1: 'reject' is not allowed" in done.stderr


def test_nothing_is_installed(home: Home) -> None:  # noqa: F811
    """Where there are no rules, that is said."""
    done = home.call("check", "--config", home.config())
    assert done.returncode == 0
    assert done.stdout.startswith(b"no rules to check: neither ")
    assert home.call("check", "--json", "--config", home.config()).stdout == b"[]\n"


def test_powers(home: Home) -> None:  # noqa: F811
    """A file is a user's unless it is said or lies where those of the site are."""
    path = home.write("my.rules", 'reject "no"')
    assert home.call("check", path).returncode == 65
    assert home.call("check", "--site", path).returncode == 0
    config = home.config(rules={"grant": ["reject"]})
    assert home.call("check", "--config", config, path).returncode == 0


def test_tests_of_the_site(home: Home) -> None:  # noqa: F811
    """Tests beside the rules of the site run as its own, even if other files of it are wrong."""
    test = 'test "t" {\n message """\n\n"""\n expect reject "no"\n}\n'
    path = home.write("before/1.rules", 'reject "no"\n' + test)
    home.write("before/2.rules", "nonsense")
    done = home.call("check", "--config", home.config(), path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"  tests: 1 passed\n" in done.stdout


def test_standard_input(home: Home, rules: str) -> None:  # noqa: F811
    """`-` is standard input."""
    done = home.call("check", "-", stdin=b"deliver nowhere\n")
    assert done.returncode == 65
    assert done.stderr.startswith(b"<stdin>:1:9: unexpected 'nowhere'")
    done = home.call("check", "-", stdin=DOUBTFUL.encode())
    assert done.stdout == b"<stdin>: ok, 1 warning\n"
    assert b'    list nobody = ["eve@example.com"]\n' in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_what_is_no_file(home: Home, arguments: list[str]) -> None:  # noqa: F811
    """A folder, a device, a FIFO and what is missing or too large: 66, and nobody waits."""
    os.mkfifo(home.path / "fifo")
    large = home.path / "large"
    with large.open("wb") as file:
        file.truncate((16 << 20) + 1)
    reasons = {
        str(home.path): "not a regular file",
        "/dev/zero": "not a regular file",
        str(home.path / "fifo"): "not a regular file",
        str(home.path / "none"): "No such file or directory",
        str(large): "larger than 16 MiB",
    }
    for path, reason in reasons.items():
        done = home.call("check", *arguments, path)
        assert (done.returncode, done.stdout) == (66, b"")
        assert done.stderr.decode() == f"Error: {path}: {reason}\n"


def test_name_that_is_no_text(home: Home) -> None:  # noqa: F811
    """A file whose name is no UTF-8 is shown all the same."""
    home.write("a\udcff.rules", "keep")
    done = home.call("check", str(home.path / "a\udcff.rules"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"a\\udcff.rules: ok\n")


def test_many_rules_without_a_test(home: Home) -> None:  # noqa: F811
    """Not more than some of them are named."""
    many = "".join(f'rule "{n}" when subject is "{n}" {{ discard }}\n' for n in range(30))
    path = Path(home.write("my.rules", many + 'test "t" { message """\n\n""" expect keep }'))
    done = home.call("check", str(path))
    last = done.stdout.decode().splitlines()[-1]
    assert last.endswith('"18" (my.rules:19), "19" (my.rules:20) and 10 more')


def test_what_the_server_ignores(home: Home) -> None:  # noqa: F811
    """An installed file that others could have written is told, as the server ignores it."""
    rules = home.write(".mdaflow/rules", "keep\n")
    os.chmod(rules, 0o666)
    done = home.call("check", rules)
    assert done.returncode == 66
    assert b"writable by others" in done.stderr
    assert b"so its rules are ignored" in done.stderr
