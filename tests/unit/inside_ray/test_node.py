from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ray_workflow_exporter.inside_ray.node import Address, Listening, Node, read_address

EVERYWHERE = Listening([("::", 20729), ("0.0.0.0", 20729)])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    session = tmp_path / "session_1"
    session.mkdir()
    return Node(
        gcs_address="192.0.2.1:6379",
        node_id="ab" * 28,
        ip="192.0.2.1",
        session_name="session_1",
        session_dir=str(session),
        temp_dir=str(tmp_path),
        log_dir=str(session),
    )


def test_a_node_goes_through_json_on_one_line(node: Node) -> None:
    stored = replace(node, storage="s3://bucket/ü\n")
    assert "\n" not in stored.to_json()
    assert Node.from_json(stored.to_json()) == stored


@pytest.mark.parametrize(
    ("addresses", "target", "url"),
    [
        (EVERYWHERE.addresses, "192.0.2.1:20729", "http://127.0.0.1:20729"),
        ([("0.0.0.0", 80)], "192.0.2.1:80", "http://127.0.0.1:80"),
        ([("::", 80)], "192.0.2.1:80", "http://[::1]:80"),
        ([("127.0.0.1", 80)], "127.0.0.1:80", "http://127.0.0.1:80"),
        ([("2001:db8::1", 80)], "[2001:db8::1]:80", "http://[2001:db8::1]:80"),
    ],
)
def test_prometheus_and_the_dashboard_are_told_where_it_listens(
    node: Node, addresses: list[tuple[str, int]], target: str, url: str
) -> None:
    node.announce(Listening(addresses))
    assert json.loads(node.discovery_file.read_text()) == [
        {"targets": [target], "labels": {"job": "ray-workflow", "SessionName": "session_1"}}
    ]
    assert read_address(node.address_file) == Address(url)


def test_both_are_told_of_tls(node: Node) -> None:
    node.announce(Listening(EVERYWHERE.addresses, "ab" * 32, asks_certificate=True))
    (group,) = json.loads(node.discovery_file.read_text())
    assert group["labels"]["__scheme__"] == "https"
    assert read_address(node.address_file) == Address(
        "https://127.0.0.1:20729", "ab" * 32, asks_certificate=True
    )


def test_the_files_lie_beside_rays_own(node: Node) -> None:
    assert node.discovery_file == Path(node.temp_dir, "prom_workflow_service_discovery.json")
    assert node.address_file.parent == Path(node.session_dir)


def test_the_name_of_the_cluster_is_a_label_for_kuberay_and_for_our_alerts(node: Node) -> None:
    node.announce(EVERYWHERE, "ml-team")
    (group,) = json.loads(node.discovery_file.read_text())
    assert group["labels"]["ray_io_cluster"] == group["labels"]["cluster"] == "ml-team"


def test_other_users_may_read_them_whatever_the_umask(node: Node) -> None:
    before = os.umask(0o077)
    try:
        node.announce(EVERYWHERE)
    finally:
        os.umask(before)
    assert node.discovery_file.stat().st_mode & 0o777 == 0o644


def test_what_stands_already_is_not_written_again(node: Node) -> None:
    node.announce(EVERYWHERE)
    before = node.discovery_file.stat()
    node.announce(EVERYWHERE)
    after = node.discovery_file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    node.discovery_file.write_text("torn")
    node.announce(EVERYWHERE)
    assert json.loads(node.discovery_file.read_text())


def test_withdrawing_leaves_nothing(node: Node) -> None:
    node.announce(EVERYWHERE)
    node.withdraw()
    assert [path for path in Path(node.temp_dir).rglob("*") if path.is_file()] == []
    node.withdraw()


def test_the_file_of_a_newer_session_is_left_alone(node: Node) -> None:
    node.announce(EVERYWHERE)
    newer = replace(node, session_name="session_2")
    newer.announce(EVERYWHERE)
    node.withdraw()
    (group,) = json.loads(node.discovery_file.read_text())
    assert group["labels"]["SessionName"] == "session_2"


@pytest.mark.parametrize("content", [None, "", "torn {", "[]", "{}", "null", '{"x": 1}'])
def test_without_a_good_address_there_is_none(node: Node, content: str | None) -> None:
    if content is not None:
        node.address_file.write_text(content)
    assert read_address(node.address_file) is None


def test_an_address_that_another_user_wrote_is_not_believed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.announce(EVERYWHERE)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read_address(node.address_file) is None


def test_a_link_is_neither_followed_nor_written_through(node: Node, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"url": "http://192.0.2.66"}')
    victim.chmod(0o600)
    for file in (node.address_file, node.discovery_file):
        file.symlink_to(victim)
    assert read_address(node.address_file) is None
    node.announce(EVERYWHERE)
    assert victim.read_text() == '{"url": "http://192.0.2.66"}'
    assert victim.stat().st_mode & 0o777 == 0o600
    assert not node.address_file.is_symlink()
    assert not node.discovery_file.is_symlink()


def test_a_pipe_holds_nobody_up(node: Node) -> None:
    os.mkfifo(node.address_file)
    assert read_address(node.address_file) is None
    node.announce(EVERYWHERE)
    assert read_address(node.address_file) == Address("http://127.0.0.1:20729")


@pytest.mark.parametrize("failing", ["address_file", "discovery_file"])
def test_one_file_that_fails_does_not_take_the_other_and_leaves_nothing(
    node: Node, failing: str
) -> None:
    getattr(node, failing).mkdir()
    (other,) = {node.address_file, node.discovery_file} - {getattr(node, failing)}
    with pytest.raises(OSError, match="directory"):
        node.announce(EVERYWHERE)
    assert other.is_file()
    assert list(Path(node.temp_dir).rglob("*.part")) == []
    if failing == "address_file":
        with pytest.raises(OSError, match=r"directory|permitted"):
            node.withdraw()
    else:
        node.withdraw()
    assert not other.exists()


@pytest.mark.parametrize("content", ["[]", "{}", "7", "[7]", '[{"labels": []}]', "null", "torn"])
def test_odd_content_of_the_discovery_file_counts_as_none(node: Node, content: str) -> None:
    node.discovery_file.write_text(content)
    node.withdraw()
    assert node.discovery_file.read_text() == content
    node.announce(EVERYWHERE)
    assert json.loads(node.discovery_file.read_text())[0]["targets"]
