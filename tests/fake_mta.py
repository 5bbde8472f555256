"""A next hop for tests: an SMTP or LMTP server whose answer at each stage is scripted.

A stage is `greeting`, `ehlo` (said to LHLO, too), `mail`, `rcpt`, `data`, `dot` or `quit`. Its
answer is bytes that are sent as they are, `HANG` (say nothing until the client has gone), `DROP`
(close the connection), `DRIP` (a reply that never ends), or a list of these, one for each time.
It reads the end of the data as strictly as RFC 5321, and keeps every byte that it was sent.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

from mdaflow.deliver import breaker

HANG, DROP, DRIP = b"<hang>", b"<drop>", b"<drip>"

Answer = bytes | list[bytes]

ANSWERS: dict[str, Answer] = {
    "greeting": b"220 fake ESMTP\r\n",
    "mail": b"250 2.1.0 Ok\r\n",
    "rcpt": b"250 2.1.5 Ok\r\n",
    "data": b"354 Go on\r\n",
    "dot": b"250 2.0.0 Ok: queued as FAKE1\r\n",
    "quit": b"221 2.0.0 Bye\r\n",
}
EXTENSIONS = ("8BITMIME", "SIZE 50000000", "SMTPUTF8")


@dataclass
class Session:
    """What one connection brought."""

    commands: list[bytes] = field(default_factory=list)
    data: bytes = b""
    """What was sent behind DATA, with the end, when there was one."""
    taken: bool = False
    """The end of the data was seen."""


class FakeMTA:
    """`with FakeMTA({"rcpt": b"450 4.2.1 Busy\\r\\n"}) as mta:` and `mta.hop` is its address."""

    def __init__(
        self,
        script: Mapping[str, Answer] = MappingProxyType({}),
        *,
        host: str = "127.0.0.1",
        path: str = "",
        lmtp: bool = False,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        lines = ["fake", *extensions]
        ehlo = "".join(f"250{' -'[n < len(lines)]}{x}\r\n" for n, x in enumerate(lines, 1))
        self._script: dict[str, Answer] = {**ANSWERS, "ehlo": ehlo.encode(), **script}
        self.afterwards = b""
        """Behind the answer to the dot."""
        self.sessions: list[Session] = []
        self._script["lhlo"] = self._script["ehlo"]
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
            self.hop = f"lmtp:unix:{path}"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, 0), family=family)
            port = self._listener.getsockname()[1]
            self.hop = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self.hop = f"lmtp://{self.hop}" if lmtp else self.hop
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        breaker.answered(self.hop)  # whoever had this port before

    def __enter__(self) -> FakeMTA:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything; then `sessions` is complete."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def taken(self) -> list[Session]:
        """The sessions that brought a whole message."""
        return [session for session in self.sessions if session.taken]

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            session = Session()
            self.sessions.append(session)
            self._open.append(conn)
            thread = threading.Thread(target=self._serve, args=(conn, session))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket, session: Session) -> None:
        with conn, contextlib.suppress(OSError):
            self._talk(conn, session)

    def _talk(self, conn: socket.socket, session: Session) -> None:
        held = b""
        ended = self._answer(conn, "greeting")
        while not ended:
            while b"\r\n" not in held:
                chunk = conn.recv(65536)
                if not chunk:
                    return
                held += chunk
            command, _, held = held.partition(b"\r\n")
            session.commands.append(command)
            stage = command.split(b" ")[0].lower().decode()
            ended = self._answer(conn, stage) or stage == "quit"
            if stage == "data" and not ended and self._script["data"] == ANSWERS["data"]:
                held = self._read_data(conn, session, held)
                ended = not session.taken or self._answer(conn, "dot")
                if self.afterwards and session.taken:
                    ended = self._say(conn, self.afterwards)

    def _read_data(self, conn: socket.socket, session: Session, held: bytes) -> bytes:
        got = b"\r\n" + held
        while b"\r\n.\r\n" not in got:
            session.data = got[2:]
            chunk = conn.recv(65536)
            if not chunk:
                return b""
            got += chunk
        end = got.index(b"\r\n.\r\n") + 5
        session.data, session.taken = got[2:end], True
        return got[end:]

    def _answer(self, conn: socket.socket, stage: str) -> bool:
        """Say what the script says. True: this connection is over."""
        answer = self._script.get(stage, b"500 5.5.1 What?\r\n")
        if isinstance(answer, list):
            answer = answer.pop(0)
        return self._say(conn, answer)

    def _say(self, conn: socket.socket, answer: bytes) -> bool:
        if answer == HANG:
            while conn.recv(65536):
                pass
        elif answer == DRIP:
            while True:
                conn.sendall(b"250-and\r\n")
        elif answer != DROP:
            conn.sendall(answer)
            return False
        return True


def closed_hop() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        hop = f"127.0.0.1:{server.getsockname()[1]}"
    breaker.answered(hop)  # whoever had this port before
    return hop
