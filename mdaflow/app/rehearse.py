"""Everything that the way of a message needs, imported and built before the first one comes.

The server does this before it gives up its rights and forks: afterwards the interpreter's own
files may be out of reach (a virtual environment below /root), and what is made before a fork
is memory that the workers share. It sends a sample the whole way, right and wrong.
"""

from __future__ import annotations

import codecs
import importlib
from contextlib import suppress

from mdaflow.engine.run import run
from mdaflow.lang import compile_rules
from mdaflow.lang.dump import dump, load
from mdaflow.lang.source import SourceError
from mdaflow.mail.message import Message

from .build import ask

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
rule when body matches /x(y)/ and attachment.type is "image/png" { deliver to "{1}" }
rule when subject matches "a*" { deliver to "{1|slug}" }
"""
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
    program = load(dump(compile_rules(_RULES)))
    run(program, Message(_SAMPLE), ask=ask, trace=True)
    with suppress(SourceError):
        compile_rules("rule when subjct contains 'x' { delivr }")
    for module in ("mdaflow.store.sqlite", "mdaflow.app.pipeline", "logging.handlers"):
        importlib.import_module(module)
