"""The families about the exporter itself; `own.py` keeps those that have no sampler."""

from __future__ import annotations

from ..family import COUNTER, EXPORTER, GAUGE, HISTOGRAM, Family

FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_exporter_hidden_objects", GAUGE, EXPORTER,
        "Objects left out of the metrics because of a limit, by reason.",
        lambda snapshot, _: [((reason,), count) for reason, count in snapshot.hidden.items()],
        ("reason",),
    ),
    Family(
        "ray_workflow_exporter_series", GAUGE, EXPORTER,
        "Exposed series by family, without those of the exporter itself.",
        labels=("family",),
    ),
    Family(
        "ray_workflow_exporter_poll_duration_seconds", HISTOGRAM, EXPORTER,
        "Seconds taken by a poll of storage and management actor.",
        bounds=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Family(
        "ray_workflow_exporter_probe_duration_seconds", HISTOGRAM, EXPORTER,
        "Seconds until the WorkflowManagementActor answered a request.",
        bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
    ),
    Family(
        "ray_workflow_exporter_change_latency_seconds", HISTOGRAM, EXPORTER,
        "Seconds between a change in Ray and the first snapshot that contains it.",
        bounds=(0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0),
    ),
    Family(
        "ray_workflow_exporter_last_poll_timestamp_seconds", GAUGE, EXPORTER,
        "Unix time at which the last poll ended, with or without errors.",
    ),
    Family(
        "ray_workflow_exporter_runs_to_read", GAUGE, EXPORTER,
        "Finished runs that are listed but not read yet, for example after a start.",
    ),
    Family(
        "ray_workflow_exporter_poll_errors_total", COUNTER, EXPORTER,
        "Errors in polls, by phase of the poll.",
        labels=("phase",),
    ),
    Family(
        "ray_workflow_exporter_storage_requests_total", COUNTER, EXPORTER,
        "Requests to workflow storage, by kind; an object store charges for them.",
        labels=("kind",),
    ),
    Family(
        "ray_workflow_exporter_actions_total", COUNTER, EXPORTER,
        "Actions on runs that users requested, by action and result.",
        labels=("action", "result"),
    ),
    Family(
        "ray_workflow_exporter_link_restarts_total", COUNTER, EXPORTER,
        "Restarts of the child process that talks to Ray.",
    ),
    Family(
        "ray_workflow_exporter_state_up", GAUGE, EXPORTER,
        "1 if the state files can be read and written; if 0, counters are lost at a restart.",
    ),
    Family(
        "ray_workflow_exporter_storage_verified", GAUGE, EXPORTER,
        "0 if the storage lacks Ray's file `_valid` or Ray uses another storage, else 1.",
    ),
    Family(
        "ray_workflow_exporter_build_info", GAUGE, EXPORTER,
        "1, with the versions of the exporter, Python and Ray as labels.",
        labels=("version", "python", "ray"),
    ),
)  # fmt: skip
