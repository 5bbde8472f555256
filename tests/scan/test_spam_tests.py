"""Every test of spam in the table: a message that meets it, and one that is near and does not."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable

import pytest

from mdaflow.app.weights import read_weights
from mdaflow.mail.envelope import Client, Envelope
from mdaflow.mail.message import Message
from mdaflow.scan.spam import KNOWN_SENDER, own_hits, own_tests
from mdaflow.scan.spam.clues import Site

OUR = Site(
    trusted=("mx.example.org",),
    domains=("mx.example.org", "example.org"),
    bad_senders=frozenset(("bad@example.com", "bad.example")),
    bad_hosts=frozenset(("bad.example", "203.0.113.9")),
    bad_links=frozenset(("bad.example",)),
)
HOP = (
    "from {helo} ({name} [198.51.100.7]) by mx.example.org (Postfix) with ESMTP id 1;"
    " Mon, 2 Mar 2026 12:00:05 +0100"
)
FIELDS = {
    "Received": HOP.format(helo="mail.example.com", name="mail.example.com"),
    "From": "Ann Miller <ann@example.com>",
    "To": "Bob Smith <bob.smith@example.org>",
    "Subject": "Notes of the meeting",
    "Date": "Mon, 2 Mar 2026 12:00:00 +0100",
    "Message-ID": "<1.2@example.com>",
}
LONG = (
    "the board met on monday and talked about plans for the garden, the kitchen, the windows and"
    " the house of ladders and bridges, where flowers grow between tall trees "
) * 2
LOCKED = (
    "PK\x03\x04\x14\x00\x01\x00\x00\x00"
    + 8 * "\x00"
    + "\x01\x00\x00\x00" * 2
    + "\x05\x00\x00\x00a.txtx"
)
"""The beginning of an archive whose one entry is encrypted."""

Mail = tuple[Message, Envelope]


def mail(body: str = "See you on Monday.", *, client: Client | None = None, **fields: str) -> Mail:
    """A message of a person, with other fields: `Message_ID="..."`; an empty one is left out."""
    given = {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\n" for name, value in (FIELDS | given).items() if value)
    raw = f"{head}\n{body}\n".encode("utf-8", "surrogateescape")
    return Message(raw), Envelope("ann@example.com", client=client or Client())


def html(body: str, **fields: str) -> Mail:
    return mail(body, Content_Type="text/html; charset=utf-8", **fields)


def link(url: str, **fields: str) -> Mail:
    return html(f'<p>{LONG}</p><a href="{url}">here</a>', **fields)


def file(name: str, text: str = "See the file.", content: str = "xx") -> Mail:
    body = (
        f"--b\nContent-Type: text/plain\n\n{text}\n--b\nContent-Type: application/octet-stream;"
        f' name="{name}"\nContent-Transfer-Encoding: base64\n\n'
        f"{b64encode(content.encode('latin-1')).decode()}\n--b--"
    )
    return mail(body, Content_Type="multipart/mixed; boundary=b")


def both(plain: str, markup: str, **fields: str) -> Mail:
    body = f"--b\n\n{plain}\n--b\nContent-Type: text/html\n\n{markup}\n--b--"
    return mail(body, Content_Type="multipart/alternative; boundary=b", **fields)


def results(text: str) -> Mail:
    return mail(Authentication_Results=f"mx.example.org; {text}")


def hop(helo: str, name: str = "mail.example.com") -> Mail:
    return mail(Received=HOP.format(helo=helo, name=name))


def twice() -> Mail:
    message, envelope = mail()
    return Message(b"Subject: another\n" + message.raw), envelope


DEFAULT = mail()
CASES: dict[str, tuple[Mail, Mail]] = {
    "LISTED_SENDER": (mail(From="x@sub.bad.example"), mail(From="x@notbad.example")),
    "LISTED_HOST": (
        mail(client=Client("203.0.113.9", "", "x.example")),
        mail(client=Client("203.0.113.8", "", "x.example")),
    ),
    "LISTED_LINK": (link("http://www.bad.example/a"), link("http://bad.example.com/a")),
    "FROM_MISSING": (mail(From=""), DEFAULT),
    "FROM_NO_DOMAIN": (mail(From="Ann <ann@host>"), DEFAULT),
    "FROM_SEVERAL": (mail(From="a@example.com\nFrom: b@example.com"), DEFAULT),
    "FROM_NAMES_ADDRESS": (
        mail(From='"service@bank.example" <x@evil.example.net>'),
        mail(From='"ann@example.com" <ann@mail.example.com>'),
    ),
    "FROM_NAME_EMPTY": (mail(From="ann@example.com"), DEFAULT),
    "FROM_NAME_SHOUTS": (mail(From="MR ADAMS LEE <a@example.com>"), mail(From="IBM <a@b.example>")),
    "FROM_NAME_DECORATED": (mail(From="★ Big Deals ★ <a@b.example>"), DEFAULT),
    "FROM_NAME_NUMBER": (
        mail(From="Support 31612220446 <a@b.example>"),
        mail(From="Radio 2000 <a@b.example>"),
    ),
    "FROM_RANDOM": (mail(From="b2o73jynwf@example.com"), mail(From="dschmidt@example.com")),
    "FROM_NUMBER": (mail(From="ann77123@example.com"), mail(From="ann7@example.com")),
    "FROM_CHEAP_DOMAIN": (mail(From="a@shop.top"), mail(From="a@top.example.com")),
    "FROM_IS_TO": (
        mail(From="bob.smith@example.org"),
        mail(From="bob.smith@example.org", Cc="ann@example.com"),
    ),
    "BRAND_IN_NAME": (
        mail(From="PayPal Support <x@update.example>"),
        mail(From="PayPal <service@paypal.com>"),
    ),
    "BRAND_ALIKE": (mail(From="x@paypa1.com"), mail(From="x@paypal-mail.paypal.com")),
    "BRAND_IN_SUBJECT": (
        link("http://x.example/", Subject="Your PayPal account"),
        link("http://x.example/", Subject="Your PayPal account", In_Reply_To="<1@x.example>"),
    ),
    "REPLY_ELSEWHERE": (mail(Reply_To="a@other.example"), mail(Reply_To="a@mail.example.com")),
    "REPLY_TO_FREEMAIL": (mail(Reply_To="ann77@gmail.com"), mail(Reply_To="ann@other.example")),
    "FREEMAIL_OFFER": (
        mail("Our factory is in Shenzhen. Free samples available.", From="lily@gmail.com"),
        mail("Our factory is in Shenzhen. Free samples available."),
    ),
    "FREEMAIL_FORGED": (
        mail(From="ann@yahoo.com"),
        mail(From="ann@yahoo.com", Message_ID="<1@mail.yahoo.com>"),
    ),
    "HELO_IP": (hop("198.51.100.7"), DEFAULT),
    "HELO_NO_DOMAIN": (hop("pc17"), DEFAULT),
    "HELO_LOCAL": (hop("localhost"), hop("localhost.example.com")),
    "HELO_USER": (hop("User"), hop("user.example.com")),
    "HELO_FREEMAIL": (hop("yahoo.com", "a.isp.example"), hop("yahoo.com", "m.yahoo.com")),
    "HELO_OURS": (hop("mx.example.org"), hop("mx.example.com")),
    "CLIENT_NO_NAME": (hop("mail.example.com", "unknown"), DEFAULT),
    "CLIENT_DYNAMIC": (hop("pc.example", "dsl-1-2-3-4.isp.example"), hop("x", "mail1.isp.example")),
    "SPF_FAIL": (results("spf=fail"), mail(Authentication_Results="elsewhere.example; spf=fail")),
    "SPF_SOFTFAIL": (results("spf=softfail"), results("spf=neutral")),
    "DKIM_FAIL": (results("dkim=fail"), results("dkim=fail; dkim=pass")),
    "DMARC_FAIL": (results("dmarc=fail"), results("dmarc=none")),
    "DMARC_PASS": (results("dmarc=pass"), mail(Authentication_Results="x.example; dmarc=pass")),
    "DKIM_PASS": (results("dkim=pass"), results("dkim=none")),
    "TO_MISSING": (mail(To=""), mail(To="", List_Id="<dev.example.org>")),
    "TO_MANY": (mail(To=", ".join(f"{c}@b.example" for c in "abcdefghijklmnopqrstuv")), DEFAULT),
    "TO_ALIKE": (
        mail(To=", ".join(f"ad{c}@x.example" for c in "abcde")),
        mail(To=", ".join(f"{c}@x.example" for c in "abcde")),
    ),
    "TO_NAME_LOCAL": (mail(To="bob <bob@example.org>"), DEFAULT),
    "SUBJECT_MISSING": (mail(Subject=""), DEFAULT),
    "SUBJECT_SHOUTS": (mail(Subject="BUY THIS NOW PLEASE"), mail(Subject="NASA and the ESA meet")),
    "SUBJECT_EXCLAIMS": (mail(Subject="Buy this!"), mail(Subject="Hello! How are you?")),
    "SUBJECT_MONEY": (mail(Subject="$ 500 for you"), mail(Subject="500 for you")),
    "SUBJECT_PERCENT": (mail(Subject="40% off"), mail(Subject="40 off")),
    "SUBJECT_TAIL": (mail(Subject="Look at this      qxzwv"), mail(Subject="Look at this now")),
    "SUBJECT_GAPPY": (mail(Subject="F R E E money"), mail(Subject="A B testing")),
    "SUBJECT_BROKEN": (mail(Subject="Buy v1agra"), mail(Subject="Version 1 of it")),
    "SUBJECT_MIXED": (mail(Subject="Your аccount pаypal"), mail(Subject="Привет from Ann")),
    "SUBJECT_ADVERT": (mail(Subject="ADV: Low rates"), mail(Subject="Advice for Ann")),
    "SUBJECT_EMOJI": (mail(Subject="Sale 🔥"), mail(Subject="Café")),
    "SUBJECT_FALSE_REPLY": (mail(Subject="Re: hello"), mail("> hello\nyes", Subject="Re: hello")),
    "SUBJECT_FALSE_FORWARD": (
        mail(Subject="Fwd: hello"),
        mail("---- Forwarded message\nFrom: Bob", Subject="Fwd: hello"),
    ),
    "SUBJECT_NEEDLESS_CODE": (
        mail(Subject="=?utf-8?B?aGVsbG8=?="),
        mail(Subject="=?utf-8?B?w6Q=?="),
    ),
    "SUBJECT_8BIT": (mail(Subject="caf\udce9"), mail(Subject="café")),
    "SUBJECT_NAMES_YOU": (mail(Subject="bob.smith, look here"), mail(Subject="Bob, look here")),
    "DATE_MISSING": (mail(Date=""), DEFAULT),
    "DATE_INVALID": (mail(Date="yesterday"), DEFAULT),
    "DATE_FUTURE": (mail(Date="Thu, 5 Mar 2026 12:00:00 +0100"), DEFAULT),
    "DATE_PAST": (mail(Date="Mon, 2 Feb 2026 12:00:00 +0100"), DEFAULT),
    "DATE_ZONE_ODD": (
        mail(Date="Mon, 2 Mar 2026 12:00:00 -1900"),
        mail(Date="Mon, 2 Mar 2026 12:00:00 +0545"),
    ),
    "DATE_NO_ZONE": (mail(Date="Mon, 2 Mar 2026 12:00:00"), DEFAULT),
    "MESSAGE_ID_MISSING": (mail(Message_ID=""), DEFAULT),
    "MESSAGE_ID_ODD": (mail(Message_ID="<1234>"), DEFAULT),
    "MESSAGE_ID_FORGED": (
        mail(Message_ID="<1@eu-west-1.amazonses.com>"),
        mail(Message_ID="<1@eu-west-1.amazonses.com>", DKIM_Signature="v=1; d=amazonses.com"),
    ),
    "OUTLOOK_FORGED": (
        mail(X_Mailer="Microsoft Outlook Express 6.00"),
        mail(
            X_Mailer="Microsoft Outlook Express 6.00",
            Message_ID="<000a01c2a1b2$c3d4e5f6$0100a8c0@ann>",
        ),
    ),
    "OUTLOOK_FIELDS_FORGED": (
        mail(X_MSMail_Priority="Normal"),
        mail(X_MSMail_Priority="Normal", X_MimeOLE="Produced By Microsoft MimeOLE"),
    ),
    "MAILER_RANDOM": (mail(X_Mailer="ZjVqnSBZyGWrtRKM"), mail(X_Mailer="Mutt")),
    "MAILER_SCRIPT": (mail(X_PHP_Script="x.example/mail.php"), DEFAULT),
    "PRIORITY_HIGH": (mail(X_Priority="1 (Highest)"), mail(X_Priority="3")),
    "FIELD_TWICE": (twice(), DEFAULT),
    "REPLY": (mail(Subject="Re: a", In_Reply_To="<1@x.example>"), mail(Subject="Re: a")),
    "THREAD": (mail(References="<1@x.example>"), DEFAULT),
    "LISTED": (mail(List_Id="<dev.example.org>"), DEFAULT),
    "LISTED_SIGNED": (
        mail(List_Unsubscribe="<https://example.com/u>", DKIM_Signature="v=1; d=mail.example.com"),
        mail(List_Unsubscribe="<https://example.com/u>", DKIM_Signature="v=1; d=example.net"),
    ),
    "ONE_CLICK": (
        mail(
            List_Unsubscribe_Post="List-Unsubscribe=One-Click",
            Authentication_Results="mx.example.org; dkim=pass",
        ),
        mail(List_Unsubscribe_Post="List-Unsubscribe=One-Click"),
    ),
    "SAYS_FEE": (
        mail("My late husband left US$12,000,000; you are next of kin. Confidential proposal: the"
             " beneficiary of the fund will transfer the sum. I am Mrs Grace."),
        mail("The bank manager was there."),
    ),
    "SAYS_LOTTERY": (mail("You have won the lottery, claim your prize."), mail("I won the game.")),
    "SAYS_DRUGS": (mail("Viagra without a prescription."), mail("The doctor has time on Monday.")),
    "SAYS_POTENCY": (mail("Enlarge your penis."), mail("Enlarge the picture.")),
    "SAYS_HEALTH": (mail("A miracle for weight loss."), mail("Her weight is right.")),
    "SAYS_SEX": (mail("Hot girls, porn, xxx."), mail("The girls have gone.")),
    "SAYS_LOANS": (mail("Refinance your mortgage at low rates."), mail("He pays his rent.")),
    "SAYS_RICHES": (mail("Work from home, be your own boss."), mail("I am at home today.")),
    "SAYS_CRYPTO": (
        mail("Double your bitcoin: guaranteed profit by our trading platform."),
        mail("Bitcoin was in the news."),
    ),
    "SAYS_EXTORTION": (
        mail("I have hacked your device. I recorded a video of you. Transfer $1400 to my bitcoin"
             " wallet within 48 hours or I send the video to all your contacts."),
        mail("You have 48 hours for the test."),
    ),
    "SAYS_THREAT": (
        mail("Your account will be suspended: verify your identity within 24 hours."),
        mail("The account of the journey was long."),
    ),
    "SAYS_PARCEL": (
        mail("DHL: your parcel could not be delivered, pay the shipping fee."),
        mail("The parcel is here."),
    ),
    "SAYS_PAPERS": (
        mail("Please find attached the swift copy and the purchase order."),
        mail("I read the paper."),
    ),
    "SAYS_LISTS": (mail("Million email addresses for bulk email."), mail("My address is new.")),
    "SAYS_SEO": (
        mail("Get on the first page of Google by SEO and backlinks."),
        mail("I looked for it with Google."),
    ),
    "SAYS_TRADE": (
        mail("We are a professional manufacturer in Shenzhen, best prices, MOQ 1."),
        mail("The factory is closed."),
    ),
    "SAYS_STOCKS": (
        mail("Strong buy: the target price will skyrocket, OTC symbol: abcd."),
        mail("We have it in stock."),
    ),
    "SAYS_GOODS": (mail("Replica Rolex."), mail("I lost my watch.")),
    "SAYS_CASINO": (mail("Our casino: free spins."), mail("We play on Monday.")),
    "SAYS_SALES": (
        mail("Act now! 100% free, no obligation, money back guarantee. Limited time offer."),
        mail("It is for sale now."),
    ),
    "SAYS_EXCUSE": (
        mail("This is not spam. You are receiving this because you opted in. To be removed from"
             " our list reply with the word remove in the subject."),
        mail("The mail was late."),
    ),
    "SAYS_LEAVE": (
        mail("You are receiving this mail because you opted in. Unsubscribe here."),
        mail("She left on Monday."),
    ),
    "SAYS_TASK": (
        mail("Are you available? I need you to get gift cards for a client. I am in a meeting."),
        mail("Are you available on Monday?"),
    ),
    "GREETS_STRANGER": (mail("Dear friend,\nhello."), mail("Dear Fred,\nhello.")),
    "GREETS_ADDRESS": (
        mail("Dear bob.smith@example.org, hello"),
        mail("Dear ann@example.com, hello"),
    ),
    "GREETS_LOCAL_PART": (mail("Hello bob.smith, look"), mail("Hello Bob Smith, look")),
    "TEXT_EMPTY": (mail(""), DEFAULT),
    "TEXT_SHOUTS": (mail(LONG + LONG.upper()), mail(LONG)),
    "TEXT_SHOUTS_ALL": (mail(LONG.upper()), mail(LONG)),
    "TEXT_EXCLAIMS": (mail("Buy! Buy! Buy! Buy!"), mail("Buy!")),
    "TEXT_GAPPY": (mail("now F R E E M O N for you"), mail("a b c")),
    "TEXT_OBFUSCATED": (mail("Get v1agra"), mail("Get viagra")),
    "TEXT_MIXED": (mail("Yоur accоunt at pаypal"), mail("Привет, see the attachment.")),
    "TEXT_INVISIBLE": (mail("ver\u200bify acc\u200bount"), mail("verify\u200b account")),
    "TEXT_MONEY": (mail("$5 $6 $7 $8"), mail("$5 or $6")),
    "TEXT_BIG_MONEY": (mail("the sum of $12,500,000"), mail("the sum of $12,500")),
    "TEXT_RANDOM_LINE": (mail("hello\nxk3j9fq2lz81\n"), mail("hello\nmailboxes\n")),
    "TEXT_PHONE": (mail("Call (888) 555-0142."), mail("Call 555-0142.")),
    "TEXT_UNLABELLED": (
        mail("caf\udce9"),
        mail("café", Content_Type="text/plain; charset=utf-8"),
    ),
    "TEXT_NEEDLESS_BASE64": (
        mail("aGVsbG8=", Content_Type="text/plain", Content_Transfer_Encoding="base64"),
        mail("w6Q=", Content_Type="text/plain; charset=utf-8", Content_Transfer_Encoding="base64"),
    ),
    "HTML_ONLY": (html("<p>hello"), both("hello", "<p>hello")),
    "HTML_IMAGE_ONLY": (html("<img src='http://x.example/a.gif'>"), html(f"{LONG}<img src='a'>")),
    "HTML_PLAIN_DIFFERS": (
        both("nothing of this is what you see over there, nothing at all", f"<p>{LONG}"),
        both(LONG, f"<p>{LONG}"),
    ),
    "HTML_PLAIN_SAME": (
        both(LONG, f"<p>{LONG}"),
        both("see over there, it is all in the other part of it", f"<p>{LONG}"),
    ),
    "HTML_HIDDEN": (
        html("<font color='#ffffff'>a</font><span style='font-size:1px;'>b</span>"),
        html("<font color='#fff000'>a</font>"),
    ),
    "HTML_SPLIT_WORD": (
        html("Via<!-- x -->gra and mort<!-- y -->gage"),
        html("Via <!-- x --> gra and <b>mort</b>gage"),
    ),
    "HTML_REFERENCES": (html("&#86;&#105;&#97;" * 4), html("&#228;" * 20)),
    "HTML_BROKEN": (html("<qqq><zzz><xxy>hello"), html("<p><b><i>hello")),
    "HTML_BIG_FONT": (html("<font size=7>hello"), html("<font size=2>hello")),
    "HTML_LOUD": (html("<font color=red>a<font color=#ff0000>b"), html("<font color=gray>a")),
    "HTML_FORM": (html("<form><input name=a>"), html("<p>form")),
    "HTML_SCRIPT": (html("<script>1</script>"), html("<p>script")),
    "HTML_FRAME": (html("<iframe src='http://x.example'>"), html("<p>frame")),
    "HTML_TINY_IMAGE": (html("<img src=a width=1 height=1>"), html("<img src=a width=9 height=1>")),
    "HTML_CENTERED": (html("<center>a</center><center>b</center>"), html("<center>a</center>")),
    "LINK_IP": (link("http://203.0.113.5/a"), link("http://www.example.net/203.0.113.5")),
    "LINK_PORT": (link("http://x.example:8081/"), link("http://x.example:443/")),
    "LINK_USER": (link("http://bank.example@x.example/"), link("http://x.example/a@b")),
    "LINK_ESCAPED": (link("http://%77%77.x.example/"), link("http://x.example/%77")),
    "LINK_SHORT": (link("https://bit.ly/3x"), link("https://orbit.ly/3x")),
    "LINK_CHEAP_DOMAIN": (link("http://x.top/"), link("http://top.example/")),
    "LINK_LONG_HOST": (link("http://a-b-c-d-e.example/"), link("http://a-b.example/")),
    "LINK_PUNYCODE": (link("http://xn--80ak6aa92e.example/"), link("http://x.example/xn--a")),
    "LINK_ANYBODYS": (link("http://me.weebly.com/"), link("http://weebly.com.example/")),
    "LINK_REDIRECT": (link("http://x.example/?u=http://y.example/"), link("http://x.example/?u=http")),
    "LINK_DOWNLOAD": (link("http://x.example/a.exe"), link("http://x.example/exe")),
    "LINK_LEAVE": (link("http://x.example/remove"), link("http://www.example.com/remove")),
    "LINK_LEAVE_HOME": (
        link("http://www.example.com/unsubscribe"),
        link("http://www.example.com/"),
    ),
    "LINK_BRAND": (link("http://paypal.com.x.example/"), link("http://www.paypal.com/")),
    "LINK_LIES": (
        html('<a href="http://x.example/">www.bank.example</a>'),
        html('<a href="http://www.bank.example/a">https://bank.example/</a>'),
    ),
    "LINK_THREAT": (
        mail("Your account will be suspended. Verify your identity at http://x.example/"),
        mail("Your account will be suspended. Verify your identity at http://example.com/"),
    ),
    "LINKS_HOME": (link("http://www.example.com/"), link("http://x.example/")),
    "LINK_NAMES_YOU": (
        link("http://x.example/?e=bob.smith%40example.org"),
        link("http://x.example/?e=bob.smith"),
    ),
    "LINK_NAMES_YOU_BEHIND": (
        link("http://x.example/#bob.smith@example.org"),
        link("http://x.example/?e=bob.smith@example.org"),
    ),
    "LINK_MAILS_FREEMAIL": (
        link("mailto:x@gmail.com?subject=Report"),
        link("mailto:x@example.com?subject=Report"),
    ),
    "LINK_BARE": (mail("look http://x.example/"), mail("look http://www.example.com/")),
    "FILE_PROGRAM": (file("a.scr"), file("a.pdf")),
    "FILE_MACRO": (file("a.docm"), file("a.docx")),
    "FILE_ARCHIVE": (file("a.zip"), file("zip.txt")),
    "FILE_DOUBLE_NAME": (file("a.pdf   .exe"), file("a.tar.gz")),
    "FILE_HTML": (file("a.html"), file("html.txt")),
    "FILE_OTHER_TYPE": (file("a.pdf", content=LOCKED), file("a.pdf")),
    "FILE_LOCKED": (
        file("a.zip", "The password is 123.", LOCKED),
        file("a.zip", "The key comes later.", LOCKED),
    ),
    "QUOTES": (mail("> a\n> b\nyes"), mail("a > b")),
    "QUOTES_SOMEBODY": (mail("On Monday, Bob wrote:\n> a"), mail("Bob wrote a book.")),
    "SIGNATURE": (mail("hello\n-- \nAnn"), mail("hello\n--- \nAnn")),
    "PATCH": (mail("diff --git a/x b/x\n@@ -1 +1 @@"), mail("The diff is here.")),
    "SIGNED": (mail("-----BEGIN PGP SIGNED MESSAGE-----\nhello"), mail("begin pgp")),
}  # fmt: skip

TABLE = read_weights()
OTHERS = {name for name in TABLE if re.match(r"BAYES_|DNSBL_|URIBL_|KNOWN_", name)}
"""What others say."""


def met(case: Mail, name: str) -> bool:
    return any(hit.name == name for hit in own_hits(*case, OUR, {name: TABLE[name]}))


@pytest.mark.parametrize("name", CASES)
def test_message_meets_test_and_one_like_it_does_not(name: str) -> None:
    """Each test is met by a message that shows it, and not by one that is near."""
    there, near = CASES[name]
    assert met(there, name)
    assert not met(near, name)


@pytest.mark.parametrize(
    "author",
    [
        "PayPal_Team7 <x@update.example>",
        "PayPal, team ,_<x@update.example>",
        "PayPal <x@paypal-safe.example>",
        "Amazon.co.jp <x@update.example>",
    ],
)
def test_borrowed_brands(author: str) -> None:
    """A company's name is seen however the author's name and domain disguise it."""
    assert met(mail(From=author), "BRAND_IN_NAME")


def test_every_test_has_a_case_and_a_weight() -> None:
    """No test without a case, none without a line in the table, no line without a test."""
    assert set(own_tests()) == set(CASES) == set(TABLE) - OTHERS
    assert KNOWN_SENDER in OTHERS


@pytest.mark.parametrize("name", TABLE)
def test_table_explains_every_test_in_a_line(name: str) -> None:
    """Each test says what it means, and by its name who it is."""
    assert re.fullmatch(r"[A-Z][^\n]{8,89}[^.\n]", TABLE[name].about)
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", name)
    assert TABLE[name].weight


def test_a_plain_letter_meets_nothing() -> None:
    """What one person writes to another has no hits."""
    assert own_hits(*DEFAULT, OUR, TABLE) == []


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "192.168.1.7", "fd00::7"])
def test_our_own_machines_may_call_themselves_what_they_like(ip: str) -> None:
    """A program on this machine says our name in HELO, one in our network has no domain."""
    for helo in ("mx.example.org", "pc17", "localhost"):
        message, envelope = mail(Received="", client=Client(ip, "", helo))
        assert own_hits(message, envelope, OUR, TABLE) == []


def test_weights_of_zero_are_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is switched off is not made."""
    asked: list[str] = []
    found: dict[str, Callable[[object], float]] = {
        name: lambda _, name=name: asked.append(name) or 1.0  # type: ignore[misc]
        for name in ("HTML_ONLY", "REPLY")
    }
    monkeypatch.setattr("mdaflow.scan.spam.own_tests", lambda: found)
    table = TABLE | {"REPLY": TABLE["REPLY"]._replace(weight=0)}
    assert [hit.name for hit in own_hits(*DEFAULT, OUR, table)] == ["HTML_ONLY"]
    assert asked == ["HTML_ONLY"]
