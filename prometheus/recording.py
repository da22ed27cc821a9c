"""The recording rules: what alerts and dashboards ask for again and again."""

from __future__ import annotations

from typing import NamedTuple

from .promql import LIVE, RUNNING, TARGET, one, total

AT_WORK = one('ray_workflow_stage_tasks{state="RUNNING"}', "state")
_RUN = f"group without ({TARGET}, status) (ray_workflow_run_status"
SUCCESSFUL = 'ray_workflow_run_status{status="SUCCESSFUL"}'
# 1 for each run, with its workflow: stage and task series know only the run. Where replicas name a
# workflow differently, because one of them reached `max_workflows` or has other settings, a run
# still has one: two would end the evaluation for all clusters.
RUN = (
    f'topk without (workflow) (1,\n      {_RUN}{{workflow!="other"}})\n'
    f"        or ignoring (workflow) {_RUN})\n    )"
)
FAILURE_LABELS = "task_id, stage, kind, exception, message"


class Record(NamedTuple):
    """A recording rule; `words` say what it holds."""

    record: str
    words: str
    expr: str


class Group(NamedTuple):
    """Rules that are evaluated together; `interval` "" is Prometheus's own."""

    name: str
    interval: str
    records: tuple[Record, ...]


WINDOWS = ("5m", "30m", "1h", "2h", "6h")
# A month of scrapes each five seconds is half a million samples of a series: what looks back for
# longer than hours adds up what was recorded of each ten minutes. It lags by up to as long.
STEP = "10m"
LONG_WINDOWS = ("1d", "3d", "30d")

# A cancelled run says nothing about the workflow.
_ENDED = {
    "workflow:ray_workflow_runs_finished": (
        "Runs of a workflow that ended, without those that were cancelled.",
        'ray_workflow_runs_finished_total{status!="CANCELED"}',
    ),
    "workflow:ray_workflow_runs_failed": (
        "Runs of a workflow that failed.",
        'ray_workflow_runs_finished_total{status="FAILED"}',
    ),
}


def _added(record: str, words: str, counter: str) -> Record:
    """Record how many runs ended since the step before.

    `increase` of each step by itself would miss what a counter adds between the last scrape of one
    step and the first one of the next, so it would miss all that ended while nothing was scraped.
    Differences to the value last seen, up to an hour ago, leave nothing out and count nothing
    twice. `increase` is for counters that began anew, or only now.
    """
    return Record(
        f"{record}:increase{STEP}",
        f"{words[:-1]}, in ten minutes: what windows of days add up.",
        total(
            f"\n  last_over_time({counter}[1h])\n"
            f"    - last_over_time({counter}[1h] offset {STEP}) >= 0\n"
            f"  or increase({counter}[{STEP}])\n",
            "status",
        ),
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
                else total(f"increase({counter}[{window}])", "status"),
            )
            for record, (words, counter) in _ENDED.items()
        ),
        Record(
            f"workflow:ray_workflow_success:ratio_increase{window}",
            "Share of the ended runs that did not fail.",
            f"1 - {failed} / ({finished} > 0)",
        ),
        Record(
            f"workflow:ray_workflow_budget_burn:ratio_increase{window}",
            "How fast the success budget of a workflow, 1 - objective, is used up; 1: just as fast "
            "as it may be.",
            f"{failed} / ({finished} > 0)\n  / (1 - {one('ray_workflow_objective_ratio')})",
        ),
        Record(
            f"cluster:ray_workflow_runs_failed:increase{window}",
            "Runs that failed, over all workflows.",
            f"sum without (workflow) ({failed})",
        ),
        Record(
            f"cluster:ray_workflow_budget_burn:ratio_increase{window}",
            "How fast the success budget of all workflows together is used up.",
            f"sum without (workflow) ({failed})\n"
            "  / (sum without (workflow) (\n"
            f"    {finished} * (1 - {one('ray_workflow_objective_ratio')})\n"
            "  ) > 0)",
        ),
    )


def _quantiles(record: str, what: str, bucket: str, *dropped: str) -> tuple[Record, ...]:
    added = f"{record}_bucket:increase{STEP}"
    return (
        Record(
            added,
            f"Histogram of the durations of {what}.",
            total(f"increase({bucket}[{STEP}])", *dropped),
        ),
        *(
            Record(
                f"{record}:p{quantile[2:]}_7d",
                f"Of last week's {what}, {int(quantile[2:])} % took no longer.",
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
                "For how long a RUNNING run has been at work.",
                f"(time() - {one('ray_workflow_run_start_timestamp_seconds')})\n  and ({RUNNING})",
            ),
            Record(
                "workflow_id:ray_workflow_quiet:seconds",
                "For how long nothing of a RUNNING run has changed.",
                f"(time() - {one('ray_workflow_run_last_transition_timestamp_seconds')})\n"
                f"  and ({RUNNING})",
            ),
            Record(
                "workflow_id:ray_workflow_task_wait_seconds:max",
                "Of the tasks that wait for resources now, the longest wait.",
                f"max without ({TARGET}, task_id) (\n"
                "  (time() - ray_workflow_task_submit_timestamp_seconds)\n"
                "    and ignoring (stage, state) ray_workflow_task_state"
                '{state="PENDING"}\n)',
            ),
            Record(
                "workflow_id:ray_workflow_task_wait_seconds:avg",
                "Mean time from submission to start, of the tasks that did start.",
                "avg without (task_id) (\n"
                f"  {one('ray_workflow_task_start_timestamp_seconds')}\n"
                f"    - {one('ray_workflow_task_submit_timestamp_seconds')}\n)",
            ),
            Record(
                "workflow:ray_workflow_progress:ratio",
                "Share of tasks that are done, over all runs of a workflow that are under way.",
                "sum without (workflow_id) (\n"
                f"""  {one('ray_workflow_run_tasks{state="SUCCESSFUL"}', "state")} and ({LIVE})\n"""
                ") / (sum without (workflow_id) (\n"
                f"  sum without (state) ({one('ray_workflow_run_tasks')}) and ({LIVE})\n) > 0)",
            ),
            Record(
                "workflow_id:ray_workflow_usual_task_seconds:max",
                "How long the slowest of the stages at work usually keeps a task.",
                "max without (stage) (\n"
                f"  clamp_max({AT_WORK} > 0, 1)\n"
                f"    * ignoring (stage, workflow) group_left (workflow) {RUN}\n"
                "    * ignoring (workflow_id) group_left ()\n"
                # Where nothing ended in a week, the quantile is no number.
                "      (workflow_stage:ray_workflow_tasks_duration_seconds:p95_7d >= 0)\n)",
            ),
            Record(
                "workflow_id:ray_workflow_failure:timestamp",
                "When a FAILED run ended, with its error as labels.",
                f"{one('ray_workflow_run_failure_info')}\n"
                f"  * ignoring ({FAILURE_LABELS}) group_left ()\n"
                f"    {one('ray_workflow_run_end_timestamp_seconds')}",
            ),
            # A link to a run carries its time.
            Record(
                "workflow_id:ray_workflow_failure_start:timestamp",
                "When a FAILED run had started.",
                f"{one('ray_workflow_run_start_timestamp_seconds')}\n"
                f"""  and ({one('ray_workflow_run_status{status="FAILED"}', "status")} == 1)""",
            ),
            Record(
                "workflow:ray_workflow_last_failure:timestamp",
                "When the last failure of a workflow was, with its error as labels.",
                "workflow_id:ray_workflow_failure:timestamp\n"
                f"  == ignoring (workflow_id, {FAILURE_LABELS}) group_left ()\n"
                f"    max without (workflow_id, {FAILURE_LABELS}) (\n"
                "      workflow_id:ray_workflow_failure:timestamp\n    )",
            ),
            Record(
                "workflow_stage:ray_workflow_last_output_size:bytes",
                "What the last successful run of a workflow left behind in each stage.",
                "max without (workflow_id) (\n"
                f"  {one('ray_workflow_stage_output_size_bytes')}\n"
                f"    * ignoring (stage, workflow) group_left (workflow) (\n    {RUN}\n"
                f"      and {one(SUCCESSFUL, 'status')} == 1\n"
                f"      and (\n        {one('ray_workflow_run_end_timestamp_seconds')}\n"
                "          == ignoring (workflow_id) group_left ()\n"
                f"            {one('ray_workflow_last_success_timestamp_seconds')}\n"
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
                f"{total(f'increase({_RUN_SUM}[1h])', 'status')}\n"
                f"  / ({total(f'increase({_RUN_COUNT}[1h])', 'status')} > 0)",
            ),
        ),
    ),
    # A week's or a month's data each: seldom, and still within the five minutes that Prometheus
    # looks back.
    Group(
        "ray-workflow-history",
        "2m",
        (
            *(_added(record, *of) for record, of in _ENDED.items()),
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
                "Runs of a workflow that succeeded in the last week.",
                "sum without (le) (sum_over_time(\n"
                f'  {_RUN_SECONDS}_bucket:increase{STEP}{{le="+Inf"}}[7d:{STEP}]\n))',
            ),
            Record(
                "workflow_stage:ray_workflow_last_output_size:median_7d",
                "The last week's median of what successful runs left behind in each stage.",
                "quantile_over_time(0.5,\n"
                f"  workflow_stage:ray_workflow_last_output_size:bytes[7d:{STEP}]\n)",
            ),
            Record(
                "workflow:ray_workflow_last_success:changes_7d",
                "Successful runs of the last week, counted at most once in ten minutes.",
                f"max without ({TARGET}) (changes(\n"
                f"  ray_workflow_last_success_timestamp_seconds[7d:{STEP}]\n))",
            ),
        ),
    ),
)
