from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from cluster import free_port
from ray_workflow_exporter import launch
from ray_workflow_exporter.agent import child as child_module
from ray_workflow_exporter.agent.node import Node, read_address
from waiting import wait_until

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose Ray is gone, with its storage."""
    storage = tmp_path / "storage"
    storage.mkdir()
    (storage / "_valid").touch()
    return Node(
        gcs_address=f"127.0.0.1:{free_port()}",
        node_id="ab" * 28,
        ip="127.0.0.1",
        session_name="session_1",
        session_dir=str(tmp_path),
        temp_dir=str(tmp_path),
        log_dir=str(tmp_path),
        storage=str(storage),
    )


@pytest.fixture
def start(node: Node, tmp_path: Path) -> Iterator[Start]:
    """Start the child as the agent does, with settings as variables."""
    children: list[subprocess.Popen[bytes]] = []

    def start(**settings: str) -> subprocess.Popen[bytes]:
        given = {"LISTEN": "127.0.0.1:0", "STATE_DIR": str(tmp_path / "state"), **settings}
        variables = {f"RAY_WORKFLOW_EXPORTER_{key}": value for key, value in given.items()}
        with (tmp_path / "log").open("ab") as log:
            child = subprocess.Popen(
                launch.command("ray_workflow_exporter.agent.child"),
                bufsize=0,
                stdin=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **variables},
            )
        children.append(child)
        assert child.stdin
        child.stdin.write(node.to_json().encode() + b"\n")
        return child

    yield start
    for child in children:
        assert child.stdin
        child.stdin.close()
        child.wait(10)


def address(node: Node) -> str:
    return wait_until(lambda: read_address(node.address_file), message="it does not listen")


def files(node: Node) -> list[bool]:
    return [node.address_file.exists(), node.discovery_file.exists()]


def test_it_serves_the_storage_of_its_node_and_tells_where(node: Node, start: Start) -> None:
    start()
    url = address(node)
    wait_until(
        lambda: "\nray_workflow_up 1" in requests.get(f"{url}/metrics", timeout=5).text,
        message="storage was not read",
    )
    (group,) = json.loads(wait_until(lambda: node.discovery_file.read_text()))
    assert f"http://{group['targets'][0]}" == url


def test_storage_and_cluster_name_of_the_environment_are_heeded(
    node: Node, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_CLUSTER_NAME", "ml-team")
    start(STORAGE=str(tmp_path / "another"))
    address(node)
    (group,) = json.loads(node.discovery_file.read_text())
    assert group["labels"]["ray_io_cluster"] == "ml-team"
    log = tmp_path / "log"
    wait_until(lambda: str(tmp_path / "another") in log.read_text(), message="another storage")


def test_it_leaves_with_its_link_when_its_input_ends(node: Node, start: Start) -> None:
    child = start()
    address(node)
    (link,) = wait_until(psutil.Process(child.pid).children, message="no link")
    assert child.stdin
    child.stdin.close()
    assert child.wait(10) == 0
    wait_until(lambda: not link.is_running(), timeout=10, message="the link stayed")
    assert files(node) == [False, False]


def test_it_leaves_even_when_its_input_ends_at_once(node: Node, start: Start) -> None:
    child = start()
    assert child.stdin
    child.stdin.close()
    assert child.wait(10) in (0, -signal.SIGTERM)
    assert files(node) == [False, False]


def test_it_leaves_while_a_client_holds_it_up(node: Node, start: Start) -> None:
    child = start()
    url = address(node)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert child.stdin
        child.stdin.close()
        assert child.wait(10) == 0


def test_on_sigterm_it_withdraws_what_it_told(node: Node, start: Start) -> None:
    child = start()
    address(node)
    child.terminate()
    assert child.wait(10) == 0
    assert files(node) == [False, False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CONFIG": "/no/such/file.yaml"}, "The file /no/such/file.yaml cannot be read"),
        ({"INTERVAL": "soon"}, "The variable RAY_WORKFLOW_EXPORTER_INTERVAL must be a duration"),
        ({"LISTEN": "192.0.2.77:1"}, "Cannot listen on 192.0.2.77:1"),
    ],
)
def test_wrong_settings_are_said_in_a_sentence(
    settings: dict[str, str], said: str, start: Start, tmp_path: Path, node: Node
) -> None:
    assert start(**settings).wait(30) == 2
    log = (tmp_path / "log").read_text()
    assert said in log
    assert "Traceback" not in log
    assert files(node) == [False, False]


def test_a_folder_that_cannot_be_written_is_logged_once_and_no_reason_to_fail(
    node: Node, start: Start, tmp_path: Path
) -> None:
    node.discovery_file.mkdir()
    port = free_port()
    start(LISTEN=f"127.0.0.1:{port}")
    log = tmp_path / "log"
    wait_until(lambda: "cannot be told our address" in log.read_text(), message="not logged")
    assert requests.get(f"http://127.0.0.1:{port}/-/healthy", timeout=5).ok
    assert read_address(node.address_file) == f"http://127.0.0.1:{port}"


HANGING = """
import threading
from ray_workflow_exporter.agent import child

def serve(presence):
    threading.Thread(target=threading.Event().wait).start()
    return 2

child._serve = serve
child.main()
"""


def test_a_thread_that_hangs_does_not_keep_it(node: Node) -> None:
    with subprocess.Popen([sys.executable, "-c", HANGING], bufsize=0, stdin=subprocess.PIPE) as it:
        assert it.stdin
        it.stdin.write(node.to_json().encode() + b"\n")
        try:
            assert it.wait(30) == 2
        finally:
            it.kill()


@pytest.fixture
def presence(node: Node, monkeypatch: pytest.MonkeyPatch) -> child_module._Presence:
    """What keeps the files of a node, a hundred times a second."""

    def exit_now(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(child_module, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(child_module.os, "_exit", exit_now)
    return child_module._Presence(node)


def test_files_that_were_removed_are_written_again_until_they_are_withdrawn(
    presence: child_module._Presence,
) -> None:
    args = ([("0.0.0.0", 20729)], lambda: True)
    keeping = threading.Thread(target=presence.keep, args=args)
    keeping.start()
    for _ in range(2):
        wait_until(presence.node.discovery_file.exists, message="not written")
        presence.node.discovery_file.unlink()
    presence.withdraw()
    keeping.join(10)
    assert not keeping.is_alive()
    assert files(presence.node) == [False, False]


def test_a_poll_loop_that_hangs_ends_the_process_to_be_started_again(
    presence: child_module._Presence, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        presence.keep([("0.0.0.0", 20729)], lambda: False)
    assert ended.value.code == 3
    assert "The poll loop shows no life" in caplog.text


def test_started_by_hand_it_says_what_it_is_for() -> None:
    done = subprocess.run(
        launch.command("ray_workflow_exporter.agent.child"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ray-workflow-exporter serve" in done.stderr
