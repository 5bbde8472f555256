"""What systemd and we tell each other: sockets that it opened, and our state (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("mdaflow")

_FIRST_PASSED = 3


def passed_sockets() -> dict[str, socket.socket]:
    """The sockets that systemd opened for us, by name (sd_listen_fds); empty when it did not."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return {}
    passed = range(_FIRST_PASSED, _FIRST_PASSED + int(os.environ.pop("LISTEN_FDS", "0")))
    for fd in passed:
        os.set_inheritable(fd, False)
    return {f"systemd:{fd}": socket.socket(fileno=fd) for fd in passed}


def notify(state: str) -> None:
    """Tell systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
            except OSError as error:
                log.warning("systemd does not listen: %s", error)
