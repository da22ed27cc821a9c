"""A store that takes connections and never answers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import quote

import pytest

from support.waiting import wait_until


@pytest.mark.slow
def test_sigterm_ends_the_exporter_while_its_store_hangs(tmp_path) -> None:
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return  # closed

        thread = threading.Thread(target=accept)
        thread.start()
        endpoint = quote(f"http://127.0.0.1:{port}", safe="")
        uri = f"s3://key:secret@bucket/x?region=us-east-1&endpoint_override={endpoint}"
        command = [sys.executable, "-m", "ray_workflow_exporter", "serve", "--address", "none"]
        command += ["--storage", uri, "--web.listen-address", "127.0.0.1:0"]
        process = subprocess.Popen([*command, "--state-dir", str(tmp_path)])
        try:
            wait_until(lambda: bool(held), timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()
