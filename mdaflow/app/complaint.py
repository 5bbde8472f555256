"""What the owner of a list is told: who of the members can never have a message."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mdaflow.deliver.job import Job
from mdaflow.errors import Status
from mdaflow.route.destination import Destination

MAX_TOLD = 100
"""Members that are named."""
_TEXT = """\
A message from <{sender}> to the list {list} could not be delivered to these members, and never will
be as things are:

{lines}

Please take them off the list, or mend their addresses.
"""


def tell(job: Job, owner: str, refused: Sequence[tuple[Destination, Status]]) -> None:
    """Send the letter, with the null sender. Raises MailError, OSError, ValueError."""
    from mdaflow.deliver import letters, send  # socket, and only for what is sent
    from mdaflow.mail.letter import compose

    hostname, about = job.means.hostname, job.envelope
    lines = [f"    {destination.name}: {status}" for destination, status in refused[:MAX_TOLD]]
    if len(refused) > MAX_TOLD:
        lines.append(f"    and {len(refused) - MAX_TOLD} more")
    text = compose(
        sender=f"MAILER-DAEMON@{hostname}",
        recipient=owner,
        subject=f"Could not be delivered: {about.recipient}",
        text=_TEXT.format(list=about.recipient, sender=about.sender, lines="\n".join(lines)),
        date=time.time(),
        message_id=letters.message_id(job),
        fields={"Auto-Submitted": "auto-generated (list)"},
    )
    send.prepare(job.means, "", (owner,), [text], letters.LIMIT).commit()
