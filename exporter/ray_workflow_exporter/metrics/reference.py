"""Writes `docs/metrics.md` from the table of families.

    python -m ray_workflow_exporter.metrics.reference > docs/metrics.md

A test holds that file equal to what this module writes, and the numbers of the budget equal to
what is rendered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ..catalog.counters import MAX_STAGES, RUN_SECONDS_BOUNDS, TASK_SECONDS_BOUNDS
from .families import FAMILIES
from .family import Family, Kind, Tier

# Series at most, without histograms, deadline, failure and critical path: see `_BUDGET`.
SERIES_PER_WORKFLOW = 20
SERIES_PER_RUN = 21
SERIES_PER_STAGE = 11
SERIES_PER_TASK = 8
SERIES_PER_RUN_HISTOGRAM = len(RUN_SECONDS_BOUNDS) + 3  # the +Inf bucket, sum and count
SERIES_PER_STAGE_HISTOGRAM = len(TASK_SECONDS_BOUNDS) + 3
RUN_HISTOGRAMS = 3  # one for each status a run can end with


def workflow_series(stages: int) -> int:
    """Return the series of one workflow whose runs have had so many different stages."""
    histograms = RUN_HISTOGRAMS * SERIES_PER_RUN_HISTOGRAM + stages * SERIES_PER_STAGE_HISTOGRAM
    return SERIES_PER_WORKFLOW + histograms


def run_series(stages: int, stage_edges: int, tasks: int = 0, task_edges: int = 0) -> int:
    """Return the series of one run; `tasks` and `task_edges` are those in the task tier."""
    of_stages = SERIES_PER_STAGE * stages + stage_edges
    return SERIES_PER_RUN + of_stages + SERIES_PER_TASK * tasks + task_edges


_INTRODUCTION = f"""\
# Metrics

This page is made from the table in `exporter/ray_workflow_exporter/metrics/families.py` by
`python -m ray_workflow_exporter.metrics.reference > docs/metrics.md`. Change the table, not the
page.

All names begin with `ray_workflow_`; times are Unix seconds, durations seconds, sizes bytes. No
value ticks: a running thing has a start timestamp, and `time() - start` is its age. A family
without any sample is left out, header and all. `/metrics` speaks the text format 0.0.4 and
OpenMetrics 1.0, whichever the `Accept` header prefers; both hold the same samples.

## Words

- **workflow**, the workflow: what runs again and again; label `workflow`. Taken from the user
  metadata of a run, else from its id without counters, dates and UUIDs, else `unnamed`. Workflows
  beyond `max_workflows` are all called `other`.
- **run**: one workflow id; label `workflow_id`.
- **task**: one node of a run's DAG; label `task_id`.
- **stage**: all tasks of a run with the same task name; label `stage`. A fan-out over 1,000
  inputs is 1,000 tasks and one stage.
- **edge**: the `target` depends on the `source`. Its `kind` is `data` (the target takes the
  source's output as an argument) or `continuation` (the source returned the workflow that holds
  the target). Exposed only if both ends are.

### Status of a run

Ray's own words.

- `PENDING`: submitted, waits for one of the `max_running_workflows` places.
- `RUNNING`: the WorkflowManagementActor works on it.
- `RESUMABLE`: storage says that it runs, but no manager holds it: its manager or its cluster
  died. Somebody must resume or delete it. Shown once two polls agree.
- `SUCCESSFUL`: ended, its output is stored.
- `FAILED`: a task failed for good.
- `CANCELED`: somebody canceled it.

### State of a task

- `WAITING`: a task that it depends on is not done.
- `PENDING`: handed to Ray, not started: waits for resources or for its environment.
- `RUNNING`: its function runs. `workflow.sleep` and `wait_for_event` run while they wait.
- `SUCCESSFUL`: its function returned, also when it returned a workflow that still runs; or its
  exception was caught by `catch_exceptions`.
- `FAILED`: its last attempt failed.
- `CANCELED`: was at work when its run was canceled, failed or became RESUMABLE.
- `NOT_RUN`: its run ended, or became RESUMABLE, before the task was started.

## Tiers

Each tier can be left out: `detail` names the last one of workflow, run, stage and task that is
exposed, and `/metrics?tier=workflow&tier=run` selects tiers for one scrape. Every tier is bounded,
and what a limit keeps out is counted in `ray_workflow_exporter_hidden_objects`.

- `cluster` is always there. When the sources are silent for longer than `max_staleness`, the
  tiers workflow to task disappear and `ray_workflow_storage_up` is 0.
- `workflow` holds every workflow for ever, at most `max_workflows` with {MAX_STAGES} stages each;
  all others are called `other`. Counters survive a restart of the exporter; what had ended before
  it first saw the storage is not counted.
- `run` holds live runs always, and ended ones for `finished_retention` (24 h), of these the
  newest `max_finished_runs` (1,000).
- `stage` holds the same runs, without those that have more stages than `max_tasks_per_run`.
- `task` holds live runs, and ended ones for `task_retention` (1 h); FAILED tasks stay as long as
  their run. A run with more than `max_tasks_per_run` (1,000) tasks shows only its stages.
- `exporter` is about the exporter itself.

Stable families keep name, type, labels and meaning until a major release; experimental ones may
change in any release.
"""

_VALUES = """\
## Label values

- Backslash, quote and newline are escaped as the format asks for it; other control characters
  and bytes that are not UTF-8 are shown as `\\x01` or `\\udc80`.
- Values are cut at 256 characters. A value that was cut, or that held such characters, ends in
  `~` and twelve hexadecimal digits, so that two different ids stay two different series.
- `message` is cut at 512 characters. What looks like a password, token, key or a login in a URL
  is replaced by `***`; this is a guess and cannot know every secret. With
  `expose_error_messages: false` the label is always empty, and `exception` still says the type.
- `meta_*` stands for one label for each key of user metadata in `metadata_labels`. Characters
  that a label name cannot have become `_`; of two keys that would share a name the later in the
  list gets `_2`. Every run has all of these labels, empty where its metadata has no such key.
- Labels for facts that nobody knows (`node_id`, `max_retries`, …) are empty.
"""

_BUDGET = f"""\
## Cardinality

Series at most:

| each | series |
|---|---|
| workflow | {SERIES_PER_WORKFLOW}, and {RUN_HISTOGRAMS} histograms of {SERIES_PER_RUN_HISTOGRAM} |
| stage of a workflow | {SERIES_PER_STAGE_HISTOGRAM}: one histogram |
| run | {SERIES_PER_RUN}, 1 more with a deadline, 1 more if FAILED |
| stage of a run | {SERIES_PER_STAGE} |
| task | {SERIES_PER_TASK}, 1 more on the critical path, 1 more if FAILED |
| edge between stages or tasks | 1 |

    series = workflows · {workflow_series(0)} + stages of workflows · {SERIES_PER_STAGE_HISTOGRAM}
           + runs · {SERIES_PER_RUN} + stages of runs · {SERIES_PER_STAGE} + edges between stages
           + tasks · {SERIES_PER_TASK} + edges between tasks

For example 10 workflows of 4 stages; 1,000 ended runs that show their stages only, with 4 stages
and 3 edges between them; and 50 live runs of 100 tasks and 150 edges:
10 · {workflow_series(4)} + 1,000 · {run_series(4, 3)} + 50 · {run_series(4, 3, 100, 150):,} \
= {10 * workflow_series(4) + 1000 * run_series(4, 3) + 50 * run_series(4, 3, 100, 150):,} series.

`ray_workflow_exporter_series` says how many there are of each family. To have fewer: lower
`max_finished_runs`, `finished_retention` or `max_tasks_per_run`, or choose a smaller `detail`.
What Prometheus keeps grows with the number of runs a day, not with the number shown at a time:
each run brings new series.
"""

_EXAMPLES = (
    (
        "How long has each run been running?",
        "",
        """\
(time() - ray_workflow_run_start_timestamp_seconds)
  and on (workflow_id) (ray_workflow_run_status{status="RUNNING"} == 1)""",
    ),
    (
        "How far is a run?",
        "",
        """\
ray_workflow_run_progress_ratio{workflow_id="etl-7"}""",
    ),
    (
        "Seconds until the expected end",
        "",
        """\
ray_workflow_run_expected_end_timestamp_seconds{workflow_id="etl-7"} - time()""",
    ),
    (
        "Which tasks wait for resources, and since when?",
        "",
        """\
(time() - ray_workflow_task_submit_timestamp_seconds)
  and on (workflow_id, task_id) ray_workflow_task_state{state="PENDING"}""",
    ),
    (
        "Why did the last runs of a workflow fail?",
        "The labels say it: `task_id`, `stage`, `kind`, `exception`, `message`.",
        """\
ray_workflow_run_failure_info{workflow="etl"}""",
    ),
    (
        "Which tasks failed, of which workflow?",
        "Stage and task series carry the run, not the workflow; `ray_workflow_run_info` adds it.",
        """\
ray_workflow_task_failure_info
  * on (workflow_id) group_left (workflow) ray_workflow_run_info""",
    ),
    (
        "The DAG of a run: nodes",
        "Two instant queries in table format, called `nodes` and `edges`, feed a node graph.",
        """\
label_replace(ray_workflow_task_state{workflow_id="etl-7"}, "id", "$1", "task_id", "(.*)")""",
    ),
    (
        "The DAG of a run: edges",
        "",
        """\
label_join(ray_workflow_task_edge{workflow_id="etl-7"}, "id", " -> ", "source", "target")""",
    ),
    (
        "Runs as they were",
        "Ended runs leave `/metrics` some day; Prometheus still knows them.",
        """\
last_over_time(ray_workflow_run_status{workflow="etl"}[7d]) == 1""",
    ),
    (
        "Tasks of an ended run in their last state",
        "A task has one series for each state it was ever seen in; the newest one is meant.",
        """\
topk by (workflow_id, task_id) (1,
  max_over_time(timestamp(ray_workflow_task_state{workflow_id="etl-7"})[7d:1m])
)""",
    ),
    (
        "Share of failed runs of a day",
        "",
        """\
sum by (workflow) (increase(ray_workflow_runs_finished_total{status="FAILED"}[1d]))
  / sum by (workflow) (increase(ray_workflow_runs_finished_total{status!="CANCELED"}[1d]))""",
    ),
    (
        "The 95th percentile of run durations",
        "",
        """\
histogram_quantile(0.95, sum by (workflow, le) (
  increase(ray_workflow_runs_duration_seconds_bucket{status="SUCCESSFUL"}[7d])
))""",
    ),
    (
        "Workflows that have not succeeded for twice their interval",
        "",
        """\
time() - ray_workflow_last_success_timestamp_seconds
  > 2 * ray_workflow_expected_interval_seconds""",
    ),
)

_EXAMPLES_INTRODUCTION = """\
## Queries

With more than one cluster behind a Prometheus, add the label that tells them apart to each `on`
and `by`; with two exporters for one cluster, take `max without (instance, pod) (…)` of a family
first.
"""


def page() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for tier in Tier:
        parts.append(_section(tier, [it for it in FAMILIES if it.tier is tier]))
    parts += [_VALUES, _BUDGET, _EXAMPLES_INTRODUCTION]
    for title, remark, query in _EXAMPLES:
        text = f"{remark}\n\n" if remark else ""
        parts.append(f"### {title}\n\n{text}```promql\n{query}\n```\n")
    return "\n".join(parts)


def _section(tier: Tier, families: Iterable[Family]) -> str:
    rows = [
        f"| `{it.name}` | {it.kind.value} | {it.unit} | {_labels(it)} | {_meaning(it)} "
        f"| {it.stability.value} |"
        for it in families
    ]
    head = "| name | type | unit | labels | meaning | stability |\n|---|---|---|---|---|---|"
    return "\n".join([f"## Tier {tier.value}\n", head, *rows, ""])


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in (*family.scope.labels, *family.labels))


def _meaning(family: Family) -> str:
    if family.kind is not Kind.HISTOGRAM or not family.bounds:
        return family.help
    return f"{family.help} Buckets: {', '.join(f'{bound:g}' for bound in family.bounds)}."


if __name__ == "__main__":
    sys.stdout.write(page())
