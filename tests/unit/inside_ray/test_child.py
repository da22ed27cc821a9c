from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from ray_workflow_exporter.inside_ray import child as child_module
from ray_workflow_exporter.inside_ray.node import Address, Listening, Node, read_address
from ray_workflow_exporter.sources.manager import launch
from support.certificates import Authority
from support.ports import free_port
from support.waiting import wait_until

pytestmark = pytest.mark.process

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
        with node.output_file.open("ab") as output:
            child = subprocess.Popen(
                launch.command("ray_workflow_exporter.inside_ray.child"),
                bufsize=0,
                stdin=subprocess.PIPE,
                stderr=output,
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
    found = wait_until(lambda: read_address(node.address_file), message="it does not listen")
    return found.url


def files(node: Node) -> list[bool]:
    return [node.address_file.exists(), node.discovery_file.exists()]


def test_it_serves_the_storage_of_its_node_and_tells_where(node: Node, start: Start) -> None:
    start()
    url = address(node)
    wait_until(
        lambda: "\nray_workflow_storage_up 1" in requests.get(f"{url}/metrics", timeout=5).text,
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
    wait_until(
        lambda: str(tmp_path / "another") in node.log_file.read_text(), message="another storage"
    )


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
    settings: dict[str, str], said: str, start: Start, node: Node
) -> None:
    assert start(**settings).wait(30) == 2
    assert said in node.log_file.read_text()
    assert "Traceback" not in node.log_file.read_text() + node.output_file.read_text()
    assert files(node) == [False, False]


def test_a_folder_that_cannot_be_written_is_logged_once_and_no_reason_to_fail(
    node: Node, start: Start
) -> None:
    node.discovery_file.mkdir()
    port = free_port()
    start(LISTEN=f"127.0.0.1:{port}")
    wait_until(
        lambda: (
            node.log_file.exists()
            and "Could not write the discovery files" in node.log_file.read_text()
        ),
        message="not logged",
    )
    assert requests.get(f"http://127.0.0.1:{port}/-/healthy", timeout=5).ok
    assert read_address(node.address_file) == Address(f"http://127.0.0.1:{port}")


def test_tls_is_announced_with_the_certificate_as_it_is_now(
    node: Node, start: Start, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("server")
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key}"
    )

    def announced() -> bool:
        leaf = cert.read_text().partition("-----END CERTIFICATE-----\n")
        der = ssl.PEM_cert_to_DER_cert("".join(leaf[:2]))
        found = read_address(node.address_file)
        return found is not None and found.fingerprint == hashlib.sha256(der).hexdigest()

    start(WEB_CONFIG_FILE=str(tmp_path / "web.yml"))
    wait_until(announced, message="the certificate is not announced")
    url = address(node)
    assert requests.get(f"{url}/-/healthy", timeout=5, verify=str(tmp_path / "ca.crt")).ok
    (group,) = json.loads(wait_until(lambda: node.discovery_file.read_text()))
    assert group["labels"]["__scheme__"] == "https"
    authority.issue("server")
    wait_until(announced, message="the new certificate is not announced")


def test_its_log_is_rotated_while_it_runs_as_rays_own_are(
    node: Node, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "300")
    monkeypatch.setenv("RAY_ROTATION_BACKUP_COUNT", "2")
    start(LOG_LEVEL="debug")
    old = Path(f"{node.log_file}.1")
    wait_until(old.exists, message="not rotated")
    assert node.log_file.stat().st_size <= 300
    assert not Path(f"{node.log_file}.3").exists()


def test_its_log_is_not_written_through_a_link(node: Node, start: Start, tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    node.log_file.symlink_to(tmp_path / "victim")
    assert start().wait(30) == 1
    assert (tmp_path / "victim").read_text() == ""
    assert "workflow_exporter.log" in node.output_file.read_text()


def test_what_is_printed_beside_the_log_begins_anew_when_it_grew_large(
    announcement: child_module._Announcement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "LARGEST_OUTPUT", 100)
    before, output = os.dup(2), tmp_path / "output"
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 2)
    try:
        os.write(2, b"x" * 100)
        child_module._bound_output()
        assert output.stat().st_size == 100
        os.write(2, b"x")
        child_module._bound_output()
        os.write(2, b"more")
        assert output.read_bytes() == b"more"
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_one_whose_port_is_taken_touches_no_state(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        child = start(LISTEN=f"127.0.0.1:{taken.getsockname()[1]}", INTERVAL="100ms")
        assert child.wait(30) == 2
    assert not (tmp_path / "state").exists()


HANGING = """
import threading
from ray_workflow_exporter.inside_ray import child

def serve(announcement):
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
def announcement(node: Node, monkeypatch: pytest.MonkeyPatch) -> child_module._Announcement:
    """What keeps the files of a node, a hundred times a second."""

    def exit_now(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(child_module, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(os, "_exit", exit_now)
    return child_module._Announcement(node)


def test_files_that_were_removed_are_written_again_until_they_are_withdrawn(
    announcement: child_module._Announcement,
) -> None:
    args = (lambda: Listening([("0.0.0.0", 20729)]), lambda: True)
    keeping = threading.Thread(target=announcement.keep, args=args)
    keeping.start()
    for _ in range(2):
        wait_until(announcement.node.discovery_file.exists, message="not written")
        announcement.node.discovery_file.unlink()
    announcement.withdraw()
    keeping.join(10)
    assert not keeping.is_alive()
    assert files(announcement.node) == [False, False]


def test_a_poll_loop_that_hangs_ends_the_process_to_be_started_again(
    announcement: child_module._Announcement, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        announcement.keep(lambda: Listening([("0.0.0.0", 20729)]), lambda: False)
    assert ended.value.code == 3
    assert "No poll has finished in time" in caplog.text


def test_started_by_hand_it_says_what_it_is_for() -> None:
    done = subprocess.run(
        launch.command("ray_workflow_exporter.inside_ray.child"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ray-workflow-exporter serve" in done.stderr
