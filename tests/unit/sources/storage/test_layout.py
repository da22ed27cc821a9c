"""What is kept of what users write."""

from __future__ import annotations

import json

from ray_workflow_exporter.sources.storage.layout import (
    OUTLINE_METADATA,
    RUN_METADATA,
    TASK_METADATA,
    TRUNCATED,
    truncated,
)


def test_small_metadata_is_kept_whole() -> None:
    metadata = {"workflow": "etl", "owner": "us", "notes": "x" * 1000}
    assert truncated(metadata, RUN_METADATA) == metadata


def test_of_large_metadata_the_small_entries_are_kept_and_the_rest_is_said() -> None:
    metadata = {"blob": "x" * 3_900_000, "workflow": "etl", "deadline": 5.0}
    kept = truncated(metadata, RUN_METADATA)
    assert kept == {
        "workflow": "etl",
        "deadline": 5.0,
        TRUNCATED: "1 of 3 entries are left out: of 3900030 characters of metadata, the exporter "
        "keeps at most 16384.",
    }


def test_any_number_of_entries_stays_within_the_limit() -> None:
    metadata = {f"key-{number}": "v" * (number % 50) for number in range(50_000)}
    assert len(json.dumps(truncated(metadata, RUN_METADATA))) < 3 * RUN_METADATA


def test_metadata_of_runs_tasks_and_outlines_is_bounded(tree, storage) -> None:
    large = {"blob": "x" * 100_000, "workflow": "etl", "more": ["y" * 500] * 3}
    run = tree.run("w", large).task("f", metadata=large).entry("f").status("RUNNING", 1.0)
    run.succeed("f", 2.0, 3.0).status("SUCCESSFUL", 4.0)
    whole = storage.read_run("w")
    assert whole.user_metadata.keys() == {"workflow", "more", TRUNCATED}
    assert len(json.dumps(whole.tasks["f"].user_metadata)) < 2 * TASK_METADATA
    outline = storage.read_runs({"w": None}, enough=lambda _: True)["w"]
    assert outline.outlined
    assert outline.user_metadata.keys() == {"workflow", TRUNCATED}
    assert len(json.dumps(outline.user_metadata)) < 2 * OUTLINE_METADATA


def test_metadata_longer_than_a_file_that_is_read_is_named_unreadable(tree, storage) -> None:
    tree.run("w", {"blob": "x" * (5 << 20)}).task("f").status("FAILED", 1.0)
    run = storage.read_run("w")
    assert run.user_metadata == {}
    assert run.unreadable == ("user_run_metadata.json: the file is larger than 4 MiB",)
