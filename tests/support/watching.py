"""Exporters without Ray over trees of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ray_workflow_exporter.exporter import Exporter
from ray_workflow_exporter.metrics.family import Tier
from ray_workflow_exporter.settings.settings import Settings
from support.trees import StorageTree

T0 = 1_600_000_000.0
OBJECTS = {Tier.WORKFLOW, Tier.RUN, Tier.STAGE, Tier.TASK, Tier.CLUSTER}


@pytest.fixture
def watch() -> Iterator[Callable[..., Exporter]]:
    """Make exporters without Ray that end with the test."""
    made: list[Exporter] = []

    def make(tree: StorageTree, **settings: Any) -> Exporter:
        settings = {"address": "none", "storage": tree.uri, **settings}
        made.append(Exporter(Settings.load(None, {}, settings)))
        return made[-1]

    yield make
    while made:  # the threads of storage end with the last reference
        made.pop().close()


def shown(exporter: Exporter) -> dict[str, str]:
    families = text_string_to_metric_families(b"".join(exporter.metrics()).decode())
    return {
        sample.labels["workflow_id"]: sample.labels["status"]
        for family in families
        for sample in family.samples
        if sample.name == "ray_workflow_run_status" and sample.value == 1
    }


def plant(tree: StorageTree) -> None:
    """Write one finished run for each row of the truth tables."""
    run = tree.run("diamond", {"workflow": "etl", "team": "a"}).status("RUNNING", T0)
    run.task("a").task("b", "a").task("b_1", "a").task("c", "b", "b_1").entry("c")
    run.succeed("a", T0, T0 + 1).succeed("b", T0 + 1, T0 + 3).succeed("b_1", T0 + 1, T0 + 2)
    run.succeed("c", T0 + 3, T0 + 4, "x" * 500).status("SUCCESSFUL", T0 + 4)

    run = tree.run("grown", {"workflow": "etl"}).status("RUNNING", T0)
    run.task("p").task("q").task("r", "q").entry("p")
    run.start("p", T0).end("p", T0 + 1).go_on("p", "r", "r")
    run.succeed("q", T0 + 1, T0 + 2).succeed("r", T0 + 2, T0 + 3).status("SUCCESSFUL", T0 + 3)

    run = tree.run("failed", {"workflow": "audit"}).status("RUNNING", T0)
    run.task("read").task("check", "read").task("write", "check").entry("write")
    run.succeed("read", T0, T0 + 1).start("check", T0 + 1)
    run.fail("check", ValueError('bad "row"\nin line 3')).status("FAILED", T0 + 9)

    run = tree.run("crashed", {"workflow": "audit"}).status("RUNNING", T0)
    run.task("boom", max_retries=0).task("after", "boom").entry("after")
    run.start("boom", T0 + 1).status("FAILED", T0 + 2)

    run = tree.run("unpicklable", {"workflow": "audit"}).status("RUNNING", T0)
    run.task("lock").entry("lock").start("lock", T0 + 1).end("lock", T0 + 2)
    run.status("FAILED", T0 + 3)

    run = tree.run("retried").status("RUNNING", T0).task("f", retry_exceptions=True).entry("f")
    run.fail("f", OSError("at first")).succeed("f", T0 + 5, T0 + 6).status("SUCCESSFUL", T0 + 6)

    run = tree.run("loose").status("RUNNING", T0).task("f", checkpoint=False).entry("f")
    run.start("f", T0).end("f", T0 + 2).status("SUCCESSFUL", T0 + 2)

    run = tree.run("left over").status("RUNNING", T0).task("f").task("g", "f").entry("g")
    run.start("f", T0 + 1)

    run = tree.run("queued").task("f").entry("f").status("PENDING")
    tree.run("ghost").task("f").entry("f")

    run = tree.run('slash/ed "id"').status("RUNNING", T0).task("tä/sk").entry("tä/sk")
    run.succeed("tä/sk", T0, T0 + 1).status("SUCCESSFUL", T0 + 1)

    run = tree.run("resumed once", {"workflow": "audit"}).status("FAILED", T0 - 50).task("f")
    run.entry("f").status("RUNNING", T0).start("f", T0).status("CANCELED")
