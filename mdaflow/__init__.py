"""mdaflow: mail delivery by rules that explain themselves.

The way of a message, which the server and the commands go as well:

    rules = compile_rules(text)
    message = Message.from_wire(data)
    plan = run(rules, message, Envelope(sender, recipient), trace=True)
    done = execute(plan, message, envelope, parse_mailbox("maildir:Maildir", home))

Public are the names below, and what is in `mdaflow.errors` and `mdaflow.mail`; all else may
change. A name is imported when it is first used, so that a program pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdaflow.app.build import Site as Site
    from mdaflow.app.build import open_site as open_site
    from mdaflow.app.config import Config as Config
    from mdaflow.app.decide import decide as decide
    from mdaflow.app.decide import find_user as find_user
    from mdaflow.app.decide import sender_of as sender_of
    from mdaflow.app.decide import stages_for as stages_for
    from mdaflow.app.load import read_config as read_config
    from mdaflow.app.pipeline import Courier as Courier
    from mdaflow.app.pipeline import deliver_message as deliver_message
    from mdaflow.app.rulebook import compile_file as compile_file
    from mdaflow.deliver.execute import Done as Done
    from mdaflow.deliver.execute import execute as execute
    from mdaflow.deliver.mailbox import Mailbox as Mailbox
    from mdaflow.deliver.mailbox import parse_mailbox as parse_mailbox
    from mdaflow.engine.context import Fact as Fact
    from mdaflow.engine.plan import Action as Action
    from mdaflow.engine.plan import EvaluationError as EvaluationError
    from mdaflow.engine.plan import Event as Event
    from mdaflow.engine.plan import Plan as Plan
    from mdaflow.engine.run import Stage as Stage
    from mdaflow.engine.run import run as run
    from mdaflow.errors import ConfigError as ConfigError
    from mdaflow.errors import MailError as MailError
    from mdaflow.errors import MdaflowError as MdaflowError
    from mdaflow.errors import PermFail as PermFail
    from mdaflow.errors import Status as Status
    from mdaflow.errors import TempFail as TempFail
    from mdaflow.lang import compile_rules as compile_rules
    from mdaflow.lang.flow.layout import layout as layout
    from mdaflow.lang.ir import ACTIONS as ACTIONS
    from mdaflow.lang.ir import POWERS as POWERS
    from mdaflow.lang.ir import Program as Program
    from mdaflow.lang.lint import lint as lint
    from mdaflow.lang.source import Problem as Problem
    from mdaflow.lang.source import Source as Source
    from mdaflow.lang.source import SourceError as SourceError
    from mdaflow.lang.source import Span as Span
    from mdaflow.mail.address import Address as Address
    from mdaflow.mail.envelope import Client as Client
    from mdaflow.mail.envelope import Envelope as Envelope
    from mdaflow.mail.message import Message as Message
    from mdaflow.route.users import User as User
    from mdaflow.scan import Hit as Hit
    from mdaflow.scan import Report as Report
    from mdaflow.scan import Scanner as Scanner
    from mdaflow.scan import Unscanned as Unscanned
    from mdaflow.store import Store as Store
    from mdaflow.store.memory import MemoryStore as MemoryStore

__version__ = "0.1.0"

_PUBLIC = {
    "mdaflow.app.build": ("Site", "open_site"),
    "mdaflow.app.config": ("Config",),
    "mdaflow.app.decide": ("decide", "find_user", "sender_of", "stages_for"),
    "mdaflow.app.load": ("read_config",),
    "mdaflow.app.pipeline": ("Courier", "deliver_message"),
    "mdaflow.app.rulebook": ("compile_file",),
    "mdaflow.deliver.execute": ("Done", "execute"),
    "mdaflow.deliver.mailbox": ("Mailbox", "parse_mailbox"),
    "mdaflow.engine.context": ("Fact",),
    "mdaflow.engine.plan": ("Action", "EvaluationError", "Event", "Plan"),
    "mdaflow.engine.run": ("Stage", "run"),
    "mdaflow.errors": (
        "ConfigError", "MailError", "MdaflowError", "PermFail", "Status", "TempFail",
    ),
    "mdaflow.lang": ("compile_rules",),
    "mdaflow.lang.flow.layout": ("layout",),
    "mdaflow.lang.ir": ("ACTIONS", "POWERS", "Program"),
    "mdaflow.lang.lint": ("lint",),
    "mdaflow.lang.source": ("Problem", "Source", "SourceError", "Span"),
    "mdaflow.mail.address": ("Address",),
    "mdaflow.mail.envelope": ("Client", "Envelope"),
    "mdaflow.mail.message": ("Message",),
    "mdaflow.route.users": ("User",),
    "mdaflow.scan": ("Hit", "Report", "Scanner", "Unscanned"),
    "mdaflow.store": ("Store",),
    "mdaflow.store.memory": ("MemoryStore",),
}  # fmt: skip
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mdaflow' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
