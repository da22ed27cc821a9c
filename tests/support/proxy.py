"""A TCP proxy on this machine that can stop answering, or answer nonsense, and go on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """Forwards to `target` (host, port); `port` is where it listens itself."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._broken = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def hang(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._flows.clear()

    def fail(self) -> None:
        """Answer every new connection with an HTTP error."""
        self._broken = True
        self._drop()

    def heal(self) -> None:
        """Pass everything on again, also what was held back."""
        self._broken = False
        self._flows.set()

    def close(self) -> None:
        """End all connections and threads."""
        self._flows.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        for thread in self._threads:
            thread.join()

    def _spawn(self, function, *args) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _drop(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self._broken:
                self._spawn(self._refuse, client)
                continue
            server = socket.create_connection(self._target)
            self._sockets.append(server)
            self._spawn(self._forward, client, server)
            self._spawn(self._forward, server, client)

    def _refuse(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    opened = Proxy((host, port))
    try:
        yield opened
    finally:
        opened.close()
