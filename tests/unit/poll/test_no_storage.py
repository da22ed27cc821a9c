"""Ray does not say where workflow storage is: each cause has its own sentence."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.settings.settings import Settings
from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import LinkCause, LinkState, ManagerView
from support.expositions import parsed
from support.trees import StorageTree

GIVE = " To read storage without Ray, use --address none --storage URI."


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[ManagerView]:
    """What the link has seen; the last one is what it sees now."""
    seen: list[ManagerView] = []
    monkeypatch.setattr(RayLink, "poll", lambda self: seen[-1])
    return seen


@contextmanager
def watching() -> Iterator[Exporter]:
    exporter = Exporter(Settings(max_staleness=0.0))
    try:
        yield exporter
    finally:
        exporter.close()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect the exporter of a test, whose parts refer to each other, so that threads end."""
    yield
    gc.collect()


def value(exporter: Exporter, name: str) -> float:
    text = b"".join(exporter.metrics())
    (found,) = (it.value for family in parsed(text) for it in family.samples if it.name == name)
    return float(found)


@pytest.mark.parametrize(
    ("cause", "state", "reason", "sentence"),
    [
        (
            LinkCause.NO_RAY,
            LinkState.UNREACHABLE,
            "No Ray runs on this machine: give the address of one with --address HOST:PORT, or "
            "read storage alone with --address none --storage URI.",
            "{reason}",
        ),
        (LinkCause.NO_ANSWER, LinkState.UNREACHABLE, "No Ray answers at h:1: refused.", "{more}"),
        (LinkCause.NOT_RAY, LinkState.UNREACHABLE, "What listens at h:1 is not a Ray.", "{more}"),
        (LinkCause.OTHER_USER, LinkState.UNREACHABLE, "It is another Unix user's.", "{more}"),
        (LinkCause.NOT_INSTALLED, LinkState.UNSUPPORTED, "Ray is not installed.", "{more}"),
        (LinkCause.RAY_VERSION, LinkState.UNSUPPORTED, "Ray 2.49 has no workflows.", "{more}"),
        (
            LinkCause.OFF,
            LinkState.OFF,
            "Ray is switched off: storage only.",
            "No workflow storage is given: with --address none, add --storage URI.",
        ),
        (LinkCause.STARTING, LinkState.UNREACHABLE, "", "Ray has not answered yet." + GIVE),
    ],
)
def test_the_true_cause_is_said_with_what_to_do(
    views: list[ManagerView], cause: LinkCause, state: LinkState, reason: str, sentence: str
) -> None:
    views.append(ManagerView(state, reason, cause))
    with watching() as exporter:
        exporter.poll_once()
        said = exporter.status["storage_error"]
        assert said == sentence.format(reason=reason, more=reason + GIVE)
        assert value(exporter, "ray_workflow_storage_up") == 0
        assert not exporter.ready


def test_a_cluster_without_storage_is_no_fault(views: list[ManagerView], tmp_path: Path) -> None:
    reason = "Ray was started without --storage, so that no workflow can run on it."
    views.append(ManagerView(LinkState.ABSENT, reason, LinkCause.NO_STORAGE))
    tree = StorageTree(str(tmp_path / "storage"))
    run = tree.run("etl").status("RUNNING", 1.0).task("a").entry("a")
    run.succeed("a", 1.0, 2.0).status("SUCCESSFUL", 2.0)
    with watching() as exporter:
        exporter.load()
        assert exporter.ready
        assert exporter.status["storage_error"] is None
        assert exporter.status["manager_reason"] == reason
        assert value(exporter, "ray_workflow_storage_up") == 1
        assert exporter.runs() == []
        assert exporter.run("etl") is None
        # Another Ray, with a storage, takes its place.
        views.append(ManagerView(LinkState.ABSENT, "", LinkCause.NO_MANAGER, storage_uri=tree.uri))
        exporter.load()
        assert [it.run.workflow_id for it in exporter.runs()] == ["etl"]
        assert exporter.status["storage"] == tree.uri
