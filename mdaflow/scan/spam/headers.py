"""Tests of the header: fields that are missing, forged or odd, subject, dates, recipients.

A test gives how far it is met, from 0 (not at all) to 1.
"""

from __future__ import annotations

import re
from itertools import pairwise

from .clues import Clues, Tests

_DAY = 86_400
_LETTER = re.compile(r"[^\W\d_]")
_MESSAGE_ID = re.compile(r"<[^<>\s@]+@[^<>\s@]+>")
_OUTLOOK = re.compile(r"Microsoft (?:Outlook Express|Windows Mail)")
_OUTLOOK_ID = re.compile(
    r"<[0-9a-fA-F]{12}\$[0-9a-fA-F]{8}\$[0-9a-fA-F]{8}@[^<>]*>|<[A-Z0-9]{20,}\.[^<>@]*@"
)
_RANDOM_MAILER = re.compile(r"[A-Za-z]{5,24}\d{0,4}")
_CASE = re.compile(r"[a-z][A-Z]")
_TAIL = re.compile(r"(?:\s{4}|\d\*|[.;,_]\s{2,}|\s-?\s{2,})([a-z0-9]{4,})\]?\s*$", re.IGNORECASE)
_GAPPY = re.compile(r"(?<!\w)(?:[^\W_][ ._*-]{1,2}){3,40}[^\W_](?!\w)")
_BROKEN = re.compile(r"\b(?:[a-z]{1,30}[\^~|$@!*0135][a-z]{1,30})\b", re.IGNORECASE)
_MONEY = re.compile(r"[$€£¥]\s?\d|\d\s?[$€£]|\d\s?(?:usd|eur|million)\b", re.IGNORECASE)
_PERCENT = re.compile(r"\d\s?%")
_EMOJI = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")
_REPLY = re.compile(r"(?:re|aw|sv|vs|rv|antw|res|r)(?:\[\d+\])?\s?:", re.IGNORECASE)
_FORWARD = re.compile(r"(?:fwd?|wg|tr|rv|enc)\s?:", re.IGNORECASE)
_MIXED = re.compile(
    r"[a-z\u00e0-\u024f][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][a-z\u00e0-\u024f]",
    re.IGNORECASE,
)
_ADVERT = re.compile(
    r"\W{0,3}(?:adv?\s?[:)\]]|adv\b|advert|광\s?고|未承諾広告|広告)", re.IGNORECASE
)
"""What laws of some countries want advertisements to begin with."""
_ENCODED = re.compile(r"=\?[^?\s]+\?b\?", re.IGNORECASE)
_ZONE = re.compile(r"[+-]\d{4}(?:\s*\([^()]*\))?\s*$|(?:GMT|UTC?|UT|[ECMP][SD]T)\s*$")
_SINGLE = (
    "Date",
    "From",
    "Subject",
    "To",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
)


def shouting(text: str) -> bool:
    """Written in capitals, by an alphabet that has others."""
    letters = _LETTER.findall(text[:1000])
    upper = sum(map(str.isupper, letters))
    lower = sum(map(str.islower, letters))
    return len(letters) >= 10 and upper > 0.75 * len(letters) and lower < upper


def _false_reply(c: Clues) -> bool:
    """`Re:` of a message that answers none and quotes nothing."""
    return bool(_REPLY.match(c.subject)) and not c.reply and not c.quotes


def _false_forward(c: Clues) -> bool:
    return (
        bool(_FORWARD.match(c.subject))
        and not c.reply
        and not re.search(
            r"forward|original|from:|von:|de :|gesendet|---", c.shown[:5000], re.IGNORECASE
        )
    )


def _needless(c: Clues) -> bool:
    return bool(_ENCODED.search(c.raw("Subject"))) and c.subject.isascii()


def _eight_bit(c: Clues) -> bool:
    """Bytes that are no ASCII and no UTF-8 either."""
    return any("\udc80" <= char <= "\udcff" for char in c.raw("Subject") + c.raw("From"))


def _names_recipient(c: Clues) -> bool:
    """The subject greets by the local part or the whole of the recipient's address."""
    subject = c.subject.lower()
    found = (a for a in c.recipients[:3] if len(a.local) > 3)
    return any(
        a.address.lower() in subject
        or re.match(rf"{re.escape(a.local.lower())}\b\s*[,:!-]", subject)
        for a in found
    )


def _from_the_future(c: Clues) -> bool:
    return bool(c.sent and c.arrived and c.sent[0] > c.arrived + _DAY)


def _from_the_past(c: Clues) -> bool:
    return bool(c.sent and c.arrived and c.sent[0] < c.arrived - 4 * _DAY)


def _zone_odd(c: Clues) -> bool:
    """A zone that no place has: not by quarters of an hour, or more than 14 hours away."""
    east = (c.sent and c.sent[1]) or 0
    return east % 900 != 0 or not -12 * 3600 <= east <= 14 * 3600


def _outlook_forged(c: Clues) -> bool:
    """Says that it was written with a program that makes other Message-IDs."""
    return bool(
        _OUTLOOK.match(c.mailer)
        and "Mac" not in c.mailer
        and not c.listed
        and c.has("Message-ID")
        and not _OUTLOOK_ID.match(c.raw("Message-ID"))
    )


def _priority_forged(c: Clues) -> bool:
    """Fields of Outlook without those that it never leaves out."""
    return c.has("X-MSMail-Priority") and not c.has("X-MimeOLE") and "IMO" not in c.mailer


def _mailer_random(c: Clues) -> bool:
    name = c.mailer.strip()
    return bool(_RANDOM_MAILER.fullmatch(name)) and len(_CASE.findall(name)) >= 2


def _message_id_odd(c: Clues) -> bool:
    return c.has("Message-ID") and not _MESSAGE_ID.fullmatch(c.raw("Message-ID").strip())


def _alike(c: Clues) -> bool:
    """Many recipients whose names follow each other as in a list of addresses."""
    locals_ = [a.local.lower() for a in c.recipients[:100]]
    near = sum(a[:2] == b[:2] for a, b in pairwise(locals_))
    return len(locals_) >= 5 and near >= 0.6 * (len(locals_) - 1)


def _undisclosed(c: Clues) -> bool:
    return not c.recipients and not c.has("List-Id")


def _to_name_address(c: Clues) -> bool:
    """A recipient is named by nothing but his address's local part."""
    return any(a.name.lower() == a.local.lower() != "" for a in c.recipients[:3])


def _duplicate(c: Clues) -> bool:
    return any(c.count(name) > 1 for name in _SINGLE)


TESTS: Tests = {
    "TO_MISSING": _undisclosed,
    "TO_MANY": lambda c: min(1.0, max(0, len(c.recipients) - 8) / 20),
    "TO_ALIKE": _alike,
    "TO_NAME_LOCAL": _to_name_address,
    "SUBJECT_MISSING": lambda c: not c.subject,
    "SUBJECT_SHOUTS": lambda c: shouting(c.subject),
    "SUBJECT_EXCLAIMS": lambda c: bool(re.search(r"!\s*$|!!|!.*!|\?\?|\?!", c.subject)),
    "SUBJECT_MONEY": lambda c: bool(_MONEY.search(c.subject)),
    "SUBJECT_PERCENT": lambda c: bool(_PERCENT.search(c.subject)),
    "SUBJECT_TAIL": lambda c: bool(_TAIL.search(c.subject)),
    "SUBJECT_GAPPY": lambda c: bool(_GAPPY.search(c.subject)),
    "SUBJECT_BROKEN": lambda c: bool(_BROKEN.search(c.subject)),
    "SUBJECT_MIXED": lambda c: bool(_MIXED.search(c.subject)),
    "SUBJECT_ADVERT": lambda c: bool(_ADVERT.match(c.subject)),
    "SUBJECT_EMOJI": lambda c: bool(_EMOJI.search(c.subject)),
    "SUBJECT_FALSE_REPLY": _false_reply,
    "SUBJECT_FALSE_FORWARD": _false_forward,
    "SUBJECT_NEEDLESS_CODE": _needless,
    "SUBJECT_8BIT": _eight_bit,
    "SUBJECT_NAMES_YOU": _names_recipient,
    "DATE_MISSING": lambda c: not c.has("Date"),
    "DATE_INVALID": lambda c: c.has("Date") and c.sent is None,
    "DATE_FUTURE": _from_the_future,
    "DATE_PAST": _from_the_past,
    "DATE_ZONE_ODD": _zone_odd,
    "DATE_NO_ZONE": lambda c: c.has("Date") and not _ZONE.search(c.raw("Date")),
    "MESSAGE_ID_MISSING": lambda c: not c.has("Message-ID"),
    "MESSAGE_ID_ODD": _message_id_odd,
    "OUTLOOK_FORGED": _outlook_forged,
    "OUTLOOK_FIELDS_FORGED": _priority_forged,
    "MAILER_RANDOM": _mailer_random,
    "MAILER_SCRIPT": lambda c: c.has("X-PHP-Originating-Script", "X-PHP-Script"),
    "PRIORITY_HIGH": lambda c: c.raw("X-Priority")[:1] in ("1", "2"),
    "FIELD_TWICE": _duplicate,
    "REPLY": lambda c: c.reply and bool(_REPLY.match(c.subject)),
    "THREAD": lambda c: c.reply,
    "LISTED": lambda c: c.listed,
    "ONE_CLICK": lambda c: c.has("List-Unsubscribe-Post") and "pass" in c.auth["dkim"],
}
