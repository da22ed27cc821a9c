"""Write `docs/metrics.md` from the rows of families.

    python -m docs.reference.metrics > docs/metrics.md

A test compares that file with the output of this module, and the numbers of the budget with a
rendered exposition.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ray_workflow_exporter.catalog.workflow_counters import (
    MAX_STAGES,
    RUN_SECONDS_BOUNDS,
    TASK_SECONDS_BOUNDS,
)
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Family, Kind, Tier

# Maximum number of series, without histograms, deadline, failure and critical path: see `_BUDGET`.
SERIES_PER_WORKFLOW = 20
SERIES_PER_RUN = 21
SERIES_PER_STAGE = 13
SERIES_PER_TASK = 10
SERIES_PER_RUN_HISTOGRAM = len(RUN_SECONDS_BOUNDS) + 3  # the +Inf bucket, sum and count
SERIES_PER_STAGE_OF_WORKFLOW = len(TASK_SECONDS_BOUNDS) + 3 + 1  # a histogram, and CPUs
RUN_HISTOGRAMS = 3  # one for each status a run can end with


def workflow_series(stages: int) -> int:
    """Return the series of one workflow whose runs have had so many different stages."""
    histograms = RUN_HISTOGRAMS * SERIES_PER_RUN_HISTOGRAM
    return SERIES_PER_WORKFLOW + histograms + stages * SERIES_PER_STAGE_OF_WORKFLOW


def run_series(stages: int, stage_edges: int, tasks: int = 0, task_edges: int = 0) -> int:
    """Return the series of one run; `tasks` and `task_edges` are those in the task tier."""
    of_stages = SERIES_PER_STAGE * stages + stage_edges
    return SERIES_PER_RUN + of_stages + SERIES_PER_TASK * tasks + task_edges


_INTRODUCTION = f"""\
# Metrics

This page is generated from the files in `exporter/ray_workflow_exporter/metrics/families/` by
`python -m docs.reference.metrics > docs/metrics.md`. Edit those files, not this page.

All names begin with `ray_workflow_`. Times are Unix timestamps in seconds, durations are seconds,
sizes are bytes. No value changes by the mere passing of time: a running object has a start
timestamp, and `time() - start` is its age. A family without samples is omitted together with its
header. `/metrics` serves the text format 0.0.4 or OpenMetrics 1.0, as the `Accept` header asks;
both contain the same samples.

## Words

- **workflow**: what runs repeatedly; label `workflow`. The name comes from the user metadata of a
  run, else from its id without counters, dates and UUIDs, else it is `unnamed`. Workflows beyond
  `max_workflows` share the name `other`.
- **run**: one execution, with its own workflow id; label `workflow_id`.
- **task**: one node of a run's DAG; label `task_id`.
- **stage**: all tasks of a run with the same task name; label `stage`. A fan-out over 1,000
  inputs is 1,000 tasks and one stage.
- **edge**: the `target` depends on the `source`. Its `kind` is `data` (the target takes the
  source's output as an argument) or `continuation` (the source returned the workflow that contains
  the target). An edge is exposed only if both its ends are.

### Status of a run

These are Ray's own names.

- `PENDING`: submitted; waits because `max_running_workflows` runs are RUNNING.
- `RUNNING`: the WorkflowManagementActor executes it.
- `RESUMABLE`: running according to storage, but no management actor executes it: the actor or its
  cluster died, or Ray's own executor failed, as at a task with `max_calls` (the API's `reason` says
  so). Resume or delete it. Shown after two polls in a row find it so.
- `SUCCESSFUL`: ended, and its output is stored.
- `FAILED`: ended because a task failed.
- `CANCELED`: canceled by a user.

### State of a task

- `WAITING`: a task that it depends on has not finished.
- `PENDING`: submitted to Ray but not started: waits for resources or for its environment.
- `RUNNING`: its function runs. `workflow.sleep` and `wait_for_event` are RUNNING while they wait.
- `SUCCESSFUL`: its function returned, even if it returned a workflow that still runs; or
  `catch_exceptions` caught its exception.
- `FAILED`: its last attempt failed.
- `CANCELED`: was running when its run was canceled, failed or became RESUMABLE.
- `NOT_RUN`: its run ended, or became RESUMABLE, before the task did. In a RESUMABLE run a task that
  was interrupted is NOT_RUN with a start: a resume runs it again.

## Tiers

`detail` sets the deepest tier that is exposed: workflow, run, stage or task.
`/metrics?tier=workflow&tier=run` selects tiers for one scrape. Every tier is bounded, and
`ray_workflow_exporter_hidden_objects` counts what a limit leaves out.

- `cluster` is always exposed. If the sources do not answer for longer than `max_staleness`, the
  tiers workflow to task are removed and `ray_workflow_storage_up` is 0.
- `workflow` contains every workflow, at most `max_workflows` with {MAX_STAGES} stages each; further
  workflows share the name `other`. Counters survive a restart of the exporter; runs that ended
  before the exporter first read the storage are not counted.
- `run` contains all live runs, and finished ones for `finished_retention` (24 h), at most the
  newest `max_finished_runs` (1,000).
- `stage` contains the same runs, without those that have more stages than `max_tasks_per_run`.
- `task` contains live runs, and finished ones for `task_retention` (1 h); FAILED tasks stay as
  long as their run. A run with more than `max_tasks_per_run` (1,000) tasks has only its stages.
- `exporter` describes the exporter itself.

Stable families keep name, type, labels and meaning until a major release; experimental ones may
change in any release.
"""

_VALUES = """\
## Label values

- Backslash, quote and newline are escaped as the format requires; other control characters and
  bytes that are not UTF-8 are written as `\\x01` or `\\udc80`.
- Values are cut at 256 characters. A value that was cut, or that contained such characters, ends
  in `~` and twelve hexadecimal digits, so that two different ids stay two different series.
- `message` is cut at 512 characters. What looks like a password, token, key or a login in a URL
  is replaced by `***`; this is a heuristic and cannot find every secret. With
  `expose_error_messages: false` the label is always empty; `exception` still has the type.
- `meta_*` stands for one label for each key in `metadata_labels`. Characters that a label name
  cannot contain become `_`; of two keys with the same label name, the later one in the list gets
  `_2`. Every run has all of these labels; a label is empty if the metadata has no such key.
- Labels for unknown facts (`node_id`, `max_retries`, …) are empty.
"""

_BUDGET = f"""\
## Cardinality

Series at most:

| each | series |
|---|---|
| workflow | {SERIES_PER_WORKFLOW}, and {RUN_HISTOGRAMS} histograms of {SERIES_PER_RUN_HISTOGRAM} |
| stage of a workflow | {SERIES_PER_STAGE_OF_WORKFLOW}, 1 more for each resource other than CPUs |
| run | {SERIES_PER_RUN}, 1 more with a deadline, 1 more if FAILED |
| stage of a run | {SERIES_PER_STAGE} |
| task | {SERIES_PER_TASK}, 1 more on the critical path, 1 more if FAILED |
| edge between stages or tasks | 1 |

    series = workflows · {workflow_series(0)} + stages of workflows · {SERIES_PER_STAGE_OF_WORKFLOW}
           + runs · {SERIES_PER_RUN} + stages of runs · {SERIES_PER_STAGE} + edges between stages
           + tasks · {SERIES_PER_TASK} + edges between tasks

Example: 10 workflows of 4 stages; 1,000 finished runs without tasks, each with 4 stages and 3
edges between them; and 50 live runs of 100 tasks and 150 edges:
10 · {workflow_series(4)} + 1,000 · {run_series(4, 3)} + 50 · {run_series(4, 3, 100, 150):,} \
= {10 * workflow_series(4) + 1000 * run_series(4, 3) + 50 * run_series(4, 3, 100, 150):,} series.

`ray_workflow_exporter_series` has the current number by family. To reduce it, lower
`max_finished_runs`, `finished_retention` or `max_tasks_per_run`, or choose a smaller `detail`.
Prometheus stores new series for every run, so its disk usage grows with the number of runs a day.
"""

_EXAMPLES = (  # a question, its answer in PromQL, and a remark
    (
        "How long has each run been running?",
        """\
(time() - ray_workflow_run_start_timestamp_seconds)
  and on (workflow_id) (ray_workflow_run_status{status="RUNNING"} == 1)""",
    ),
    (
        "Which workflows asked for most GPU hours in a week?",
        """\
topk(10, sum by (workflow) (
  increase(ray_workflow_tasks_resource_seconds_total{resource="GPU"}[7d]))) / 3600""",
        "Times the price of an hour, this is what they cost.",
    ),
    (
        "How much of a run is done?",
        'ray_workflow_run_progress_ratio{workflow_id="etl-7"}',
    ),
    (
        "Seconds until the expected end",
        'ray_workflow_run_expected_end_timestamp_seconds{workflow_id="etl-7"} - time()',
    ),
    (
        "Which tasks wait for resources, and since when?",
        """\
(time() - ray_workflow_task_submit_timestamp_seconds)
  and on (workflow_id, task_id) ray_workflow_task_state{state="PENDING"}""",
    ),
    (
        "Why did the last runs of a workflow fail?",
        'ray_workflow_run_failure_info{workflow="etl"}',
        "See the labels `task_id`, `stage`, `kind`, `exception` and `message`.",
    ),
    (
        "Which tasks failed, of which workflow?",
        """\
ray_workflow_task_failure_info
  * on (workflow_id) group_left (workflow) ray_workflow_run_info""",
        "Stage and task series carry the run, not the workflow; `ray_workflow_run_info` adds it.",
    ),
    (
        "The DAG of a run: nodes",
        """\
label_replace(ray_workflow_task_state{workflow_id="etl-7"}, "id", "$1", "task_id", "(.*)")""",
        "A node graph takes two instant queries in table format, named `nodes` and `edges`.",
    ),
    (
        "The DAG of a run: edges",
        'label_replace(ray_workflow_task_edge{workflow_id="etl-7"}, "id", "$1", "edge", "(.*)")',
        "The label `edge` stays the same as long as the edge exists. Ids made of other labels can "
        "contain characters with which Grafana draws no arrowhead.",
    ),
    (
        "The DAG of a run: positions",
        """\
160 * (ray_workflow_task_column{workflow_id="etl-7"}
  - scalar(max(ray_workflow_task_column{workflow_id="etl-7"})) / 2)""",
        "Joined to the nodes by task, with a query of the same kind for the row, and with their "
        "values named `fixedx` and `fixedy`, such positions replace Grafana's own layout. In a run "
        "of more than 200 tasks, the position of a task is that within its stage.",
    ),
    (
        "Finished runs",
        'last_over_time(ray_workflow_run_status{workflow="etl"}[7d]) == 1',
        "Finished runs are removed from `/metrics`; Prometheus still has their samples.",
    ),
    (
        "Tasks of a finished run in their final state",
        """\
topk by (workflow_id, task_id) (1,
  max_over_time(timestamp(ray_workflow_task_state{workflow_id="etl-7"})[7d:1m])
)""",
        "A task has one series for each state it has been in; take the newest one.",
    ),
    (
        "Share of failed runs in one day",
        """\
sum by (workflow) (increase(ray_workflow_runs_finished_total{status="FAILED"}[1d]))
  / sum by (workflow) (increase(ray_workflow_runs_finished_total{status!="CANCELED"}[1d]))""",
    ),
    (
        "The 95th percentile of run durations",
        """\
histogram_quantile(0.95, sum by (workflow, le) (
  increase(ray_workflow_runs_duration_seconds_bucket{status="SUCCESSFUL"}[7d])
))""",
    ),
    (
        "Workflows that have not succeeded for twice their interval",
        """\
time() - ray_workflow_last_success_timestamp_seconds
  > 2 * ray_workflow_expected_interval_seconds""",
    ),
)

_EXAMPLES_INTRODUCTION = """\
## Queries

If one Prometheus scrapes several clusters, add the label that identifies the cluster to each `on`
and `by`. With two exporters for one cluster, apply `max without (instance, pod) (…)` to a family
first.
"""


def page() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for tier in Tier:
        parts.append(_section(tier, [it for it in FAMILIES if it.tier is tier]))
    parts += [_VALUES, _BUDGET, _EXAMPLES_INTRODUCTION]
    for title, query, *remark in _EXAMPLES:
        parts.append("\n\n".join((f"### {title}", *remark, f"```promql\n{query}\n```\n")))
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
