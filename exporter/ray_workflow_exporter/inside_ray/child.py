"""The exporter as a child of Ray's dashboard agent.

Its first line of input is the node (`Node.to_json`). It ends within two seconds after its input
does, and that ends with the agent in every case.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NoReturn

from . import files
from .node import Listening, Node
from .supervisor import LARGEST_OUTPUT

REFRESH_SECONDS = 1.0
# The link to Ray is another process and takes up to a second more.
LEAVE_SECONDS = 1.0
_CLUSTER_VARIABLE = "RAY_CLUSTER_NAME"  # KubeRay sets it
# The same limits as for Ray's own logs (ray/_private/node.py).
_LARGEST_LOG_VARIABLE, _LARGEST_LOG = "RAY_ROTATION_MAX_BYTES", 16 << 20
_OLD_LOGS_VARIABLE, _OLD_LOGS = "RAY_ROTATION_BACKUP_COUNT", 5

_log = logging.getLogger(f"{__package__}.child")  # not `__main__`


def main() -> NoReturn:
    """Serve until the agent ends, and end this process."""
    announcement = _Announcement(Node.from_json(_first_line()))
    # Before slow steps such as the imports below.
    threading.Thread(target=_leave_with_agent, args=(announcement,), daemon=True).start()
    code = 1
    try:
        code = _serve(announcement)
    except BaseException:
        _log.exception("The workflow exporter failed.")
    announcement.withdraw()
    logging.shutdown()
    # Python would wait for its threads, and one may hang in storage.
    os._exit(code)


class _Announcement:
    """Keeps the discovery files up to date, until they are removed."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._logged = ""

    def keep(self, listening: Callable[[], Listening], alive: Callable[[], bool]) -> None:
        """Write them every second; end this process when it is no longer `alive`."""
        while True:
            with self._writing:
                if self._over.is_set():
                    return
                self._announce(listening())
            _bound_output()
            self._over.wait(REFRESH_SECONDS)
            if not alive():
                _log.error("No poll has finished in time: this process ends and is restarted.")
                os._exit(3)

    def _announce(self, listening: Listening) -> None:
        try:
            self.node.announce(listening, os.environ.get(_CLUSTER_VARIABLE))
        except Exception as error:
            if str(error) != self._logged:
                self._logged = str(error)
                _log.warning("Could not write the discovery files: %s", error)

    def withdraw(self) -> None:
        """Remove them."""
        with self._writing:
            self._over.set()
            try:
                self.node.withdraw()
            except Exception as error:
                _log.warning("Could not remove the discovery files: %s", error)


class _Log(RotatingFileHandler):
    """The log in Ray's folder, bounded as Ray's own logs are."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            file,
            maxBytes=int(os.environ.get(_LARGEST_LOG_VARIABLE, _LARGEST_LOG)),
            backupCount=int(os.environ.get(_OLD_LOGS_VARIABLE, _OLD_LOGS)),
        )

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            opener=files.open_own,
        )


def _bound_output() -> None:
    # Shared with the link to Ray, whose native code writes here too, so the file cannot be
    # replaced. Writes append, so truncating works.
    if os.fstat(2).st_size > LARGEST_OUTPUT:
        os.ftruncate(2, 0)


def _first_line() -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(
                "Ray's dashboard agent starts this module. To start the exporter yourself, run "
                "`ray-workflow-exporter serve`."
            )
        line += byte
    return line.decode()


def _leave_with_agent(announcement: _Announcement) -> None:
    while os.read(0, 1):
        pass
    # In case a poll, a client or a disk delays the orderly end.
    end = threading.Timer(LEAVE_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()
    os.kill(os.getpid(), signal.SIGTERM)
    announcement.withdraw()


def _serve(announcement: _Announcement) -> int:
    from .. import logs
    from ..exporter import Exporter
    from ..server.app import longest_silence
    from ..server.listening import Listener, run_server
    from ..settings.settings import Settings, SettingsError

    node = announcement.node
    log = _Log(node.log_file)
    logs.configure(Settings(), log)
    try:
        settings = Settings.load_here({"address": node.gcs_address}, storage=node.storage)
        logs.configure(settings, log)
        _log.info("watching the Ray at %s from its head node %s", node.gcs_address, node.node_id)
        exporter = Exporter(settings, keep=True)

        def alive() -> bool:
            return exporter.heartbeat_age <= longest_silence(settings)

        def begin(listener: Listener) -> None:
            def listening() -> Listening:
                web = listener.web_config
                return Listening(listener.addresses, web.fingerprint, web.asks_certificate)

            exporter.start()
            threading.Thread(target=announcement.keep, args=(listening, alive), daemon=True).start()

        try:
            run_server(exporter, settings, begin)
        finally:
            exporter.close()
    except SettingsError as error:
        _log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    main()
