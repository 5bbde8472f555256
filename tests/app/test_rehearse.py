"""What a server imports before it gives up its rights: all that a delivery needs later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# The server's own imports, the rehearsal, and then every action with no module to be had.
SCRIPT = r"""
import sys
from pathlib import Path
from mdaflow.app.rehearse import rehearse
import mdaflow.serve.master
rehearse()
known = set(sys.modules)

import test_actions
from fake_mta import FakeMTA
from here import Here

missing = set()

class Away:
    def find_spec(self, name, path=None, target=None):
        missing.add(name)
        raise ImportError(name)

MAIL = '''From: =?iso-2022-jp?B?GyRCJDMbKEI=?= <ann@example.com>
To: bob@example.org
Subject: =?utf-7?Q?+AOQ-?=
Date: Fri, 20 Nov 2026 10:00:00 +0100
Authentication-Results: mx.example.org; spf=pass
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html; charset=koi8-r

<p>&uuml;</p>
--b
Content-Type: application/pdf; name*=utf-8'\'x.pdf
Content-Transfer-Encoding: base64

JVBERi0xLjQK
--b--
'''
MORE = [
    'reply "Gr\u00fc\u00dfe" subject "\u00fc"  every 1 day',
    'notify "x@example.com" "\u00fc {received.year} {date.zone}"',
    'forward to "\u00fc@example.com"',
    'quarantine "\u00fc"',
    'list l from "l" list m from "none" if from in l { discard }',
    'list l from "l" if from in l { also keep } if subject contains l { discard }',
    'import "other" if attachment where (type is "application/pdf" and size < 5M) { keep }',
    'if received between "2026-01-01" and "2027-01-01" or date > "2026-01-01" { keep }',
    'if body contains "\u00fc" or body.html contains "x" { deliver to "{body|slug|first 9}" }',
    'score s += 1 per match of /x/ in body if score.s > 3 { keep }',
    'if spam or virus.found or listed in "x.example.com" or known_sender { keep }',
    'if personal or bounce or mailing_list or automatic or encrypted or signed { keep }',
    'if auth.spf is "pass" and client.ip is "x" and attachment.sha256 is "x" { keep }',
    'if attachment.inner matches "*.exe" or remembered "x" or folder "x" exists { keep }',
    'set header "X-A: \u00fc" remove header "X-B" matches "a*b" remove header "Date" keep',
    'if subjct contains "x" { discrd }',
    'flag "\\\\Seen" deliver to "j" with flags ["$A"] expire 3 days',
    'set x = "' + "a/" * 20 + '" deliver to "{x}"',
]

def deliver(case, place, format):
    here = Here(place, format)
    here.grant = test_actions.GRANTS
    with FakeMTA(case.script) as mta:
        here.hop = mta.hop
        for name in ("l", "other"):
            (here.home / ".mdaflow" / name).parent.mkdir(exist_ok=True)
            (here.home / ".mdaflow" / name).write_text("")
        here.set(case.user, case.before, case.after)
        here.send()
        if MORE:
            here.set(MORE.pop())
            here.send(MAIL.encode())
    here.close()

for name in [name for name in sys.modules if name not in known]:
    if name not in ("test_actions", "fake_mta", "here", "__main__"):
        del sys.modules[name]
sys.meta_path.insert(0, Away())
for number, case in enumerate(test_actions.CASES.values()):
    for format in ("maildir", "mbox"):
        deliver(case, Path(sys.argv[1]) / f"{number}{format}", format)
print(*sorted(missing), MORE)
"""


def test_nothing_is_imported_later(tmp_path: Path) -> None:
    """After the rehearsal every action can be carried out with the interpreter's files away."""
    here = Path(__file__).parent
    folders = os.pathsep.join(map(str, (here, here.parent, *filter(None, sys.path))))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folders}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
