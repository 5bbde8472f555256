"""Everything that the way of a message needs, imported and built before the first one comes.

The server does this before it gives up its rights and forks: afterwards the interpreter's own
files may be out of reach (a virtual environment below /root), and what is made before a fork
is memory that the workers share. It sends a sample the whole way, right and wrong.
"""

from __future__ import annotations

import codecs
import importlib
from collections.abc import Callable
from contextlib import suppress

from mdaflow.deliver.execute import DELIVERERS
from mdaflow.engine.run import run
from mdaflow.lang import compile_rules
from mdaflow.lang.source import SourceError
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.scan.dangers import dangers
from mdaflow.scan.spam import Spam
from mdaflow.store.memory import MemoryStore

from .answers import Answers
from .config import Clamd, Config, Package, Rspamd, Spamd
from .weights import read_weights


def _has(config: Config, kind: type) -> bool:
    return any(isinstance(scanner, kind) for scanner in config.scanners)


_CHARSETS = (
    "ascii utf-8 utf-7 utf-16 utf-16-be utf-16-le utf-32 utf-32-be utf-32-le latin-1 "
    "koi8-r koi8-u gb2312 gbk gb18030 big5 big5hkscs hz "
    "shift_jis euc_jp euc_kr iso2022_jp iso2022_jp_2 iso2022_kr cp437 cp850 cp866 cp874 cp932 "
    "cp949 tis-620 mac-roman "
    + " ".join(f"iso8859-{n}" for n in (*range(1, 12), 13, 14, 15, 16))
    + " "
    + " ".join(f"cp{n}" for n in range(1250, 1259))
)
_RULES = """
score s += 1 per match of /x/ in body
set header "X-A: {date.year} {auth.spf} {client.ip} {attachment.sha256}"
rule when body matches /x(y)/ and attachment where (type is "image/png") { also deliver to "{1}" }
rule when personal or bounce or encrypted or signed { log "x" }
rule when subject matches "a*" and received > "2020-01-01" { deliver to "{1|slug}" }
"""
_MODULES = (
    *("mdaflow.store.sqlite", "mdaflow.app.pipeline", "logging.handlers", "zoneinfo"),
    *(f"mdaflow.deliver.{name}" for name in DELIVERERS.values()),
    *(f"mdaflow.deliver.{name}" for name in ("send", "letters", "program", "ledger")),
    *(f"mdaflow.engine.{name}" for name in ("attachments", "lookup", "moments", "triggers")),
    *(f"mdaflow.scan.{name}" for name in ("dangers", "magic")),
    *(f"mdaflow.mail.{name}" for name in ("letter", "loop", "edit", "html")),
    *("mdaflow.lang.forward", "mdaflow.route.access", "mdaflow.app.senders"),
    *("mdaflow.app.profile", "mdaflow.deliver.underway"),
    *("mdaflow.scan.known", "mdaflow.scan.senders"),
    *(f"mdaflow.mail.{name}" for name in ("readings", "contents", "names")),
    *(f"mdaflow.scan.{name}" for name in ("dangers", "archives", "kinds", "bayes", "known")),
    *("mdaflow.store.counts", "mdaflow.app.spam", "mdaflow.scan.senders", "mdaflow.scan.letters"),
    *("hmac", "hashlib", "socket", "encodings.idna"),
)
_WANTED: tuple[tuple[Callable[[Config], object], tuple[str, ...]], ...] = (
    (lambda config: config.store, ("mdaflow.store.shared", "mdaflow.store.redis")),
    (lambda config: config.forward.srs.domain, ("srslib",)),
    (
        lambda config: config.spam.dns.clients or config.spam.dns.domains,
        ("mdaflow.scan.dns", "dns.resolver", "dns.query", "dns.flags", "dns.rcode", "idna"),
    ),
    (lambda config: config.store, ("mdaflow.store.redis_counts",)),
    (lambda config: _has(config, Clamd), ("mdaflow.scan.clamd",)),
    (lambda config: _has(config, Spamd), ("mdaflow.scan.spamd",)),
    (lambda config: _has(config, Rspamd), ("mdaflow.scan.rspamd", "http.client")),
    (lambda config: _has(config, Package), ("mdaflow.scan.plugins", "importlib.metadata")),
)
"""What only some configurations need, beside the sources of users (sources.py)."""
_SAMPLE = b"""Subject: =?utf-8?q?a_sample?=
From: "A" <a@example.org>
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/html

<p>xy</p>
--b
Content-Type: application/octet-stream; name*=utf-8''x.png
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--b
Content-Type: text/plain
Content-Transfer-Encoding: quoted-printable

=20
--b--
"""


def rehearse() -> None:
    """Send a sample the whole way."""
    for charset in _CHARSETS.split():
        codecs.lookup(charset)
    run(compile_rules(_RULES), Message(_SAMPLE), ask=Answers(MemoryStore()), trace=True)
    with suppress(SourceError):
        compile_rules("rule when subjct contains 'x' { delivr }")
    for module in _MODULES:
        importlib.import_module(module)
    Spam(read_weights()).scan(Message(_SAMPLE), Envelope(), 1.0)
    dangers(Message(_SAMPLE))


def fetch(config: Config) -> None:
    """Import what a configuration needs besides; what is missing its user will tell."""
    for wants, modules in _WANTED:
        with suppress(ImportError):
            for module in modules if wants(config) else ():
                importlib.import_module(module)
    for scanner in config.scanners:
        if isinstance(scanner, Package):
            from mdaflow.scan.plugins import fetch as fetch_plugin

            fetch_plugin(scanner.package)
