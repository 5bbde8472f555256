"""The replies of the LMTP server, as values and as lines (RFC 5321 section 4.2, RFC 2034).

One line each, at most 512 bytes with its CRLF. Whatever a peer or a file put into a text, no
control character leaves in it. Non-ASCII is written only to who asked for it (RFC 6531
section 3.7.4.2), else escaped.
"""

from __future__ import annotations

from ..errors import Status
from ..mail.path import CONTROL

OK = Status(250, "2.0.0", "Ok")
SENDER_OK = Status(250, "2.1.0", "Sender ok")
BYE = Status(221, "2.0.0", "Bye")
HELP = Status(214, "2.0.0", "LHLO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP XFORWARD STARTTLS")
START_TLS = Status(220, "2.0.0", "Begin TLS")
VRFY = Status(252, "2.5.0", "Cannot verify, ask with RCPT")

BUSY = Status(421, "4.3.2", "Too many connections, try again later")
IDLE = Status(421, "4.4.2", "Idle for too long")
LOST = Status(421, "4.3.0", "Internal error, try again later")
TOO_MANY_ERRORS = Status(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Status(421, "4.7.0", "Too many commands without mail")
NOT_FOR_YOU = Status(421, "4.7.1", "You may not deliver here")
NO_PROXY = Status(421, "4.7.1", "A PROXY header has to come first")
BEFORE_TLS = Status(421, "4.7.0", "Nothing may be sent behind STARTTLS")
TOO_MANY_RECIPIENTS = Status(452, "4.5.3", "Too many recipients")

UNKNOWN = Status(500, "5.5.1", "Command not recognised")
NOT_LMTP = Status(500, "5.5.1", "This is LMTP, say LHLO")
LINE_TOO_LONG = Status(500, "5.5.2", "Line too long")
BAD_LINE = Status(500, "5.5.2", "Lines end in CRLF, with no CR, LF or NUL before it")
NO_TLS = Status(502, "5.5.1", "No TLS here")
NO_ARGUMENT = Status(501, "5.5.4", "This command takes no argument")
LHLO_FIRST = Status(503, "5.5.1", "Say LHLO first")
MAIL_FIRST = Status(503, "5.5.1", "Say MAIL first")
NESTED = Status(503, "5.5.1", "A transaction is already open")
NO_RECIPIENTS = Status(503, "5.5.1", "No valid recipients")
NOT_YOU = Status(550, "5.7.1", "XFORWARD is not for you")
BAD_PARAMETER = Status(555, "5.5.4", "Parameter not recognised")


def syntax(text: str) -> Status:
    """501 for an argument that is not what the command takes."""
    return Status(501, "5.5.4", text)


_MAX = 510


def line(status: Status, recipient: str = "", *, utf8: bool = False) -> bytes:
    """The reply without CRLF; after DATA it names its recipient."""
    text = f"<{recipient}> {status.text}" if recipient else status.text
    text = CONTROL.sub(lambda c: f"\\x{ord(c[0]):02x}", text)
    text = f"{status.code} {status.enhanced} {text}"
    raw = text.encode("utf-8" if utf8 else "ascii", "backslashreplace")
    return raw if len(raw) <= _MAX else raw[:_MAX].decode(errors="ignore").encode()
