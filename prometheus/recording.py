"""The recording rules: expressions that alerts and dashboards use repeatedly."""

from __future__ import annotations

from typing import NamedTuple

from .promql import GAP, LIVE, RUNNING, TARGET, added, latest, most, run_status, total

AT_WORK = latest('ray_workflow_stage_tasks{state="RUNNING"}', "state")
_RUN = f"group without ({TARGET}, status) (last_over_time(ray_workflow_run_status"
# 1 for each run, with its workflow: stage and task series have only the run's id. Replicas may name
# the workflow of a run differently, if one of them reached `max_workflows` or has other settings.
# Keep one name per run: two would make the evaluation fail for all clusters.
RUN = (
    f'topk without (workflow) (1,\n      {_RUN}{{workflow!="other"}}[{GAP}]))\n'
    f"        or ignoring (workflow) {_RUN}[{GAP}]))\n    )"
)
FAILURE_LABELS = "task_id, stage, kind, exception, message"


class Record(NamedTuple):
    """A recording rule; `words` describe it for docs/alerts.md."""

    record: str
    words: str
    expr: str


class Group(NamedTuple):
    """Rules that are evaluated together; an `interval` of "" is Prometheus's default."""

    name: str
    interval: str
    records: tuple[Record, ...]


WINDOWS = ("5m", "30m", "1h", "2h", "6h")
# A month of scrapes every five seconds is half a million samples per series. Windows of days
# therefore sum increases recorded every ten minutes, and lag by up to ten minutes.
STEP = "10m"
LONG_WINDOWS = ("1d", "3d", "30d")

# A cancelled run is neither a success nor a failure of its workflow.
_ENDED = {
    "workflow:ray_workflow_runs_finished": (
        "Finished runs of a workflow, without cancelled ones.",
        'ray_workflow_runs_finished_total{status!="CANCELED"}',
    ),
    "workflow:ray_workflow_runs_failed": (
        "Failed runs of a workflow.",
        'ray_workflow_runs_finished_total{status="FAILED"}',
    ),
}


def _increase(counter: str) -> str:
    """Return by how much a counter increased since the previous step.

    `increase` over each step alone misses what is added between the last scrape of one step and
    the first scrape of the next, and so everything that ends during a gap in the scrapes. The
    difference to the last value, up to an hour old, misses nothing and counts nothing twice. For a
    new series, the last value is that of an earlier Ray session. `increase` is for counters that
    were reset or are new.
    """
    last = f"last_over_time({counter}[1h])"
    before = f"last_over_time({counter}[1h] offset {STEP})"
    return (
        f"\n  {last}\n    - {before} >= 0\n    unless resets({counter}[{STEP}]) > 0\n"
        f"  or {last}\n    - ignoring (SessionName) group_left ()\n"
        f"      max without (SessionName) ({before}) >= 0\n    unless {before}\n"
        f"  or increase({counter}[{STEP}])\n"
    )


def _outcomes(window: str) -> tuple[Record, ...]:
    finished, failed = (f"{record}:increase{window}" for record in _ENDED)
    return (
        *(
            Record(
                f"{record}:increase{window}",
                words,
                f"sum_over_time({record}:increase{STEP}[{window}:{STEP}])"
                if window in LONG_WINDOWS
                else added(f"increase({counter}[{window}])", "status"),
            )
            for record, (words, counter) in _ENDED.items()
        ),
        Record(
            f"workflow:ray_workflow_success:ratio_increase{window}",
            "Share of the finished runs that did not fail.",
            f"1 - {failed} / ({finished} > 0)",
        ),
        Record(
            f"workflow:ray_workflow_budget_burn:ratio_increase{window}",
            "Burn rate of a workflow's failure budget (1 - objective); 1 uses it up exactly.",
            f"{failed} / ({finished} > 0)\n  / (1 - {latest('ray_workflow_objective_ratio')})",
        ),
        Record(
            f"cluster:ray_workflow_runs_failed:increase{window}",
            "Failed runs of all workflows.",
            f"sum without (workflow) ({failed})",
        ),
        Record(
            f"cluster:ray_workflow_runs_finished:increase{window}",
            "Finished runs of all workflows, without cancelled ones.",
            f"sum without (workflow) ({finished})",
        ),
        Record(
            f"cluster:ray_workflow_budget_burn:ratio_increase{window}",
            "Burn rate of the failure budget of all workflows together.",
            f"sum without (workflow) ({failed})\n"
            "  / (sum without (workflow) (\n"
            f"    {finished} * (1 - {latest('ray_workflow_objective_ratio')})\n"
            "  ) > 0)",
        ),
    )


def _quantiles(record: str, what: str, bucket: str, *dropped: str) -> tuple[Record, ...]:
    added = f"{record}_bucket:increase{STEP}"
    return (
        Record(
            added,
            f"Duration histogram of {what}, in ten minutes.",
            total(_increase(bucket), *dropped),
        ),
        *(
            Record(
                f"{record}:p{quantile[2:]}_7d",
                f"{int(quantile[2:])}th percentile of the duration of last week's {what}.",
                f"histogram_quantile({quantile},\n  sum_over_time({added}[7d:{STEP}])\n)",
            )
            for quantile in ("0.50", "0.95")
        ),
    )


_RUN_SECONDS = "workflow:ray_workflow_runs_duration_seconds"
_STAGE_SECONDS = "workflow_stage:ray_workflow_tasks_duration_seconds"
_RUN_SUM = 'ray_workflow_runs_duration_seconds_sum{status="SUCCESSFUL"}'
_RUN_COUNT = 'ray_workflow_runs_duration_seconds_count{status="SUCCESSFUL"}'

GROUPS = (
    Group(
        "ray-workflow-runs",
        "",
        (
            Record(
                "workflow_id:ray_workflow_elapsed:seconds",
                "Seconds since the start of a RUNNING run.",
                f"(time() - {latest('ray_workflow_run_start_timestamp_seconds')})\n"
                f"  and ({RUNNING})",
            ),
            Record(
                "workflow_id:ray_workflow_quiet:seconds",
                "Seconds since the last change of a RUNNING run or one of its tasks.",
                f"(time() - {latest('ray_workflow_run_last_transition_timestamp_seconds')})\n"
                f"  and ({RUNNING})",
            ),
            Record(
                "workflow_id:ray_workflow_task_wait_seconds:max",
                "Longest wait of the tasks that wait for resources now.",
                f"max without ({TARGET}, task_id) (\n"
                "  (time() - ray_workflow_task_submit_timestamp_seconds)\n"
                "    and ignoring (stage, state) ray_workflow_task_state"
                '{state="PENDING"}\n)',
            ),
            Record(
                "workflow_id:ray_workflow_task_wait_seconds:avg",
                "Mean time from submission to start of the tasks that have started.",
                "avg without (task_id) (\n"
                f"  {latest('ray_workflow_task_start_timestamp_seconds')}\n"
                f"    - {latest('ray_workflow_task_submit_timestamp_seconds')}\n)",
            ),
            Record(
                "workflow:ray_workflow_progress:ratio",
                "Share of SUCCESSFUL tasks, over all live runs of a workflow.",
                "sum without (workflow_id) (\n"
                f"""  {latest('ray_workflow_run_tasks{state="SUCCESSFUL"}', "state")}\n"""
                f"    and ({LIVE})\n"
                ") / (sum without (workflow_id) (\n"
                f"  sum without (state) ({latest('ray_workflow_run_tasks')}) and ({LIVE})\n) > 0)",
            ),
            Record(
                "workflow_id:ray_workflow_usual_task_seconds:max",
                "95th percentile of the task duration of the slowest stage that is RUNNING.",
                "max without (stage) (\n"
                f"  clamp_max({AT_WORK} > 0, 1)\n"
                f"    * ignoring (stage, workflow) group_left (workflow) {RUN}\n"
                "    * ignoring (workflow_id) group_left ()\n"
                # Where no task ended in a week, the quantile is NaN.
                "      (workflow_stage:ray_workflow_tasks_duration_seconds:p95_7d >= 0)\n)",
            ),
            Record(
                "workflow_id:ray_workflow_failure:timestamp",
                "End of a FAILED run, with its error as labels.",
                f"{latest('ray_workflow_run_failure_info')}\n"
                f"  * ignoring ({FAILURE_LABELS}) group_left ()\n"
                f"    {latest('ray_workflow_run_end_timestamp_seconds')}",
            ),
            # Links to a run set the time range of the dashboard.
            Record(
                "workflow_id:ray_workflow_failure_start:timestamp",
                "Start of a FAILED run.",
                f"{latest('ray_workflow_run_start_timestamp_seconds')}\n"
                f"""  and ({run_status("FAILED")})""",
            ),
            Record(
                "workflow:ray_workflow_last_failure:timestamp",
                "End of the last FAILED run of a workflow, with its error as labels.",
                "(\n  workflow_id:ray_workflow_failure:timestamp\n"
                f"    == ignoring (workflow_id, {FAILURE_LABELS}) group_left ()\n"
                f"      max without (workflow_id, {FAILURE_LABELS}) (\n"
                "        workflow_id:ray_workflow_failure:timestamp\n      )\n)\n"
                # Kept when the run has left the metrics, as long as its workflow is there.
                f"or ignoring (workflow_id, {FAILURE_LABELS}) (\n"
                f"  topk without (workflow_id, {FAILURE_LABELS}) (1,\n"
                "    last_over_time(workflow:ray_workflow_last_failure:timestamp[1h])\n  )\n"
                f"  and ignoring (workflow_id, {FAILURE_LABELS})\n"
                f"    {latest('ray_workflow_objective_ratio')}\n)",
            ),
            Record(
                "workflow_stage:ray_workflow_last_output_size:bytes",
                "Output bytes of each stage in the last successful run of a workflow.",
                "max without (workflow_id) (\n"
                f"  {latest('ray_workflow_stage_output_size_bytes')}\n"
                f"    * ignoring (stage, workflow) group_left (workflow) (\n    {RUN}\n"
                f"      and {run_status('SUCCESSFUL')}\n"
                f"      and (\n        {latest('ray_workflow_run_end_timestamp_seconds')}\n"
                "          == ignoring (workflow_id) group_left ()\n"
                f"            {latest('ray_workflow_last_success_timestamp_seconds')}\n"
                "      )\n    )\n)",
            ),
        ),
    ),
    Group(
        "ray-workflow-outcomes",
        "",
        (
            *(record for window in WINDOWS for record in _outcomes(window)),
            Record(
                "workflow:ray_workflow_runs_duration_seconds:avg1h",
                "Mean duration of the runs that succeeded in the last hour.",
                f"{added(f'increase({_RUN_SUM}[1h])', 'status')}\n"
                f"  / ({added(f'increase({_RUN_COUNT}[1h])', 'status')} > 0)",
            ),
        ),
    ),
    # Each rule reads a week or a month of data: evaluate them rarely, but within the five minutes
    # of Prometheus's look-back.
    Group(
        "ray-workflow-history",
        "2m",
        (
            *(
                Record(
                    f"{record}:increase{STEP}",
                    f"{words[:-1]}, in ten minutes, summed for windows of days.",
                    total(_increase(counter), "status"),
                )
                for record, (words, counter) in _ENDED.items()
            ),
            *(record for window in LONG_WINDOWS for record in _outcomes(window)),
            *_quantiles(
                _RUN_SECONDS,
                "successful runs",
                'ray_workflow_runs_duration_seconds_bucket{status="SUCCESSFUL"}',
                "status",
            ),
            *_quantiles(
                _STAGE_SECONDS,
                "tasks of a stage",
                "ray_workflow_tasks_duration_seconds_bucket",
            ),
            Record(
                "workflow:ray_workflow_runs_succeeded:increase7d",
                "Successful runs of a workflow in the last week.",
                "sum without (le) (sum_over_time(\n"
                f'  {_RUN_SECONDS}_bucket:increase{STEP}{{le="+Inf"}}[7d:{STEP}]\n))',
            ),
            Record(
                "workflow_stage:ray_workflow_last_output_size:median_7d",
                "Median over the last week of each stage's output bytes in successful runs.",
                "quantile_over_time(0.5,\n"
                f"  workflow_stage:ray_workflow_last_output_size:bytes[7d:{STEP}]\n)",
            ),
            Record(
                "workflow:ray_workflow_last_success:changes_7d",
                "Successful runs in the last week, counted at most once every ten minutes.",
                most(f"changes(\n  ray_workflow_last_success_timestamp_seconds[7d:{STEP}]\n)"),
            ),
        ),
    ),
)
