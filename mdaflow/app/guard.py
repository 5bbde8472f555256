"""What the configuration does about viruses and spam, said in rules of its own.

They are rules of the site: the first run before all others, the last after them. So whatever the
configuration says is in the trace, and rules can say it otherwise.

    before  viruses, and what had to be scanned and was not, go to the quarantine; fields are added
    after   spam that nobody has sorted goes to its folder

Each function gives a program; None when there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable

from mdaflow.lang import ir

from .config import Clamd, Config, Package, Rspamd, Spamd

NAME = "mdaflow.yaml"
"""How traces name these rules: what they say stands there."""

_VIRUS = """rule "virus" when virus.found { quarantine "virus {virus.name}" }"""
_UNSCANNED = """rule "not scanned" when unscanned exists {
    quarantine "not scanned: {unscanned}"
}"""
# A field that is set stands where one of the sender's stood: behind a line, maybe, that some
# readers take for the end of the header. So these are removed before.
_VIRUS_TAG = """remove header "X-Virus-Status"
set header "X-Virus-Status: {virus.status}" """
_VIRUS_TROUBLE = """remove header "X-Virus-Status"
if virus.unscanned { set header "X-Virus-Status: {virus.status}" }"""
_SPAM_TROUBLE = """remove header "X-Spam-Status"
if spam.unscanned { set header "X-Spam-Status: {spam.status}" }"""
_TAGS = {
    "X-Spam-Flag": """if spam { set header "X-Spam-Flag: YES" }
else { set header "X-Spam-Flag: NO" }""",
    "X-Spam-Score": """set header "X-Spam-Score: {spam.score}" """,
    "X-Spam-Status": """set header "X-Spam-Status: {spam.status}" """,
}
_SUBJECT = """if spam {{ set header "Subject: {} {{subject}}" }}"""
_FORGED = """remove header "X-Spam-Flag" """
_FOLDER = """rule "spam" when spam {{ set header "X-Spam-Flag: YES" deliver to "{}" }}"""
"""With a field by which `mdaflow learn --moved` sees that nobody has moved it there."""


def viruses(config: Config) -> ir.Program | None:
    """What is done about viruses: also with a message that has stopped workers."""
    posts = [s for s in config.scanners if looks_for(s, "virus")]
    if not posts:
        return _program([_UNSCANNED] if _any(config, "quarantine") else [])
    lines = [_VIRUS] if config.virus.found == "quarantine" else []
    lines += [_UNSCANNED] if lines or _any(config, "quarantine") else []
    if config.virus.tag:
        lines.append(_VIRUS_TAG)
    elif any(s.on_error == "deliver-tagged" for s in posts):
        lines.append(_VIRUS_TROUBLE)
    return _program(lines)


def tags(config: Config) -> ir.Program | None:
    """What spam, and mail of which nobody knows whether it is some, is marked with."""
    said = config.spam
    lines = [f'remove header "{tag}"\n{_TAGS[tag]}' for tag in said.tags]
    tagged = any(looks_for(s, "spam") and s.on_error == "deliver-tagged" for s in config.scanners)
    if tagged and "X-Spam-Status" not in said.tags:
        lines.append(_SPAM_TROUBLE)
    if said.folder and "X-Spam-Flag" not in said.tags:
        lines.append(_FORGED)
    if said.subject:
        lines.append(_SUBJECT.format(_quoted(said.subject.strip())))
    return _program(lines)


def junk(config: Config) -> ir.Program | None:
    """Where spam goes that no rule has sorted."""
    folder = config.spam.folder
    return _program([_FOLDER.format(_quoted(folder))] if folder else [])


def looks_for(scanner: Clamd | Spamd | Rspamd | Package, what: str) -> bool:
    """Is a scanner asked for `virus`, or `spam`?"""
    if isinstance(scanner, Package):
        return what in scanner.looks_for
    return what == ("virus" if isinstance(scanner, Clamd) else "spam")


def _any(config: Config, on_error: str) -> bool:
    return any(scanner.on_error == on_error for scanner in config.scanners)


def _quoted(text: str) -> str:
    for special in '\\"':
        text = text.replace(special, f"\\{special}")
    return text.replace("{", "{{").replace("}", "}}")


def _program(lines: Iterable[str]) -> ir.Program | None:
    text = "\n".join(lines)
    if not text:
        return None
    from mdaflow.lang import compile_rules

    return compile_rules(text, NAME)
