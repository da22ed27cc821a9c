"""Ports of this machine, none of which another worker of the suite is given."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below what the kernel gives to those that ask for any port: nobody else takes one between the
# moment it is chosen and the moment it is listened on. Each worker of pytest-xdist has its own.
FIRST, WIDTH, WORKERS = 21_000, 1_000, 11

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS
_numbers = itertools.count(random.randrange(WIDTH))


def free_port() -> int:
    """Return a TCP port that nobody listens on, and that was not returned lately."""
    for _ in range(WIDTH):
        port = FIRST + _worker * WIDTH + next(_numbers) % WIDTH
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
