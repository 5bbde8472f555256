"""A name server on the loopback interface that answers as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.message import Message

FAULTS = (
    *("silence", "servfail", "refused", "garbage", "wrong id", "wrong question", "no question"),
    *("query", "loop", "empty", "torn"),
)
"""What it does wrong when it is told so."""


class FakeDNS:
    """Answers what `zone` says of a name: addresses, a fault, or nothing: no such name.

    `truncated: ...` is answered by TCP only, `late: ...` when the question has come twice, and
    `noisy: ...` behind a packet of garbage.
    """

    def __init__(self, zone: Mapping[str, str]) -> None:
        self.zone = dict(zone)
        self.asked: list[str] = []
        self._udp, self._tcp = self._bind()
        self._threads = [threading.Thread(target=f) for f in (self._serve_udp, self._serve_tcp)]

    @staticmethod
    def _bind() -> tuple[socket.socket, socket.socket]:
        """The same port of both kinds; another one may be taken meanwhile."""
        for _ in range(50):
            tcp = socket.create_server(("127.0.0.1", 0))
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind(tcp.getsockname())
                return udp, tcp
            except OSError:
                udp.close()
                tcp.close()
        raise AssertionError("no port is free")

    @property
    def address(self) -> str:
        """ADDRESS:PORT."""
        return "{}:{}".format(*self._udp.getsockname())

    def __enter__(self) -> FakeDNS:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._udp.getsockname())
        socket.create_connection(self._tcp.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            wire, peer = self._udp.recvfrom(4096)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            for answer in self._packets(query, tcp=False):
                self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, connection.makefile("rb") as file:
                wire = file.read(int.from_bytes(file.read(2), "big"))
                if not wire:
                    return
                for answer in self._packets(dns.message.from_wire(wire), tcp=True):
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _packets(self, query: Message, *, tcp: bool) -> list[bytes]:
        name = query.question[0].name.to_text(omit_final_dot=True)
        self.asked.append(name)
        how, _, what = self.zone.get(name, "").rpartition(": ")
        if how == "late" and self.asked.count(name) < 2:
            return []
        if how == "truncated" and not tcp:
            return [_truncated(query)]
        if what in FAULTS:
            return _faulty(query, what)
        noise = [b"", b"\x00", query.id.to_bytes(2, "big") + b"\xff" * 60] if how == "noisy" else []
        return [*noise, _right(query, what.split()).to_wire()]


def _right(query: Message, addresses: list[str]) -> Message:
    answer = dns.message.make_response(query)
    if addresses:
        name = query.question[0].name
        answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", addresses))
    else:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer


def _truncated(query: Message) -> bytes:
    answer = dns.message.make_response(query)
    answer.flags |= dns.flags.TC
    return answer.to_wire()


def _faulty(query: Message, what: str) -> list[bytes]:
    answer = _right(query, ["127.0.0.2"])
    if what in ("silence", "query"):
        return [] if what == "silence" else [query.to_wire()]
    if what in ("servfail", "refused"):
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.from_text(what))
    elif what == "wrong id":
        answer.id ^= 1
    elif what == "wrong question":
        answer.question = dns.message.make_query("other.example", "A").question
    elif what == "no question":
        answer.question = []
    elif what == "loop":
        name = query.question[0].name.to_text()
        answer.answer = [
            dns.rrset.from_text(name, 60, "IN", "CNAME", "b.example."),
            dns.rrset.from_text("b.example.", 60, "IN", "CNAME", name),
        ]
    wire = answer.to_wire()
    spoilt = {"garbage": wire[:2] + bytes(range(255)), "empty": b"", "torn": wire[:-3]}
    return [spoilt.get(what, wire)]
