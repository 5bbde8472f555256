"""The configuration as frozen values, with the defaults of an empty file.

These are plain dataclasses: a command that reads no file pays for no YAML and no pydantic.
`load` (load.py) fills them from YAML and checks every value against the types here.
Sizes are bytes, times are seconds; in the file they may carry a unit (`50M`, `2 minutes`).

A setting is declared here and nowhere else: name, type, default, and the text below it, which
is its description in the schema. What a type cannot say is a word, `Is("mode")`, whose meaning
is in the table KINDS of kinds.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from mdaflow.lang.limits import DEFAULTS

_STRICT = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}
"""What pydantic is told of each class: a key nobody knows is an error, never a default (P51)."""


class Is(str):
    """What a value is beyond its type: a word of the table KINDS in kinds.py."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> Any:
        # Only pydantic calls this, so a start without a file pays nothing for the checks.
        from mdaflow.app.kinds import checked

        return checked(self, handler(source))


Count = Annotated[int, Is("count")]
Size = Annotated[int, Is("size")]
Seconds = Annotated[float, Is("seconds")]
Path = Annotated[str, Is("path")]


@dataclass(frozen=True, slots=True)
class Lmtp:
    """The LMTP server (RFC 2033)."""

    __pydantic_config__ = _STRICT

    listen: Annotated[tuple[Annotated[str, Is("listen")], ...], Is("some")] = (
        "unix:/run/mdaflow/lmtp.sock",
    )
    """`unix:/path` or `host:port`."""
    mode: Annotated[str, Is("mode")] = "0600"
    """Permissions of a unix socket, octal."""
    owner: Annotated[str, Is("owner")] = ""
    """`user` or `user:group` that a unix socket is given to, e.g. `postfix`."""
    workers: Annotated[int, Is("workers")] = 0
    """Worker processes; 0 is one for each core."""
    threads: Annotated[int, Is("threads")] = 16
    """Deliveries at once in one worker."""
    memory: Size = 512 << 20
    """A worker that has grown by more since it began is replaced, in bytes."""
    max_size: Size = 50 << 20
    """The largest message accepted, in bytes."""
    max_recipients: Count = 1000
    """Recipients of one transaction."""
    max_connections: Count = 200
    """Connections of one worker."""
    idle: Seconds = 300.0
    """A client that says nothing for so long is dropped, in seconds."""
    deadline: Seconds = 120.0
    """The longest time from the final dot to the replies, in seconds (P8)."""
    spool: Annotated[str, Is("folder")] = ""
    """Where messages over 64 KiB wait while they arrive; empty is `state`."""
    reserve: Annotated[int, Is("reserve")] = 64 << 20
    """Bytes that stay free there: with less, mail is put off before it is sent (P44)."""
    trusted: tuple[Annotated[str, Is("network")], ...] = ("127.0.0.0/8", "::1/128")
    """Networks whose clients may say XFORWARD; those of unix sockets always may."""
    peers: tuple[Annotated[str, Is("login")], ...] = ()
    """Users who may connect to a unix socket; empty for all that its mode lets."""
    proxies: tuple[Annotated[str, Is("network")], ...] = ()
    """Networks of proxies, which have to begin with a PROXY header (HAProxy)."""
    certificate: Annotated[str, Is("file")] = ""
    """A file with the certificate and its chain, PEM; with it STARTTLS is offered."""
    key: Annotated[str, Is("file")] = ""
    """A file with its key, PEM; empty when it is in the certificate's file."""


@dataclass(frozen=True, slots=True)
class Folders:
    """A source of users: whoever has a folder `root/DOMAIN/USER` is a user."""

    __pydantic_config__ = _STRICT

    folders: Path
    """The root of the tree."""
    mailbox: Annotated[str, Is("mailbox")] = "maildir:Maildir"
    """`maildir:PATH`, `mbox:PATH` or `mbox:PATH:INBOX=PATH`, below the user's folder; behind it
    `:LAYOUT=fs`, `:UTF-8`, `:SUBSCRIBE` and `:SEPARATOR=CHARACTER`."""
    quota: Annotated[int, Is("quota")] = 0
    """How much mail a user may have, in bytes; 0 or empty for any. Only in Maildirs."""
    quota_messages: Annotated[int, Is("quota_messages")] = 0
    """How many messages a user may have; 0 for any. Only in Maildirs."""


@dataclass(frozen=True, slots=True)
class System:
    """A source of users: the accounts of this machine. Rules are run and mail is written as the
    user whose mail it is, so mdaflow has to be started as root."""

    __pydantic_config__ = _STRICT

    system: tuple[Annotated[str, Is("hostname")], ...] = ()
    """The domains in which accounts have mail; empty for any."""
    mailbox: Annotated[str, Is("mailbox_of_account")] = "maildir:Maildir"
    """As of `folders`, and `mbox:PATH:INBOX=/var/mail/%u`: `%u` is the login name."""
    min_uid: Annotated[int, Is("uid")] = 1000
    """Accounts below have no mail: they are those of services. Root never has any."""
    max_uid: Annotated[int, Is("uid")] = 60_000
    """Nor have accounts above: one of them is `nobody`."""
    quota: Annotated[int, Is("quota")] = 0
    """How much mail a user may have, in bytes; 0 or empty for any. Only in Maildirs."""
    quota_messages: Annotated[int, Is("quota_messages")] = 0
    """How many messages a user may have; 0 for any. Only in Maildirs."""


def _told(default: Any, text: str) -> Any:
    """A default with its description, which pydantic does not find below what is inherited."""
    return field(default=default, metadata={"description": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the users of a source have for which it says nothing else."""

    home: Annotated[str, Is("home")] = _told(
        "", "The user's folder: `%u` is the address, `%n` its local part, `%d` its domain."
    )
    mailbox: Annotated[str, Is("mailbox")] = _told(
        "maildir:Maildir", "As of `folders`, and with `%u`, `%n` and `%d`."
    )
    quota: Annotated[int, Is("quota")] = _told(
        0, "How much mail a user may have, in bytes; 0 or empty for any. Only in Maildirs."
    )
    quota_messages: Annotated[int, Is("quota_messages")] = _told(
        0, "How many messages a user may have; 0 for any. Only in Maildirs."
    )
    uid: Annotated[int, Is("id")] = _told(0, "As whom mail is written; 0 for the server's user.")
    gid: Annotated[int, Is("id")] = _told(0, "The group of that.")
    min_uid: Annotated[int, Is("uid")] = _told(
        1000, "The lowest uid, and gid, that the source may give a user."
    )
    max_uid: Annotated[int, Is("uid")] = _told(60_000, "The highest uid.")
    rules: Annotated[str, Is("below_or_none")] = _told(
        "", "The user's own rules, below the user's folder; empty for `rules.user`."
    )
    timezone: Annotated[str, Is("zone")] = _told(
        "", "The zone of a user's clock; empty for `timezone` of the site."
    )
    spam_required: Annotated[float, Is("score")] = _told(
        0.0, "The `spam.score` from which on mail is spam for a user; 0 for that of the site."
    )


@dataclass(frozen=True, slots=True)
class Passwd(Profile):
    """A source of users: a passwd-file, as Dovecot and Unix have it."""

    __pydantic_config__ = _STRICT

    passwd: Path
    """The file."""
    domains: tuple[Annotated[str, Is("hostname")], ...] = ()
    """The domains of users that stand there without one; empty for any."""


@dataclass(frozen=True, slots=True)
class Sql(Profile):
    """A source of users: a database."""

    __pydantic_config__ = _STRICT

    sql: str
    """`sqlite:////PATH`, `postgresql://USER@HOST/NAME` or `mariadb://USER@HOST/NAME`."""
    user: str
    """The query for one user, by `:address`, `:local`, `:domain`, `:user` and `:detail`."""
    domains: str = ""
    """A query with a row if `:domain` is one of ours."""
    users: str = ""
    """The query for all users."""
    password: Annotated[str, Is("file")] = ""
    """A file with the password, if it is not in the URL."""


@dataclass(frozen=True, slots=True)
class Static(Profile):
    """A source of users: everybody in some domains."""

    __pydantic_config__ = _STRICT

    static: Annotated[tuple[Annotated[str, Is("hostname")], ...], Is("some")]
    """The domains."""


Source = Annotated[Folders | System | Passwd | Sql | Static, Is("source")]


OnError = Literal["defer", "deliver-tagged", "quarantine"]


@dataclass(frozen=True, slots=True)
class Clamd:
    """A scanner: clamd of ClamAV, which looks for viruses."""

    __pydantic_config__ = _STRICT

    clamd: Annotated[tuple[Annotated[str, Is("server")], ...], Is("some")]
    """`unix:/path` or `host:port`; the next one is asked when one cannot say."""
    parts: Literal["ambiguous", "always", "never"] = "ambiguous"
    """When it gets the decoded parts, too: of mail that readers could take apart differently, of
    all, of none."""
    max_size: Size = 25 << 20
    """Larger messages count as not scanned; `StreamMaxLength` of clamd, or less."""
    timeout: Seconds = 30.0
    """Seconds for one message."""
    on_error: OnError = "defer"
    """What becomes of mail that it could not scan: it is put off, delivered with a field that says
    so, or quarantined."""


@dataclass(frozen=True, slots=True)
class Spamd:
    """A scanner: spamd of SpamAssassin."""

    __pydantic_config__ = _STRICT

    spamd: Annotated[tuple[Annotated[str, Is("server")], ...], Is("some")]
    """As of `clamd`."""
    user: Annotated[str, Is("spamd_user")] = ""
    """Whose settings it shall use: a name, or `recipient` for the address of each recipient, for
    whom it is then asked anew."""
    weight: float = 1.0
    """What its score counts, in ours."""
    max_size: Size = 512 << 10
    """Larger messages are not sent to it."""
    timeout: Seconds = 30.0
    """Seconds for one message."""
    on_error: OnError = "deliver-tagged"
    """As of `clamd`."""


@dataclass(frozen=True, slots=True)
class Rspamd:
    """A scanner: rspamd."""

    __pydantic_config__ = _STRICT

    rspamd: Annotated[tuple[Annotated[str, Is("url")], ...], Is("some")]
    """`http://host:port` or `unix:/path`; the next one is asked when one cannot say."""
    controllers: tuple[Annotated[str, Is("url")], ...] = ()
    """Where it learns what `mdaflow learn --site` is told; empty for nowhere."""
    password: Annotated[str, Is("file")] = ""
    """A file with its password."""
    per_recipient: bool = False
    """It is told the recipient, and so asked anew for each."""
    weight: float = 1.0
    """What its score counts, in ours."""
    max_size: Size = 10 << 20
    """Larger messages are not sent to it."""
    timeout: Seconds = 30.0
    """Seconds for one message."""
    on_error: OnError = "deliver-tagged"
    """As of `clamd`."""


@dataclass(frozen=True, slots=True)
class Package:
    """A scanner of another Python package, which names it in the group `mdaflow.scanners`."""

    __pydantic_config__ = _STRICT

    package: Annotated[str, Is("word")]
    """Its name."""
    options: dict[str, Any] = field(default_factory=dict)
    """What it shall know."""
    looks_for: tuple[Literal["virus", "spam"], ...] = ()
    """What it is asked about, besides `finding`."""
    timeout: Seconds = 30.0
    """Seconds for one message."""
    on_error: OnError = "defer"
    """As of `clamd`."""


Scanner = Annotated[Clamd | Spamd | Rspamd | Package, Is("scanner")]


@dataclass(frozen=True, slots=True)
class Virus:
    """What becomes of viruses."""

    __pydantic_config__ = _STRICT

    found: Literal["quarantine", "nothing"] = "quarantine"
    """Whether a virus goes to the quarantine before any rule; `nothing` leaves that to rules."""
    tag: bool = False
    """Add `X-Virus-Status`."""


@dataclass(frozen=True, slots=True)
class Dns:
    """Lists in the DNS. Nobody is asked unless some are named."""

    __pydantic_config__ = _STRICT

    clients: Annotated[dict[str, str], Is("zones")] = field(default_factory=dict)
    """Lists of addresses of SMTP clients: zone -> what is behind `DNSBL_` in the name of the test,
    such as `zen.spamhaus.org: CLIENT`."""
    domains: Annotated[dict[str, str], Is("zones")] = field(default_factory=dict)
    """Lists of domains, of senders and in links: zone -> what is behind `URIBL_`."""
    nameservers: tuple[Annotated[str, Is("nameserver")], ...] = ()
    """`ADDRESS` or `ADDRESS:PORT`; empty for those of the machine."""
    timeout: Seconds = 2.0
    """Seconds for all questions about one message; 5 at most."""


@dataclass(frozen=True, slots=True)
class Spam:
    """Spam: from when on mail is some, and what is done with it."""

    __pydantic_config__ = _STRICT

    required: Annotated[float, Is("score")] = 5.0
    """The `spam.score` from which on a message is `spam`."""
    folder: Annotated[str, Is("folder_name")] = ""
    """Where spam goes that rules left to the inbox, such as `Junk`; empty for the inbox."""
    tags: tuple[Literal["X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"], ...] = ()
    """Fields to add to all mail."""
    subject: Annotated[str, Is("line")] = ""
    """What is put before the subject of spam, such as `[SPAM]`."""
    tests: Annotated[str, Is("file")] = ""
    """A file with weights of tests, where they shall be others than ours."""
    bad_senders: tuple[Path, ...] = ()
    """Files with addresses and domains of bad senders, one a line."""
    bad_hosts: tuple[Path, ...] = ()
    """Files with names, domains and addresses of bad SMTP clients."""
    bad_links: tuple[Path, ...] = ()
    """Files with hosts and domains to which bad links lead."""
    known: tuple[Path, ...] = ()
    """Folders of known spam: a Maildir, a folder of files, or an mbox."""
    junk: Annotated[tuple[Annotated[str, Is("some_folder")], ...], Is("some")] = ("Junk",)
    """The folders of users in which there is spam: what is known, and what is learned."""
    trash: tuple[Annotated[str, Is("some_folder")], ...] = (
        "Trash",
        "Deleted Items",
        "Deleted Messages",
    )
    """The folders of users for what is deleted: what comes there from `junk` is no ham."""
    sent: tuple[Annotated[str, Is("some_folder")], ...] = ("Sent", "Sent Items", "Sent Messages")
    """The folders of users with what they have sent: who got it is known."""
    dns: Dns = field(default_factory=Dns)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules of the site and of users may be and do, each program for itself."""

    __pydantic_config__ = _STRICT

    file: Size = DEFAULTS.file
    """Bytes of a file and all that it imports."""
    rules: Count = DEFAULTS.rules
    """Rules in one file."""
    nesting: Annotated[int, Is("nesting")] = DEFAULTS.nesting
    """Levels of blocks and conditions, one in another."""
    imports: Annotated[int, Is("nesting")] = DEFAULTS.imports
    """Levels of imports."""
    actions: Count = DEFAULTS.actions
    """Actions that one message may meet."""
    forwards: Count = DEFAULTS.forwards
    """Addresses that one message is sent on to, replies and notices counted."""
    cpu: Seconds = DEFAULTS.cpu
    """CPU that the rules of one stage may take for one message, in seconds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where rules are: the site's two stages, and the file of each user."""

    __pydantic_config__ = _STRICT

    before: Path = "/etc/mdaflow/rules/before"
    """A folder of `*.rules`, run in the order of their names before the user's rules."""
    user: Annotated[str, Is("below")] = ".mdaflow/rules"
    """The user's own file, below the user's folder."""
    after: Path = "/etc/mdaflow/rules/after"
    """A folder of `*.rules`, run for what nobody finished."""
    grant: tuple[
        Literal["reject", "defer", "pipe", "filter", "command", "learn", "files"], ...
    ] = ()
    """What the rules of users may do besides what they may anyway; `files` is mailboxes named
    by absolute paths."""
    deny: tuple[
        Literal["forward", "reply", "notify", "quarantine", "discard", "remember", "log"], ...
    ] = ()
    """What the rules of users may not do."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Srs:
    """Rewriting the senders of what is forwarded, for receivers that check SPF."""

    __pydantic_config__ = _STRICT

    domain: Annotated[str, Is("hostname")] = ""
    """The domain of rewritten senders, whose mail comes here; empty for senders as they are."""
    secrets: Path = "/etc/mdaflow/srs.secrets"
    """A file of keys, one a line, the newest first."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What of a message goes on to others."""

    __pydantic_config__ = _STRICT

    file: Annotated[str, Is("below_or_none")] = ""
    """The file below a user's folder that says where his mail goes, such as `.forward`; empty for
    none, as where local(8) of Postfix has read it already."""
    srs: Srs = field(default_factory=Srs)
    resent: bool = False
    """Add Resent fields, which say who has sent the message on."""


@dataclass(frozen=True, slots=True)
class Log:
    """The log."""

    __pydantic_config__ = _STRICT

    to: Annotated[str, Is("log")] = "stderr"
    """`stderr`, `syslog` (facility mail), or the path of a file."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`."""
    format: Literal["text", "json"] = "text"
    """`text` or `json`."""


@dataclass(frozen=True, slots=True)
class Config:
    """All of it."""

    __pydantic_config__ = _STRICT

    hostname: Annotated[str, Is("hostname")] = ""
    """Our name in replies and trace headers; empty is the machine's name."""
    user: Annotated[str, Is("user")] = ""
    """The user that delivers; needed when mdaflow starts as root."""
    users: Annotated[tuple[Source, ...], Is("users")] = (Folders("/var/mail/vhosts"),)
    """Where users come from, asked in this order; or `system`: the accounts of this machine."""
    domains: tuple[Annotated[str, Is("hostname")], ...] = ()
    """Domains whose mail ends here, besides those that a source of users knows. With any given,
    names without a domain in files of aliases count in these alone."""
    aliases: tuple[Annotated[str, Is("table")], ...] = ()
    """Files of aliases, asked in this order: `/etc/aliases` as in aliases(5), `virtual:/PATH` as in
    virtual(5), `regexp:/PATH` with regular expressions."""
    postmaster: Annotated[str, Is("recipient")] = ""
    """Who gets mail for postmaster, abuse and MAILER-DAEMON where nobody has these names; empty for
    nobody."""
    access: tuple[Path, ...] = ()
    """Files that say whose mail is taken, by client, sender and recipient, as sendmail's access
    table; asked in this order."""
    over_quota: Literal["defer", "reject"] = "defer"
    """What becomes of mail that has no room: it is put off, or refused for good."""
    quota_warning: Annotated[int, Is("percent")] = 90
    """The percentage of a quota at which a user gets a warning by mail; 0 for none."""
    recipient_delimiter: Annotated[str, Is("delimiter")] = "+"
    """Characters that divide user and detail in a local part; empty for none."""
    detail_folders: bool = False
    """Mail that rules leave to the inbox, and that came for `user+detail`, goes to the folder
    `detail`, if the user has one."""
    lmtp: Lmtp = field(default_factory=Lmtp)
    rules: Rules = field(default_factory=Rules)
    state: Path = "/var/lib/mdaflow"
    """Where small state is kept (SQLite)."""
    store: Annotated[str, Is("store")] = ""
    """What several machines share: `redis://HOST:PORT/DB`, `rediss://` or `unix:///PATH`, with
    `?site=NAME` behind it when sites share a server; empty for one machine."""
    quarantine: Path = "/var/lib/mdaflow/quarantine"
    """The folder of the quarantine; it has to exist before a rule uses it."""
    quarantine_days: Count = 30
    """Days after which `mdaflow quarantine expire` deletes what is in there."""
    forward: Forward = field(default_factory=Forward)
    next_hop: Annotated[str, Is("hop")] = "127.0.0.1:25"
    """The MTA that takes what we send: `host:port` for SMTP, or with `smtp://` or `lmtp://` before
    it, or `lmtp:unix:/path`."""
    relay: Annotated[str, Is("hop_or_none")] = ""
    """The MTA that takes mail for other domains, as `next_hop`; empty for that one."""
    timezone: Annotated[str, Is("zone")] = ""
    """The zone of dates in rules, e.g. `Europe/Vienna`; empty is the machine's."""
    trusted_authserv_ids: tuple[Annotated[str, Is("hostname")], ...] = ()
    """Whose Authentication-Results fields rules believe (RFC 8601): those of our own MTA."""
    scanners: tuple[Scanner, ...] = ()
    """Who looks into messages, besides ourselves."""
    virus: Virus = field(default_factory=Virus)
    spam: Spam = field(default_factory=Spam)
    log: Log = field(default_factory=Log)

    @property
    def has_accounts(self) -> bool:
        """Have accounts of this machine mail here?"""
        return any(isinstance(source, System) for source in self.users)

    @property
    def has_uids(self) -> bool:
        """May a source say as whom mail is written?"""
        return any(
            source.uid if isinstance(source, Static) else not isinstance(source, Folders)
            for source in self.users
        )
