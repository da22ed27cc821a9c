"""The exporter as a child of Ray's dashboard agent.

Its first line of input is the node (`Node.to_json`); it leaves, within two seconds, when its input
ends, which it does however the agent ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .node import Node

REFRESH_SECONDS = 10.0
# The link to Ray is a process of its own, and takes up to a second more.
LEAVE_SECONDS = 1.0
_CLUSTER_VARIABLE = "RAY_CLUSTER_NAME"  # KubeRay sets it

_log = logging.getLogger(f"{__package__}.child")  # not `__main__`


def main() -> NoReturn:
    """Serve until the agent ends, and end this process."""
    presence = _Presence(Node.from_json(_first_line()))
    # Before anything that takes its time, such as the imports below.
    threading.Thread(target=_leave_with_agent, args=(presence,), daemon=True).start()
    code = 1
    try:
        code = _serve(presence)
    except BaseException:
        _log.exception("The workflow exporter failed.")
    presence.withdraw()
    logging.shutdown()
    # Python itself would wait for its threads, and one may hang in storage for ever.
    os._exit(code)


class _Presence:
    """Keeps the files that say where we listen, until they are withdrawn for good."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._told = ""

    def keep(self, addresses: Sequence[tuple[str, int]], alive: Callable[[], bool]) -> None:
        """Write them again and again; end this process when it is not `alive`."""
        while True:
            with self._writing:
                if self._over.is_set():
                    return
                self._announce(addresses)
            self._over.wait(REFRESH_SECONDS)
            if not alive():
                _log.error("The poll loop shows no life: this process ends, to be started again.")
                os._exit(3)

    def _announce(self, addresses: Sequence[tuple[str, int]]) -> None:
        try:
            self.node.announce(addresses, os.environ.get(_CLUSTER_VARIABLE))
        except Exception as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("Prometheus and the dashboard cannot be told our address: %s", error)

    def withdraw(self) -> None:
        """Remove them."""
        with self._writing:
            self._over.set()
            try:
                self.node.withdraw()
            except Exception as error:
                _log.warning("Prometheus and the dashboard may be told of us still: %s", error)


def _first_line() -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(
                "This is started by Ray's dashboard agent; by hand, the exporter is started with "
                "`ray-workflow-exporter serve`."
            )
        line += byte
    return line.decode()


def _leave_with_agent(presence: _Presence) -> None:
    while os.read(0, 1):
        pass
    # Whatever holds up the orderly end: a poll, a client, a disk.
    end = threading.Timer(LEAVE_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()
    os.kill(os.getpid(), signal.SIGTERM)
    presence.withdraw()


def _serve(presence: _Presence) -> int:
    from .. import logs
    from ..exporter import Exporter
    from ..server.app import longest_silence
    from ..server.listening import run_server
    from ..settings import CONFIG_VARIABLE, Settings, SettingsError

    node = presence.node
    logs.configure(Settings.load(None, {}, {}))
    try:
        config = os.environ.get(CONFIG_VARIABLE)
        settings = Settings.load(
            Path(config) if config else None, os.environ, {"address": node.gcs_address}
        )
        if settings.storage is None:
            settings = settings.model_copy(update={"storage": node.storage})
        logs.configure(settings)
        _log.info("watching the Ray at %s from its head node %s", node.gcs_address, node.node_id)
        exporter = Exporter(settings, keep=True)
        exporter.start()

        def alive() -> bool:
            return exporter.heartbeat_age <= longest_silence(settings)

        def listening(addresses: Sequence[tuple[str, int]]) -> None:
            threading.Thread(target=presence.keep, args=(addresses, alive), daemon=True).start()

        try:
            run_server(exporter, settings, listening)
        finally:
            exporter.close()
    except SettingsError as error:
        _log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    main()
