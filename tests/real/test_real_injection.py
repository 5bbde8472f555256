"""What senders write has no effect but to be stored: in shells, paths, headers and the log (P15,
P26, P28, P50)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from children import Child
from mdaflow_server import Lmtp, Mdaflow, User, give_away, new_root, stuffed
from need import need

CANARY = "canary"
"""A file of this name would show that something was run, or that a path has led out."""
PAYLOADS = {
    "separators": f";touch {CANARY};|touch {CANARY}|&touch {CANARY}&",
    "substitutions": f"$(touch {CANARY})`touch {CANARY}`<(touch {CANARY})",
    "no blanks": f"$(touch${{IFS}}{CANARY})>{CANARY}",
    "lines": f"x\r\ntouch {CANARY}\r\nX-Injected: yes\r\n\r\nrest\n.\r\n",
    "one line": f"x\ntouch {CANARY}\nX-Injected: yes",
    "return": f"x\rX-Injected: yes\rtouch {CANARY}",
    "exim": f"${{run{{/bin/touch {CANARY}}}}}",
    "function": f"() {{ :;}}; touch {CANARY}",
    "format": "%s%n%d%(message)s{0}{subject}{env.PATH}\\1\\g<0>",
    "variables": f"LD_PRELOAD={CANARY} PATH=. IFS=/",
    "NUL": f"x\0touch {CANARY}",
    "separator of lines": f"x\u2028X-Injected: yes\u2029touch {CANARY}\x85X-Injected: yes",
    "terminal": f"\x1b]0;{CANARY}\x07\x1b[2J\u202e\u2066",
    "path": f"../../../../{CANARY}",
    "absolute": f"/tmp/{CANARY}",
    "dots": f"..//.././{CANARY}/..",
    "backslash": f"..\\..\\{CANARY}\\\\",
    "option": f"--help -o{CANARY}",
    "quotes": f"'\"';touch {CANARY};'\"'",
    "glob": "*?[a-z]~root",
    "tag": f"</script><script>{CANARY}",
    "program": f"|touch {CANARY}",
    "include": ":include:/etc/passwd",
    "file": f"/{CANARY}",
}
SHELL = "echo $SENDER $RECIPIENT $EXTENSION $LOCAL $DOMAIN $ORIGINAL_RECIPIENT $USER " \
        "$CLIENT_HELO $CLIENT_HOSTNAME $CLIENT_ADDRESS"  # fmt: skip
RULES = r"""
set note = "{{subject}} {{from}} {{header List-Id}} {{envelope.from}} {{client.name}}"
add header "X-Copy: {{note}}"
set header "X-Other: {{envelope.to.detail}}{{header To}}"
log "{{note}}"
also pipe to ["{root}/count", "{{subject}}", "{{from}}", "{{header List-Id}}", "{{envelope.to}}"]
also pipe to ["/bin/sh", "-c", "eval {shell} >>{root}/out/shell", "{{subject}}"]
also deliver to "by/{{subject}}"
also deliver to "{{envelope.to.detail}}"
also deliver to "{{header List-Id}}"
if attachment where (name matches /(?P<name>.*)/) {{ also deliver to "files/{{name}}" }}
quarantine
"""
ALIASES = 'tick: "|eval {shell} >>{root}/out/alias"\n'
REGEXP = r"/^(.*)@inj\.example$/  $1, ${1}@example.org, bob+$1@example.org" + "\n"
EXECUTED = re.compile(r'execve\("([^"]*)"')


class Sinks(Mdaflow):
    """A server with everything that a text of a sender could reach."""

    def __init__(self, root: Path) -> None:
        files = f"aliases: [{root}/etc/aliases, 'regexp:{root}/etc/regexp']\n"
        files += f"quarantine: {root}/quarantine\ndomains: [inj.example, example.org]\n"
        super().__init__(root, root / "lmtp", workers=1, more=files)
        for name in ("out", "quarantine"):
            (root / name).mkdir()
            give_away(root / name)
        program = f'#!/bin/sh\necho "$#" >>{root}/out/count\n'
        (root / "count").write_text(program)
        (root / "count").chmod(0o755)
        words = {"root": root, "shell": SHELL}
        (root / "etc/before/1.rules").write_text(RULES.format(**words))
        (root / "etc/aliases").write_text(ALIASES.format(**words))
        (root / "etc/regexp").write_text(REGEXP)


@pytest.fixture(scope="module")
def server() -> Iterator[Sinks]:
    root = new_root()
    with ExitStack() as stack:
        found = Sinks(root)
        stack.callback(found.close)
        found.start()
        yield found


@pytest.fixture(scope="module")
def bob(server: Sinks) -> User:
    return server.user(name="bob")


def xtext(text: str) -> str:
    """A value as XFORWARD and ORCPT have it."""
    return "".join(f"+{byte:02X}" for byte in text.encode())


def quoted(text: str) -> str:
    """A local part, as far as it can be one."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def message(payload: str) -> bytes:
    """The payload in all fields: as it is, and encoded, which hides the ends of lines."""
    bare = re.sub(r"[\r\n]+", " ", payload)
    word = f"=?utf-8?b?{b64encode(payload.encode()).decode()}?="
    fields = [
        f"From: {word} <{bare}@x.example>", f"To: {bare}", f"Subject: {word}", f"Subject: {bare}",
        f"List-Id: {word} <{bare}>", f"Message-ID: <{bare}@x>", "MIME-Version: 1.0",
        f'Content-Type: application/x; name="{word}"',
        f"Content-Disposition: attachment; filename*=utf-8''{xtext(payload).replace('+', '%')}",
    ]  # fmt: skip
    return "\r\n".join([*fields, "", "hello", ""]).encode(errors="replace")


def send(server: Sinks, payload: str, *recipients: str) -> list[str]:
    """Send it in every field of the envelope that takes it; the replies."""
    bare = re.sub("[\r\n]", "", payload)
    locals_ = [quoted(name.replace("PAYLOAD", bare)) for name in recipients]
    locals_ += [name.replace("PAYLOAD", "x") for name in recipients]
    return [reply for local in locals_ for reply in _send(server, payload, bare, local)]


def _send(server: Sinks, payload: str, bare: str, local: str) -> list[str]:
    one, replies = xtext(payload), []
    with Lmtp(server.socket) as client:
        client.say(f"LHLO {bare}")
        client.say(f"XFORWARD NAME={one} HELO={one} IDENT={one}")
        client.say(f"XFORWARD ADDR={one} PROTO={one}")
        for sender in (f"{quoted(bare)}@x.example", f"a@{bare}", "a@example.com"):
            if client.say(f"MAIL FROM:<{sender}>").startswith("250 "):
                break
        for domain in ("example.org", "inj.example", bare):
            replies.append(client.say(f"RCPT TO:<{local}@{domain}> ORCPT=rfc822;{one}"))
        replies.append(client.say(f"RCPT TO:<{local}@example.org>"))
        accepted = sum(reply.startswith("250 ") for reply in replies)
        if accepted:
            assert client.say("DATA").startswith("354 ")
            replies.append(client.say_bytes(stuffed(message(payload))))
            replies += [client.reply() for _ in range(accepted - 1)]
    return replies


def stored(server: Sinks) -> list[Path]:
    """All messages, wherever."""
    return [path for path in server.root.rglob("*") if path.parent.name in ("new", "cur")]


def check(server: Sinks, before: set[Path]) -> None:
    """Nothing was run, nothing is where it should not be, no field was made."""
    fresh = {path for path in server.root.rglob("*") if path.is_file()} - before
    assert not [path for path in fresh if path.name == CANARY]
    for place in ("/", "/tmp", "/root", server.root.parent):
        assert not (Path(place) / CANARY).exists()
    tops = {path.relative_to(server.root).parts[0] for path in fresh}
    assert tops <= {"example.org", "out", "quarantine", "state"}, tops
    for path in fresh & set(stored(server)):
        head = path.read_bytes().partition(b"\n\n")[0]
        assert b"\nX-Injected" not in head.replace(b"\r", b"\n"), head
        assert b"\0" not in head.partition(b"\nFrom: ")[0]
    for name in ("count", "shell", "alias"):
        said = (
            (server.root / "out" / name).read_text()
            if (server.root / "out" / name).exists()
            else ""
        )
        assert re.fullmatch(r"[\w!@%=+:,./\- \n]*", said, re.ASCII), said


def test_no_effect(server: Sinks, bob: User) -> None:
    """It is refused, or stored as what it is."""
    before = {path for path in server.root.rglob("*") if path.is_file()}

    def sent(name: str) -> list[str]:
        return send(server, PAYLOADS[name], "bob+PAYLOAD", "tick+PAYLOAD", "PAYLOAD")

    with ThreadPoolExecutor(8) as clients:  # who makes mistakes has to wait
        told = dict(zip(PAYLOADS, clients.map(sent, PAYLOADS), strict=True))
    for name, replies in told.items():
        assert all(re.match(r"[245]\d\d \d\.\d\.\d", reply) for reply in replies), replies
        assert any(reply.startswith("250 2.0.0") for reply in replies), (name, replies)
    check(server, before)
    assert all(line.isprintable() for line in server.log.read_text().split("\n"))
    assert server.entries("bob@example.org", "bob+x@example.org")  # and each line can be read


def test_no_unexpected_program(server: Sinks, bob: User) -> None:
    """Only the programs of the site are run, whatever is in the mail (S01)."""
    said = server.root / "strace.out"
    targets = [word for pid in server.processes() for word in ("-p", str(pid))]
    strace = Child(
        (need("strace"), "-f", "-e", "trace=execve,execveat", "-s", "300", *targets), said
    )
    try:
        strace.wait_for(lambda: said.read_text().count("attached") >= 2, "strace is attached")
        for name in ("separators", "substitutions", "function", "variables", "program"):
            send(server, PAYLOADS[name], "bob+PAYLOAD", "tick+PAYLOAD")
    finally:
        strace.stop()
    found = set(EXECUTED.findall(said.read_text(errors="replace")))
    assert found == {f"{server.root}/count", "/bin/sh"}
