"""The repository uses the field's own terms: a table of words and sentences to avoid."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TEXT = {".cfg", ".css", ".html", ".js", ".json", ".md", ".py", ".service", ".svg", ".toml", ".yaml"}
TEXT |= {".yml", ""}
# Where a former name has to be named, or where a pattern is data.
EXEMPT = {"CHANGELOG.md", Path(__file__).name, ".git"}
# Folders that tools made, and environments.
MADE = re.compile(r"\.(?!ci$).*|__pycache__|build|dist|.*\.egg-info")

# Families and settings under names that they had before the first release.
FORMER = (
    *("critical_path_seconds", "deadline_timestamp_seconds", "duration_seconds"),
    *("end_timestamp_seconds", "expected_end_timestamp_seconds", "exporter_dropped"),
    *("failure_info", "info", "last_transition_timestamp_seconds", "output_size_bytes"),
    *("progress_ratio", "stage_task_duration_seconds", "start_timestamp_seconds", "status"),
    *("task_retries_total", "tasks", "up"),
)

# What is said instead stands on the right.
EVERYWHERE = {
    rf"\bray_workflow_({'|'.join(FORMER)})\b": "the name in metrics/families.py",
    r"\b(max_|expected_)?classes\b.*\bworkflow": "workflows",
    r"\bworkflows?'? class(es)?\b": "workflow",
    r"\bclass(es)? of (a |the |its |this )?(run|workflow)": "workflow",
    r"\b(max_classes|class_key|by_class|ClassSettings)\b": "workflow",
    r"(?<!-)\b(boards|rules|dashboard) (export|install|remove|status)\b": "grafana export, …",
    r"eyes and hands": "Prometheus exporter, Grafana dashboards and safe actions for Ray Workflows",
    r"what one gets": "What you get",
    r"where others must not": "needs a token",
    r"where the output is no terminal": "Without a terminal",
    r"draw(s|n)? a token|tokens? drawn": "Generate a token",
    r"at least this severe": "Minimum log level",
    r"told of us": "Could not remove the discovery files",
    r"shown no life": "No poll has finished for N s",
    r"meet the new tls settings": "Reloaded TLS settings",
    r"(?-i:\b(tell_of_process|_strike|_blame_somebody|Hands)\b)": "a literal name",
    r"nobody watches": "No exporter is up",
    r"does not move": "has stalled",
    r"need(s)? a hand": "needing attention",
    r"can this be believed": "Data health",
    r"took, or is left": "elapsed / remaining",
}

# In text for users alone: code has classes, and stands on boards of circuits.
FOR_USERS = {
    r"(?<!state)\W+\bclass(es)?\b": "workflow",
    r"\bboards?\b": "dashboard",
}


@cache
def files() -> tuple[Path, ...]:
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [it for it in folders if not MADE.fullmatch(it)]
        found += [Path(folder, name) for name in names if name not in EXEMPT]
    return tuple(it for it in found if it.suffix in TEXT and it.is_file() and not it.is_symlink())


def found(pattern: str, paths: list[Path]) -> list[str]:
    # Sentences are folded over lines, after a comment sign or between quotes.
    loose = re.compile(pattern.replace(" ", r"[\s\"'#*/]+"), re.IGNORECASE)
    return [
        f"{path.relative_to(ROOT)}: {' '.join(hit[0].split())}"
        for path in paths
        for hit in loose.finditer(path.read_text(errors="replace"))
    ]


@pytest.mark.parametrize("pattern", EVERYWHERE)
def test_no_file_says(pattern: str) -> None:
    assert found(pattern, list(files())) == [], f"say instead: {EVERYWHERE[pattern]}"


@pytest.mark.parametrize("pattern", FOR_USERS)
def test_no_text_for_users_says(pattern: str) -> None:
    written = [it for it in files() if it.suffix in (".md", ".yml", ".yaml", ".json")]
    assert found(pattern, written) == [], f"say instead: {FOR_USERS[pattern]}"


def test_no_file_is_named_with_such_a_word() -> None:
    named = [str(it.relative_to(ROOT)) for it in files()]
    assert [it for it in named if re.search(r"\bboards?\b|_boards?\b|hands|eyes", it)] == []
