"""`mdaflow quarantine`: look at what rules have put aside, and release it.

It works as the user that delivers: whoever can read the folder of the quarantine. Exit codes: 0;
66 for a message that is not there; 67 for a user who is none; 75 for what may work later; 77 for
what was refused.
"""

from __future__ import annotations

import click

from mdaflow.cli import Commands


class _Commands(Commands):
    package = __name__
    table = {  # noqa: RUF012  # nobody changes it
        "list": "What is there, and why.",
        "show": "All about one message.",
        "release": "Deliver messages as if they had just come.",
        "learn": "Learn that messages are spam, or are none.",
        "expire": "Delete what has been there for too long.",
        "digest": "Tell users by mail what is new.",
    }


@click.group("quarantine", cls=_Commands)
def command() -> None:
    """Look at what rules have put aside, and release it.

    A message is called by its ID or the beginning of it.
    """
