"""rspamd itself, on sockets of its own, with a Redis of its own, asking no network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from children import free_port
from need import need
from redis_server import RedisServer
from scanner_daemon import CLEAN, SPAM, Daemon, running

from mdaflow import Client, Envelope, Message, Report, Unscanned
from mdaflow.scan.rspamd import Rspamd

ENVELOPE = Envelope(
    "ann@example.com",
    "bob@example.org",
    client=Client("192.0.2.7", "mx.example.com", "helo.example.com"),
    queue_id="4XyZ",
)
LONG, SHORT = 60.0, 0.5
PASSWORD = "a secret word"

# The nameserver is a port where nobody listens; no module that would ask one is there anyhow.
CONFIG = """\
options {{
    pidfile = "{folder}/pid"; tempdir = "{folder}"; hs_cache_dir = "{folder}"; rrd = "";
    dynamic_conf = "{folder}/dynamic"; url_tld = "{folder}/tld"; disable_hyperscan = true;
    filters = ""; dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{folder}/log"; level = "info"; }}
worker "normal" {{ bind_socket = "{folder}/scan.sock"; count = 1; mime = true; }}
worker "controller" {{
    bind_socket = "{folder}/control.sock"; bind_socket = "{control}"; count = 1; secure_ip = [];
    password = "{password}"; enable_password = "{password}";
}}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
lua = "/usr/share/rspamd/rules/rspamd.lua"
classifier "bayes" {{
    tokenizer {{ name = "osb"; }}
    backend = "redis"; servers = "{redis}";
    new_schema = true; min_tokens = 1; min_learns = 1;
    statfile {{ symbol = "BAYES_HAM"; spam = false; }}
    statfile {{ symbol = "BAYES_SPAM"; spam = true; }}
}}
group "statistics" {{
    symbols = {{ "BAYES_SPAM" {{ weight = 7; }} "BAYES_HAM" {{ weight = -3; }} }}
}}
"""


class Server(NamedTuple):
    """An rspamd of these tests."""

    daemon: Daemon
    scanner: Rspamd
    control: str
    """The controller where nobody is trusted; by a unix socket everybody is."""
    log: Path


@pytest.fixture(scope="module")
def rspamd() -> Iterator[Server]:
    """An rspamd with rules, two workers, and something to learn into."""
    program = need("rspamd")
    with RedisServer() as redis, tempfile.TemporaryDirectory(prefix="rspamd") as name:
        folder = Path(name)
        (folder / "tld").write_text("com\norg\nnet\n")
        place = redis.address.removeprefix("unix://")
        config = folder / "rspamd.conf"
        control = f"127.0.0.1:{free_port()}"
        config.write_text(
            CONFIG.format(folder=folder, control=control, password=PASSWORD, redis=place)
        )
        sockets = folder / "scan.sock", folder / "control.sock"
        # -i: also as root, as it is
        with running([program, "-f", "-i", "-c", str(config)], folder) as daemon:
            daemon.wait_for(lambda: all(path.exists() for path in sockets))
            scan, learn = (f"unix:{path}" for path in sockets)
            scanner = Rspamd([scan], controllers=[learn], password=PASSWORD)
            scanner.scan(CLEAN, ENVELOPE, LONG)  # its worker has begun
            yield Server(daemon, scanner, control, folder / "log")


def scanned(server: Server, message: Message) -> Report:
    """What is found in a message."""
    return server.scanner.scan(message, ENVELOPE, LONG)


def test_spam(rspamd: Server) -> None:
    """The test message of all spam filters is spam, by the symbol that rspamd names."""
    report = scanned(rspamd, SPAM)
    assert report.hits[0].score == 5.0
    assert report.findings["rspamd.action"] == ("reject",)
    assert report.findings["rspamd.symbols"] == ("GTUBE",)
    assert not report.unscanned


def test_clean(rspamd: Server) -> None:
    """A letter is none."""
    report = scanned(rspamd, CLEAN)
    assert report.hits[0].score < 2.0
    assert report.findings["rspamd.action"] == ("no action",)


@pytest.mark.parametrize("raw", [b"", b"\n", b"no header", b"\0\xff\r\n" * 99, b"A: b\n\n.\n..\n"])
def test_odd_messages(rspamd: Server, raw: bytes) -> None:
    """Any bytes are a message to rspamd, too."""
    assert scanned(rspamd, Message(raw)).hits


def test_envelope(rspamd: Server) -> None:
    """rspamd knows the envelope as it was."""
    rspamd.scanner.scan(CLEAN, ENVELOPE, LONG)
    line = rspamd.log.read_text().rpartition("rspamd_task_write_log")[2].partition("\n")[0]
    for told in ("qid: <4XyZ>", "ip: 192.0.2.7", "from: <ann@example.com>", "<bob@example.org>"):
        assert told in line


LOTTERY = "Congratulations winner: lottery number {} million dollars claim your prize today now"
MEETING = "The minutes of meeting number {} are in the folder, please read them before Thursday"


def about(text: str, number: int) -> Message:
    """A message of its own with that text."""
    head = CLEAN.head.replace(b"1a2b3c4d5e6f", f"{number}.{len(text)}".encode())
    return Message(head + b"\n" + text.format(number).encode() + b"\n")


def test_learn(rspamd: Server) -> None:
    """What is learned changes what is found; to learn it again is fine."""
    for number in range(3):
        rspamd.scanner.learn(about(LOTTERY, number), "spam", LONG)
        rspamd.scanner.learn(about(MEETING, number), "ham", LONG)
    rspamd.scanner.learn(about(LOTTERY, 0), "spam", LONG)
    spam, ham = (scanned(rspamd, about(text, 9)) for text in (LOTTERY, MEETING))
    assert "BAYES_SPAM" in spam.findings["rspamd.symbols"]
    assert "BAYES_HAM" in ham.findings["rspamd.symbols"]
    assert spam.findings["rspamd.action"] == ("add header",)
    assert spam.hits[0].score == 5.0, "what rspamd calls spam is spam here"


def test_password(rspamd: Server) -> None:
    """The controller learns from whoever has the password; that it refuses others is said."""
    where = [rspamd.control]
    Rspamd(where, controllers=where, password=PASSWORD).learn(about(MEETING, 4), "ham", LONG)
    with pytest.raises(Unscanned, match="HTTP status 401"):
        Rspamd(where, controllers=where, password="a guess").learn(SPAM, "spam", LONG)


def test_many_at_once(rspamd: Server) -> None:
    """Many threads ask one scanner, and each has the answer to its own message."""
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda m: scanned(rspamd, m), [SPAM, CLEAN] * 12))
    actions = [report.findings["rspamd.action"] for report in found]
    assert actions == [("reject",), ("no action",)] * 12


def test_frozen(rspamd: Server) -> None:
    """An rspamd that stands still leaves a message unscanned, in the time there is."""
    rspamd.daemon.freeze()
    try:
        with pytest.raises(Unscanned, match="timed out"):
            rspamd.scanner.scan(SPAM, ENVELOPE, SHORT)
    finally:
        rspamd.daemon.thaw()
    assert scanned(rspamd, SPAM).hits
