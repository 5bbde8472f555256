"""What README.md shows is true: its Python runs, its rules compile, its files are there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import mdaflow

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_library_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example for programmers files an urgent message into the folder Board."""
    [code] = [text for language, text in BLOCKS if language == "python"]
    home = tmp_path / "bob"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "message.eml").write_bytes(b"Subject: Urgent: tea\r\n\r\nNow.\r\n")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("/srv/bob", str(home)), {})  # it is our own README
    [stored] = (home / "Maildir" / ".Board" / "new").iterdir()
    assert stored.read_bytes().endswith(b"Subject: Urgent: tea\n\nNow.\n")
    assert 'subject starts with "urgent" -> true (Urgent: tea)' in printed.getvalue()
    assert "250 2.0.0 Saved to Board ('maildir Board',)" in printed.getvalue()


@pytest.mark.parametrize("rules", [t for _, t in BLOCKS if t.startswith("rule ")])
def test_rules(rules: str) -> None:
    """The rules it shows are right."""
    assert mdaflow.compile_rules(rules).body


def test_links() -> None:
    """Every file it links to is there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_of_commands() -> None:
    """Every file of the project that its commands name is there."""
    shown = "".join(text for language, text in BLOCKS if not language)
    names = set(re.findall(r"(?<![\w/.])(?:contrib|rules)/[\w./-]+\w", shown))
    assert {"contrib/dev", "contrib/mdaflow.yaml", "rules/site.rules"} <= names
    missing = [name for name in names if not list(ROOT.glob(f"{name}*"))]
    assert missing == []


def test_public_names() -> None:
    """Each public name can be had, and type checkers are told the same names."""
    source = (ROOT / "mdaflow" / "__init__.py").read_text()
    typed = set(re.findall(r" as (\w+)$", source.partition("__version__ =")[0], re.MULTILINE))
    assert typed == set(mdaflow.__all__) - {"__version__"}
    for name in mdaflow.__all__:
        assert getattr(mdaflow, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mdaflow.nonsense  # noqa: B018
