"""Names of header fields that look mistyped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mdaflow.lang import ir
from mdaflow.lang.source import Problem, Span
from mdaflow.lang.subjects import split

from .view import View

_FIELDS = """
Date From Sender Reply-To To Cc Bcc Message-ID In-Reply-To References Subject Comments Keywords
Return-Path Received Resent-Date Resent-From Resent-Sender Resent-To Resent-Cc Resent-Bcc
Resent-Message-ID Resent-Reply-To MIME-Version Content-Type Content-Transfer-Encoding Content-ID
Content-Description Content-Disposition Content-Language Content-Location Content-Length
Content-Class List-Id List-Help List-Unsubscribe List-Unsubscribe-Post List-Subscribe List-Post
List-Owner List-Archive List-Software Archived-At Mailing-List Precedence Auto-Submitted
Auto-Forwarded Authentication-Results Received-SPF DKIM-Signature DomainKey-Signature
ARC-Seal ARC-Message-Signature ARC-Authentication-Results Disposition-Notification-To
Return-Receipt-To Errors-To Delivered-To Envelope-To Original-Recipient Apparently-To
Mail-Followup-To Mail-Reply-To Followup-To Newsgroups Organization Importance Priority
Sensitivity Expires Expiry-Date Supersedes Status Lines User-Agent Thread-Topic Thread-Index
Feedback-ID Autocrypt OpenPGP Face Accept-Language Require-Recipient-Valid-Since TLS-Required
X-Original-To X-Original-From X-Originating-IP X-Originating-Email X-Forwarded-To X-Forwarded-For
X-Mailer X-MimeOLE X-Priority X-MSMail-Priority X-Mailing-List X-List-Id X-BeenThere X-Loop
X-Mailman-Version X-Auto-Response-Suppress X-Autoreply X-Autorespond X-Envelope-From
X-Envelope-To X-Sender X-Received X-Status X-Keywords X-UIDL X-Face X-Report-Abuse X-Abuse
X-Spam X-Spam-Flag X-Spam-Status X-Spam-Score X-Spam-Level X-Spam-Report X-Spam-Bar
X-Spam-Tests X-Spam-Checker-Version X-Spam-Action X-Spamd-Result X-Spamd-Bar X-Spam-Symbols
X-Rspamd-Server X-Rspamd-Queue-Id X-Rspamd-Action X-Rspamd-Score X-Bogosity
X-Virus X-Virus-Scanned X-Virus-Status X-Amavis-Alert X-Quarantine-ID X-Barracuda-Spam-Score
X-Ham-Report X-PHP-Originating-Script X-PHP-Script X-Cron-Env X-Campaign X-Mailgun-Sid
X-GitHub-Reason X-GitHub-Sender X-GitHub-Recipient X-GitLab-Project X-GitLab-Pipeline-Id
X-Bugzilla-Product X-Bugzilla-Component X-Bugzilla-Reason X-Bugzilla-Type X-Bugzilla-Status
X-Debian-PR-Message X-Launchpad-Bug X-Jira-FingerPrint X-Redmine-Project X-Nagios-Notification
X-Gmail-Labels X-GM-THRID X-Google-DKIM-Signature X-Google-Smtp-Source
X-MS-Has-Attach X-MS-Exchange-Organization-SCL X-Microsoft-Antispam X-Forefront-Antispam-Report
X-Zimbra-Forwarded X-Yahoo-Newman-Property X-Apple-Mail-Remote-Attachments
"""
"""Header fields that are often seen (RFC 2045, 2369, 2919, 3834, 5322, 8058, 8601, 8617 and so
on): what a name is compared with, not all that there are."""
_LOWER = {field.lower(): field for field in _FIELDS.split()}
_JOINED = {low.replace("-", ""): field for low, field in _LOWER.items()}


def mistyped_header(view: View) -> Iterator[Problem]:
    """A name that is nearly that of a common field, once."""
    told = set(_written(view))
    for span, name in _looked_at(view):
        if name.lower() not in told:
            told.add(name.lower())
            if known := _meant(name.lower()):
                yield Problem.of(span, "mistyped-header", name=name, known=known)


def _written(view: View) -> Iterator[str]:
    """Fields that the program writes itself: their names are its own."""
    for edit in view.all(ir.Edit):
        if edit.operation != "remove" and edit.name.lower().startswith("x-"):
            yield edit.name.lower()


def _looked_at(view: View) -> Iterator[tuple[Span, str]]:
    """The names of fields that are said."""
    nodes: Iterator[ir.Edit | ir.Subject | ir.Hole] = view.all(ir.Edit, ir.Subject, ir.Hole)
    for node in nodes:
        match node:
            case ir.Edit(name=name):
                yield node.span, name
            case ir.Subject(arguments=names):
                yield from ((node.span, name) for name in names)
            case ir.Hole(name=name, argument=field) if split(name)[0] == "header":
                yield node.span, field
    given = (given for case in view.program.cases for given in case.given)
    yield from ((g.span, g.argument) for g in given if g.name == "header")


def _meant(name: str) -> str:
    """The common header field from which a name differs in hyphens or by one slip; else empty."""
    if name in _LOWER or not 4 <= len(name) <= 60:
        return ""
    if field := _JOINED.get(re.sub("[-_]", "", name)):
        return field
    near = ((low, field) for low, field in _LOWER.items() if abs(len(low) - len(name)) < 2)
    return next((field for low, field in near if _is_slip(name, low)), "")


def _is_slip(name: str, known: str) -> bool:
    """Two letters are swapped, or one is another one, too many or missing."""
    at = next(n for n, (a, b) in enumerate(zip(f"{name}\0", f"{known}\1", strict=False)) if a != b)
    one, other = name[at:], known[at:]
    swapped = one[1::-1] + one[2:] == other
    changed = one[1:] == other[1:] or one[1:] == other or one == other[1:]
    short = min(len(name), len(known)) < 5  # such names are too much alike
    return (swapped or (changed and not short)) and _digits(name) == _digits(known)


def _digits(name: str) -> str:
    """A number in a name is no slip."""
    return re.sub(r"\D", "", name)
