"""A whole mail system: Postfix takes the mail, mdaflow sorts and stores it, Dovecot shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes, policy
from typing import NamedTuple

from dovecot import Dovecot
from mdaflow_server import Mdaflow, User, new_root
from postfix import Postfix

RULES = r"""
rule "Important" when header "X-Priority" is "1" { flag "\\Flagged" }
rule "Spam" when header "X-Spam-Flag" is "yes" { deliver to "Junk" with flags ["\\Seen"] }
rule "Offers" when subject contains "buy now" { reject "We buy nothing, thank you" }
rule "Friends" when client.ip is "192.0.2.7" and client.name is "mail.friend.example" {
    deliver to "Friends"
}
"""
"""The rules of the site."""


class MailSystem(NamedTuple):
    """The three servers."""

    mdaflow: Mdaflow
    postfix: Postfix
    dovecot: Dovecot

    def bounce(self, sender: User) -> str:
        """The only message of a sender: what Postfix says of the one that was refused."""
        self.mdaflow.wait(sender.address)
        [mail] = self.dovecot.fetch(sender.address)
        message = message_from_bytes(mail.raw, policy=policy.default)
        assert message["Return-Path"] == "<>"
        assert message.get_content_type() == "multipart/report"
        return mail.raw.decode().replace("\r\n    ", " ")

    def settle(self) -> None:
        """Wait until Postfix has nothing to deliver any more."""
        self.postfix.settle()


@contextmanager
def mail_system(mode: str) -> Iterator[MailSystem]:
    """The servers with one of the MODES of Postfix. All end, and their files are removed."""
    root = new_root()
    with ExitStack() as stack:
        (root / "postfix").mkdir()
        postfix = Postfix(root / "postfix", mode)
        mdaflow = Mdaflow(root, postfix.socket)
        stack.callback(mdaflow.close)
        dovecot = Dovecot(root)
        (root / "etc" / "before" / "10-site.rules").write_text(RULES)
        for server in (mdaflow, postfix, dovecot):
            stack.callback(server.stop)
            server.start()
        yield MailSystem(mdaflow, postfix, dovecot)
