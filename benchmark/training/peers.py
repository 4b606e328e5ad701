"""Connections by which the processes of one cell notice that another one has ended.

The end of a process is noticed at once, that of a machine within a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

PING_SECONDS = 5.0
SILENCE_SECONDS = 60.0
JOIN_SECONDS = 600.0
GRACE_SECONDS = 30.0


class Offer:
    """The leader waits for its followers.

    `text` says where they connect, as `address port token`.
    """

    def __init__(self, address: str) -> None:
        local, both = address == "127.0.0.1", socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both and not local else socket.AF_INET
        self._server = socket.create_server(
            (address if local else "", 0), family=family, dualstack_ipv6=both and not local
        )
        self._token = secrets.token_hex(16)
        self.text = f"{address} {self._server.getsockname()[1]} {self._token}"

    def accept(self, followers: int) -> list[socket.socket]:
        """The connections of this many followers. Raises TimeoutError after JOIN_SECONDS."""
        self._server.settimeout(JOIN_SECONDS)
        accepted: list[socket.socket] = []
        while len(accepted) < followers:
            peer, _ = self._server.accept()
            peer.settimeout(PING_SECONDS)
            with contextlib.suppress(OSError):
                if secrets.compare_digest(peer.recv(32, socket.MSG_WAITALL), self._token.encode()):
                    accepted.append(peer)
        self._server.close()
        return accepted


def connect(offer: str) -> socket.socket:
    """A follower's connection to the leader that made the offer."""
    address, port, token = offer.split()
    peer = socket.create_connection((address, int(port)), timeout=JOIN_SECONDS)
    peer.sendall(token.encode())
    return peer


class Peers:
    """Connections to the other processes, each with a thread that listens.

    lost: called in such a thread when a process has ended or has been silent for SILENCE_SECONDS.
    failure: what a process announced before it ended; this process then has GRACE_SECONDS to end in
    order.
    """

    def __init__(self, peers: list[socket.socket], lost: Callable[[], None]) -> None:
        self.failure: dict[str, Any] | None = None
        self._peers, self._lost = peers, lost
        for peer in peers:
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def announce(self, failure: dict[str, Any]) -> None:
        """Tell the other processes why this one ends."""
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(failure).encode() + b"\n")

    def _listen(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._until_silent(peer)
        if self.failure is not None:
            time.sleep(GRACE_SECONDS)
        self._lost()

    def _until_silent(self, peer: socket.socket) -> None:
        heard = time.monotonic()
        next_ping, partial = heard, b""
        while (now := time.monotonic()) - heard < SILENCE_SECONDS:
            if now >= next_ping:
                peer.sendall(b"\n")
                next_ping = now + PING_SECONDS
            if not select.select([peer], [], [], max(0.0, next_ping - now))[0]:
                continue
            chunk = peer.recv(1 << 16)
            if not chunk:
                return
            heard = time.monotonic()
            *lines, partial = (partial + chunk).split(b"\n")
            for line in filter(None, lines):
                self.failure = json.loads(line)


def end(code: int) -> None:
    """End this process from any thread.

    Its main thread may wait in a call that nothing else would end.
    """
    os._exit(code)
