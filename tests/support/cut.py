"""A line between client and server that tests can cut: a TCP forwarder of one thread."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Cut:
    """Forwards to `port` from `self.port`. `cut` breaks every connection off and refuses new ones, `mend` lets them in again."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._over = False
        self._whole = True
        self.carried = 0
        """Bytes that came from the server."""
        self._thread = threading.Thread(target=self._run, name="cut")
        self._thread.start()

    def cut(self) -> None:
        with self._lock:
            self._whole = False
            while self._peers:
                self._drop(next(iter(self._peers)))

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.cut()
        self._selector.close()
        self._listener.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if not self._whole:
            client.close()
            return
        try:
            server = socket.create_connection(self._target, 2)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, one: socket.socket) -> None:
        try:
            data = one.recv(1 << 16)
            if data:
                self._peers[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(one)
        elif one.getpeername() == self._target:
            self.carried += len(data)

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._peers.pop(one)):
            self._peers.pop(end, None)
            with suppress(KeyError):
                self._selector.unregister(end)
            end.close()


@contextmanager
def cut_between(port: int) -> Iterator[Cut]:
    cut = Cut(port)
    try:
        yield cut
    finally:
        cut.close()
