"""Parts of alert texts: templates that Prometheus renders with the labels of an alert."""

from __future__ import annotations

ON_CLUSTER = "{{ with $labels.cluster }} on {{ . }}{{ end }}"
WORKFLOW = "{{ $labels.workflow }}" + ON_CLUSTER
RUN = "{{ $labels.workflow_id }} of {{ $labels.workflow }}" + ON_CLUSTER
SECONDS = "{{ $value | humanizeDuration }}"

# The error of the workflow's last failed run, queried when the alert's text is rendered: as labels
# of the alert, each new failure would be a new alert, whose `for` starts again.
LAST_FAILURE = (
    '{{ with printf "workflow:ray_workflow_last_failure:timestamp{workflow=%q,cluster=%q}"'
    " $labels.workflow $labels.cluster | query }}{{ with first . }}"
    " Run {{ .Labels.workflow_id }} failed"
    "{{ with .Labels.task_id }} in task {{ . }}{{ end }}"
    "{{ with .Labels.stage }} (stage {{ . }}){{ end }}"
    "{{ with .Labels.exception }} with {{ . }}{{ end }}"
    "{{ with .Labels.message }}: {{ . }}{{ end }}.{{ end }}{{ end }}"
)


def failed_runs(scope: str, window: str) -> str:
    """Return "5 of 9 runs failed in 6h", for a workflow or with the worst one of a cluster."""
    of_workflow = scope == "workflow"
    matchers = "workflow=%q,cluster=%q" if of_workflow else "cluster=%q"
    labels = ("$labels.workflow " if of_workflow else "") + "$labels.cluster"

    def count(record: str) -> str:
        series = f"{scope}:ray_workflow_runs_{record}:increase{window}{{{matchers}}}"
        return (
            f'{{{{ with printf "{series}" {labels} | query }}}}'
            '{{ . | first | value | printf "%.0f" }}{{ end }}'
        )

    worst = (
        f'{{{{ with printf "topk(1, workflow:ray_workflow_runs_failed:increase{window}'
        '{cluster=%q})" $labels.cluster | query }}'
        '; most of them: {{ . | first | label "workflow" }} '
        '({{ . | first | value | printf "%.0f" }}){{ end }}'
    )
    return (
        f"{count('failed')} of {count('finished')} runs failed in {window}"
        + ("" if of_workflow else worst)
        + "."
    )
