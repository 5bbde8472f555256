"""Automatic replies: to people who wrote to the recipient, rarely, and never in a loop."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from fake_mta import DROP, HANG, FakeMTA, closed_hop

from mdaflow.deliver import letters, reply
from mdaflow.deliver.job import Job, Means, Memory
from mdaflow.deliver.mailbox import Mailbox
from mdaflow.engine.plan import Action
from mdaflow.mail.envelope import Envelope
from mdaflow.mail.message import Message
from mdaflow.store.memory import MemoryStore

ANN, BOB = "ann@example.com", "bob@example.org"
HEADER = f"From: Ann <{ANN}>\nTo: {BOB}\nSubject: Hello\nMessage-ID: <1@example.com>\n"
ACTION = Action("reply", text="Back on the 5th.\nBob")


def job(
    mta: FakeMTA | str = "127.0.0.1:1",
    header: str = HEADER,
    *,
    sender: str = ANN,
    recipient: str = BOB,
    original: str = "",
    own: tuple[str, ...] = (),
    memory: Memory | None = None,
) -> Job:
    hop = mta if isinstance(mta, str) else mta.hop
    means = Means("mx.example.org", hop, memory=memory or MemoryStore())
    mailbox = Mailbox("maildir", "/nowhere", "Mail")
    envelope = Envelope(sender, recipient, original)
    return Job(Message(f"{header}\nhi\n".encode()), envelope, mailbox, "id1", means, own)


def where(job: Job, action: Action = ACTION) -> str:
    """What a reply says about itself when it is prepared."""
    return reply.prepare(job, action).where


def sent(mta: FakeMTA) -> Message:
    (session,) = mta.taken
    return Message(session.data.removesuffix(b".\r\n").replace(b"\r\n", b"\n"))


def test_reply() -> None:
    """A reply goes to the sender alone, from the null sender, and says what it answers."""
    with FakeMTA() as mta:
        ready = reply.prepare(job(mta), ACTION)
        assert mta.sessions == []
        ready.commit()
    assert ready.where == f"reply {ANN}"
    _, mail, *rest = mta.sessions[0].commands
    assert mail.startswith(b"MAIL FROM:<> ")
    assert rest[:2] == [f"RCPT TO:<{ANN}>".encode(), b"DATA"]
    letter = sent(mta)
    expected = {
        "From": BOB,
        "To": ANN,
        "Subject": "Auto: Hello",
        "Auto-Submitted": "auto-replied (mdaflow)",
        "In-Reply-To": "<1@example.com>",
        "References": "<1@example.com>",
    }
    assert {name: letter.header(name) for name in expected} == {
        name: [value] for name, value in expected.items()
    }
    (ident,) = letter.header("Message-ID")
    assert ident.startswith("<id1.")
    assert ident.endswith("@mx.example.org>")
    assert letter.header("Date")
    assert letter.body == "Back on the 5th.\nBob\n"


def test_options() -> None:
    """A rule may say subject and sender."""
    options = (("subject", "Weg: Größe"), ("from", "Bob Ü <sales@example.org>"))
    with FakeMTA() as mta:
        ready = job(mta, own=("Sales@example.org",))
        reply.prepare(ready, replace(ACTION, options=options)).commit()
    assert sent(mta).header("Subject") == ["Weg: Größe"]
    (sender,) = sent(mta).addresses("From")
    assert (sender.name, sender.address) == ("Bob Ü", "sales@example.org")


def test_hostile_mail() -> None:
    """Nothing of the mail gets out of the field it is put in."""
    header = HEADER.replace("Hello", "=?utf-8?q?a=0D=0ABcc:_c@d=00?=")
    header = header.replace("<1@example.com>", "<1@example.com> <x\r@y>\r\n Bcc: <z@z>")
    with FakeMTA() as mta:
        reply.prepare(job(mta, header), ACTION).commit()
    assert b"bcc" not in sent(mta).fields
    assert sent(mta).header("Subject") == ["Auto: a Bcc: c@d"]
    assert sent(mta).header("In-Reply-To") == ["<1@example.com>"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("References: <a@x>\n <b@x>\nIn-Reply-To: <c@x>\n", "<a@x> <b@x> <1@example.com>"),
        ("In-Reply-To: <c@x>\n", "<c@x> <1@example.com>"),
        ("In-Reply-To: <c@x> <d@x>\n", "<1@example.com>"),
    ],
)
def test_thread(fields: str, expected: str) -> None:
    """The reply stands at the end of the thread (RFC 5322 section 3.6.4)."""
    with FakeMTA() as mta:
        reply.prepare(job(mta, HEADER + fields), ACTION).commit()
    assert sent(mta).header("References") == [expected]


def test_mail_without_an_id() -> None:
    """Mail without a Message-ID or Subject is answered without them."""
    with FakeMTA() as mta:
        reply.prepare(job(mta, f"To: {BOB}\nReferences: <a@x>\n"), ACTION).commit()
    assert not sent(mta).header("References")
    assert sent(mta).header("Subject") == ["Automated reply"]


@pytest.mark.parametrize(
    "local",
    [
        "MAILER-DAEMON",
        "postmaster",
        "Owner-List",
        "list-owner",
        "list-request",
        "LISTSERV",
        "majordomo",
        "majordomo+x",
        "noreply",
        "no-reply",
        "no_reply",
        "No.Reply",
        "noreply-accounts",
        "do-not-reply",
        "DoNotReply",
        "shop-noreply",
        "bounces+bob=example.org",
        "bounce-123",
        "news-bounces",
        '"no-reply"',
        "root",
    ],
)
def test_system_sender(local: str) -> None:
    """Nobody reads what is sent to a program, in the envelope or in From."""
    assert where(job(sender=f"{local}@example.com")) == "no reply: system sender"
    assert where(job(header=HEADER.replace("ann@", f"{local}@"))) == "no reply: system sender"


@pytest.mark.parametrize("local", ["ann", "requester", "owner", "bouncer", "noel", "rooter", "a.b"])
def test_person(local: str) -> None:
    """A person whose name looks a bit like a program's gets a reply."""
    assert where(job(sender=f"{local}@example.com")) == f"reply {local}@example.com"


def test_no_domain() -> None:
    """The postmaster of this site is a system sender, too."""
    assert where(job(sender="Postmaster")) == "no reply: system sender"


def test_null_sender() -> None:
    """A bounce gets no reply."""
    assert where(job(sender="")) == "no reply: null sender"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("Auto-Submitted: auto-replied", "automatic mail"),
        ("Auto-Submitted: auto-generated (rule)", "automatic mail"),
        ("AUTO-SUBMITTED:\n (no) Auto-Notified; x=y", "automatic mail"),
        ("Auto-Submitted: ", "automatic mail"),
        ("Auto-Submitted: no more", "automatic mail"),
        ("Auto-Submitted: (nested (no)) no", "automatic mail"),
        ("Auto-Submitted: no\nAuto-Submitted: auto-replied", "automatic mail"),
        ("List-Id: <x.example.org>", "mailing list"),
        ("list-unsubscribe: <mailto:x@y>", "mailing list"),
        ("X-Mailing-List: x", "mailing list"),
        ("Precedence: bulk", "bulk mail"),
        ("Precedence: Junk", "bulk mail"),
        ("precedence: (x) LIST", "bulk mail"),
        ("X-Auto-Response-Suppress: All", "not wanted"),
        ("X-Auto-Response-Suppress: RN, NRN, oof", "not wanted"),
        ("X-Auto-Response-Suppress: DR", "not wanted"),
        ("X-Auto-Response-Suppress: NDR,AutoReply", "not wanted"),
        ("Content-Type: multipart/report; boundary=x", "automatic mail"),
        ("X-Spam-Flag: YES", "spam"),
        ("X-Spam-Status: Yes, score=9", "spam"),
        ("X-Virus-Status: Infected (x)", "virus"),
    ],
)
def test_marks(field: str, reason: str) -> None:
    """Automatic, bulk and list mail gets no reply, whatever case and comments."""
    assert where(job(header=f"{HEADER}{field}\n")) == f"no reply: {reason}"


@pytest.mark.parametrize(
    "field",
    [
        "Auto-Submitted: no",
        "Auto-Submitted: (a person) NO (really) ; x=y",
        "Precedence: first-class",
        "X-Auto-Response-Suppress: RN, NRN, NDR",
        "X-Auto-Response-Suppress: None",
        "X-Spam-Status: No, score=1",
        "X-List: list-id",
        "Content-Type: text/plain",
    ],
)
def test_no_marks(field: str) -> None:
    """Mail that says it is from a person gets a reply."""
    assert where(job(header=f"{HEADER}{field}\n")) == f"reply {ANN}"


def test_edited_marks() -> None:
    """Rules may add a mark, and can take none away."""
    marked = job(header=f"{HEADER}Precedence: bulk\n")
    assert where(marked, replace(ACTION, message=job().message)) == "no reply: bulk mail"
    assert where(job(), replace(ACTION, message=marked.message)) == "no reply: bulk mail"


@pytest.mark.parametrize("field", ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"])
@pytest.mark.parametrize("address", [BOB.upper(), "old@example.org"])
def test_addressed(field: str, address: str) -> None:
    """The recipient is meant by any own address, in any of the fields."""
    own = job(header=f"From: {ANN}\n{field}: x@y, Me <{address}>\n", own=("Old@example.org",))
    assert where(own) == f"reply {ANN}"


@pytest.mark.parametrize(
    "fields", ["", "To: everybody@example.org\n", f"X-To: {BOB}\n", "To: bob\n"]
)
def test_not_addressed(fields: str) -> None:
    """Mail that does not name the recipient gets no reply."""
    assert where(job(header=f"From: {ANN}\n{fields}")) == "no reply: not addressed"


def test_alias_addressed() -> None:
    """Mail to an alias, or to who has forwarded it, names the recipient only if `me` says so."""
    to_alias = {"header": f"From: {ANN}\nTo: sales@example.org\n", "original": "sales@example.org"}
    assert where(job(**to_alias)) == "no reply: not addressed"  # type: ignore[arg-type]
    assert where(job(**to_alias, own=("sales@example.org",))) == f"reply {ANN}"  # type: ignore[arg-type]


@pytest.mark.parametrize("address", [BOB, BOB.upper(), "old@example.org", "sales@example.org"])
def test_own_address(address: str) -> None:
    """Nobody is sent replies to his own mail, nor to mail that pretends to be."""
    mine = {"original": "sales@example.org", "own": ("old@example.org",)}
    assert where(job(sender=address, **mine)) == "no reply: own address"  # type: ignore[arg-type]
    header = HEADER.replace(ANN, address)
    assert where(job(header=header, **mine)) == "no reply: own address"  # type: ignore[arg-type]


class Notebook(MemoryStore):
    """A memory that says what it was told, and fails when asked to."""

    def __init__(self, *, fail: str = "") -> None:
        super().__init__()
        self.said: list[tuple[str, float | None]] = []
        self.fail = fail

    def get(self, key: str) -> str | None:
        if self.fail == "get":
            raise OSError("down")
        return super().get(key)

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        if self.fail == "put":
            raise OSError("down")
        self.said.append((key, seconds))
        super().put(key, value, seconds)


def test_once() -> None:
    """A sender gets one reply, whatever the case of the address; another sender gets another."""
    memory = Notebook()
    with FakeMTA() as mta:
        reply.prepare(job(mta, memory=memory), ACTION).commit()
        assert where(job(mta, sender=ANN.upper(), memory=memory)) == "no reply: had one"
        reply.prepare(job(mta, sender="carl@x.org", memory=memory), ACTION).commit()
    assert len(mta.taken) == 2
    assert memory.said == [
        (f"reply {BOB} {ANN} ", 604800.0),
        (f"reply {BOB} carl@x.org ", 604800.0),
    ]


@pytest.mark.parametrize(
    ("every", "expected"), [(99999.0, 99999.0), (3600.0, 86400.0), (-5.0, 86400.0)]
)
def test_every(every: float, expected: float) -> None:
    """A rule says how often, and never more than once a day."""
    memory = Notebook()
    with FakeMTA() as mta:
        reply.prepare(
            job(mta, memory=memory), replace(ACTION, options=(("every", every),))
        ).commit()
    assert memory.said == [(f"reply {BOB} {ANN} ", expected)]


def test_another_delivery_was_faster() -> None:
    """Of two replies that were prepared side by side, one is sent."""
    memory = Notebook()
    with FakeMTA() as mta:
        both = [reply.prepare(job(mta, memory=memory), ACTION) for _ in range(2)]
        for ready in both:
            ready.commit()
    assert [ready.where for ready in both] == [f"reply {ANN}", "no reply: had one"]
    assert len(mta.taken) == 1


def test_remembered_before_it_is_sent() -> None:
    """When the connection is lost at the end, the reply counts as sent: fewer, never more."""
    memory = Notebook()
    with FakeMTA({"dot": DROP}) as mta:
        reply.prepare(job(mta, memory=memory), ACTION).commit()
    assert memory.said
    assert mta.taken


def test_not_remembered_when_it_is_refused() -> None:
    """A reply that the next hop does not take may be sent another time."""
    memory = Notebook()
    with FakeMTA({"rcpt": b"450 4.2.0 Busy\r\n"}) as mta:
        ready = reply.prepare(job(mta, memory=memory), ACTION)
        ready.commit()
    assert memory.said == []
    assert ready.where == "no reply: Next hop has trouble, try again later"


@pytest.mark.parametrize(("fail", "sessions"), [("get", 0), ("put", 1)])
def test_memory_that_fails(fail: str, sessions: int, caplog: pytest.LogCaptureFixture) -> None:
    """Without a memory that works there is no reply."""
    with FakeMTA() as mta:
        ready = reply.prepare(job(mta, memory=Notebook(fail=fail)), ACTION)
        ready.commit()
    assert ready.where.startswith("no reply: ")
    assert (len(mta.sessions), mta.taken) == (sessions, [])


def test_no_memory() -> None:
    """Without a memory there is no reply."""
    one = job()
    forgetful = replace(one, means=replace(one.means, memory=None))
    assert where(forgetful) == "no reply: no memory"


def test_nothing_to_send() -> None:
    """What is not sent can be committed and aborted all the same."""
    with FakeMTA() as mta:
        for _ in range(2):
            ready = reply.prepare(job(mta, sender=""), ACTION)
            ready.commit()
            ready.abort()
    assert mta.sessions == []


def test_abort() -> None:
    """An aborted reply was never begun."""
    memory = Notebook()
    with FakeMTA() as mta:
        reply.prepare(job(mta, memory=memory), ACTION).abort()
    assert (mta.sessions, memory.said) == ([], [])


@pytest.mark.parametrize(
    "script",
    [
        {"greeting": HANG},
        {"dot": HANG},
        {"rcpt": b"550 5.1.1 Unknown\r\n"},
        {"dot": b"554 5.7.1 Spam\r\n"},
        {"mail": b"garbage\r\n"},
    ],
)
def test_reply_that_cannot_be_sent(
    script: dict[str, bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that cannot be sent is a line in the log, and no failure of the delivery."""
    if HANG in script.values():
        monkeypatch.setattr(letters, "LIMIT", 0.3)
    with FakeMTA(script) as mta, caplog.at_level(logging.WARNING, "mdaflow"):
        ready = reply.prepare(job(mta), ACTION)
        ready.commit()
    assert ready.where.startswith("no reply: ")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"id1: no reply to <{ANN}>: {mta.hop}: ")
    assert not record.exc_info


@pytest.mark.parametrize("sender", ["not an address", "a@b\nBcc: c@d", "ceo@example.org"])
def test_from_of_others(sender: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no address of the user's own is not taken, and the log says so."""
    with FakeMTA() as mta, caplog.at_level(logging.INFO, "mdaflow"):
        reply.prepare(job(mta), replace(ACTION, options=(("from", sender),))).commit()
    assert sent(mta).header("From") == [BOB]
    assert "none of the user's addresses" in caplog.text


def test_from_of_the_site() -> None:
    """A rule of the site says whom a reply is from."""
    options = (("from", "Desk <desk@example.org>"),)
    with FakeMTA() as mta:
        reply.prepare(job(mta), replace(ACTION, owner="site", options=options)).commit()
    assert sent(mta).header("From") == ["Desk <desk@example.org>"]


@pytest.mark.parametrize("sender", ["not an address", "a@b\nBcc: c@d"])
def test_bad_from(sender: str, caplog: pytest.LogCaptureFixture) -> None:
    """A reply from what is no address is not sent, and the log says so."""
    with FakeMTA() as mta:
        said = replace(ACTION, owner="site", options=(("from", sender),))
        ready = reply.prepare(job(mta), said)
        ready.commit()
    assert ready.where == "no reply: it failed"
    assert "not an address" in caplog.text
    assert not mta.taken


def test_bug(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours costs the reply, not the delivery, and leaves a traceback."""

    def write(*_: object) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(reply, "_write", write)
    ready = reply.prepare(job(closed_hop()), ACTION)
    ready.commit()
    assert ready.where == "no reply: it failed"
    assert caplog.records[0].exc_info
