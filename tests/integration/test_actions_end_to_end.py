"""Actions as people use them: the command line, over a running exporter and by itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import requests

from support.cluster import Cluster, environment
from support.ports import free_port
from support.served import PROGRAM, Served
from support.waiting import wait_until

DRIVER = """
import os
@ray.remote
def held(path):
    while not os.path.exists(path): time.sleep(0.05)
workflow.run_async(held.bind(sys.argv[2]), workflow_id=sys.argv[1])
"""
TOKEN = "a-token-that-must-not-stand-in-any-log"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours with nobody at the terminal."""
    return subprocess.run(
        [str(PROGRAM), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )


def test_a_run_is_cancelled_resumed_and_deleted(cluster: Cluster, tmp_path: Path) -> None:
    name, gate = "acted/upon", tmp_path / "gate"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (tmp_path / "tokens").write_text(f"tokens: [{{name: ops, role: act, sha256: {digest}}}]")
    (tmp_path / "token").write_text(TOKEN)
    cluster.run_driver(DRIVER, name, str(gate))
    port = free_port()
    served = Served(
        tmp_path,
        *("--address", cluster.address, "--tokens-file", str(tmp_path / "tokens")),
        *("--actions-listen", f"127.0.0.1:{port}"),
    ).start()
    try:
        wait_until(lambda: served.status(name) == "RUNNING")
        token = ("--token-file", str(tmp_path / "token"))
        elsewhere = command("cancel", name, "--url", served.url, *token, "--yes")
        assert (elsewhere.returncode, "another address" in elsewhere.stderr) == (1, True)
        url = f"http://127.0.0.1:{port}"
        here = ("--url", url, *token)
        asked = command("cancel", name, *here)
        assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
        nobody = command("cancel", name, "--url", url, "--yes")
        assert (nobody.returncode, "bearer token" in nobody.stderr) == (1, True)

        with requests.get(f"{served.url}/api/v1/events", stream=True, timeout=60) as events:
            lines = events.iter_lines(chunk_size=1, decode_unicode=True)
            while next(lines) != "event: ready":
                pass
            cancelled = command("cancel", name, *here, "--yes", "--wait", "-o", "json")
            assert cancelled.returncode == 0, cancelled.stderr
            assert json.loads(cancelled.stdout)["state"] == "SUCCEEDED"
            seen = (json.loads(line[6:]) for line in lines if line.startswith("data: {"))
            wanted = {"workflow_id": name, "status": "CANCELED"}
            assert any(wanted.items() <= event.items() for event in seen)
        again = command("cancel", name, *here, "--yes")
        assert (again.returncode, "It is CANCELED already" in again.stderr) == (1, True)
        counted = "ray_workflow_exporter_actions_total"
        assert served.value(counted, action="cancel", result="succeeded") == 1
        assert served.value(counted, action="cancel", result="denied") == 1
        assert served.value(counted, action="cancel", result="refused") == 1

        directly = ("--address", cluster.address, "--yes")
        resumed = command("resume", name, *directly)
        told = "SUCCEEDED: It is resumed: Ray has submitted a task of it.\n"
        assert (resumed.returncode, resumed.stdout) == (0, told)
        wait_until(lambda: served.status(name) == "RUNNING")
        gate.touch()
        wait_until(lambda: served.status(name) == "SUCCESSFUL")
        deleted = command("delete", name, *directly)
        assert (deleted.returncode, deleted.stdout) == (0, "SUCCEEDED: It is deleted.\n")
        assert not (cluster.storage / "workflows" / name).exists()
        wait_until(lambda: served.status(name) is None)
    finally:
        served.stop()
    log = served.log()
    assert f"audit: ops: cancel {name!r}: accepted as " in log
    assert "denied: cancel from 127.0.0.1 without a valid token" in log
    assert TOKEN not in log
    assert "Traceback" not in log
