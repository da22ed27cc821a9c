"""The dashboard that shows whether the exporter can be believed, and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, stat, timeseries
from grafana_foundation_sdk.models import common as option_models
from grafana_foundation_sdk.models import dashboard as models

from prometheus.promql import one

from .common import (
    CLUSTER,
    GREEN,
    ORANGE,
    RED,
    cluster,
    make_dashboard,
    now,
    panel,
    series,
    steps,
    yes_or_no,
)


def _metric(name: str, *labels: str) -> str:
    return f"{name}{{{', '.join([CLUSTER, *labels])}}}"


def _up(name: str, title: str, description: str) -> stat.Panel:
    return yes_or_no(
        panel(stat.Panel(), title, description, 4, 4).with_target(
            now(f"min(max without (instance, pod) ({_metric(name)}))")
        )
    )


def _number(
    title: str, description: str, unit: str, expr: str, *levels: tuple[float, str]
) -> stat.Panel:
    return (
        panel(stat.Panel(), title, description, 4, 4)
        .unit(unit).decimals(0)
        .with_target(now(expr, "{{reason}}"))
        .thresholds(steps((None, GREEN), *levels))
        .color_mode(option_models.BigValueColorMode.VALUE)
    )  # fmt: skip


def _quantile(name: str, quantile: str) -> str:
    bucket = _metric(f"ray_workflow_exporter_{name}_seconds_bucket")
    return f"histogram_quantile({quantile}, sum by (le) (rate({bucket}[$__rate_interval])))"


def _latencies(name: str, title: str, description: str) -> timeseries.Panel:
    it = panel(timeseries.Panel(), title, description, 8, 8).unit("s").min(0)
    for ref, quantile, legend in (("A", "0.5", "half"), ("B", "0.99", "99 %")):
        it = it.with_target(series(_quantile(name, quantile), legend, ref))
    return it


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    own = "ray_workflow_exporter_"
    hidden = one(_metric(own + "hidden_objects"))
    restarts, errors = _metric(own + "link_restarts_total"), _metric(own + "poll_errors_total")
    job = 'job="ray-workflow"'
    memory = _metric("process_resident_memory_bytes", job)
    cpu = _metric("process_cpu_seconds_total", job)
    return (
        make_dashboard(
            "exporter",
            "Exporter",
            "Can the other dashboards be believed, and what does watching cost?",
            cluster(),
        )
        .with_panel(_up("ray_workflow_storage_up", "Storage",
            "Whether the last poll could list the workflow storage. If not, see the exporter's "
            "log: everything but live runs is as it was."))
        .with_panel(_up("ray_workflow_manager_up", "Manager",
            "Whether the WorkflowManagementActor answers. Without workflows there is none; with "
            "runs waiting, resume them. Empty where only storage is watched."))
        .with_panel(_number("Age of what is shown",
            "Seconds since the last poll ended. More than a minute: the exporter hangs, and "
            "every dashboard shows old values.", "s",
            f"time() - min({one(_metric(own + 'last_poll_timestamp_seconds'))})",
            (30, ORANGE), (120, RED)))
        .with_panel(_number("Runs still to read",
            "Ended runs that were found in storage and not read yet. It falls to 0 after a "
            "start; history is incomplete until then.", "short",
            f"sum({one(_metric(own + 'runs_to_read'))})"))
        .with_panel(_number("Left out by limits",
            "Objects that a limit keeps out of the metrics. More than 0: dashboards and alerts do "
            "not see them; raise the limit that is named, or choose a smaller detail.", "short",
            f"sum by (reason) ({hidden}) > 0\n"
            f'or label_replace(sum({hidden}) == 0, "reason", "nothing", "", "")', (1, ORANGE))
            .text_mode(option_models.BigValueTextMode.VALUE_AND_NAME))
        .with_panel(_number("Link restarts, last hour",
            "How often the process that talks to Ray was started again. Often: Ray's GCS or "
            "raylet is in trouble, or its version does not match.", "short",
            f"sum({one(f'increase({restarts}[1h])')})", (1, ORANGE), (4, RED)))
        .with_panel(_latencies("change_latency", "From a change in Ray to its metric",
            "How fresh the metrics are. Slower than the interval of polls allows: look at what a "
            "poll costs."))
        .with_panel(_latencies("poll_duration", "What a poll takes",
            "Grows with what changed, not with what is held. Near the interval: choose a longer "
            "interval, or shards."))
        .with_panel(_latencies("probe_duration", "What Ray's manager takes to answer",
            "The time that the WorkflowManagementActor spends on us. It should stay in "
            "milliseconds; more means that it is busy with its own work."))
        .with_panel(
            panel(timeseries.Panel(), "Series by family",
                "The ten families with most series. What grows here grows in Prometheus, too.",
                12, 9)
            .unit("short").min(0)
            .with_target(series(
                f"topk(10, sum by (family) ({one(_metric(own + 'series'))}))", "{{family}}"))
            .legend(options.VizLegendOptions()
                .display_mode(option_models.LegendDisplayMode.TABLE)
                .placement(option_models.LegendPlacement.RIGHT).calcs(["lastNotNull"])
                .show_legend(True))
        )
        .with_panel(
            panel(timeseries.Panel(), "Errors in polls, each minute",
                "By part of the poll. `list` and `read` are storage, `manager` is Ray, `render` is "
                "a fault of the exporter: report it with its log.", 6, 9)
            .unit("short").min(0)
            .with_target(series(
                f"60 * sum by (phase) ({one(f'rate({errors}[$__rate_interval])')})", "{{phase}}"))
        )
        .with_panel(
            panel(timeseries.Panel(), "Memory and CPU of the exporter",
                "Memory follows the series it exposes and stays flat while they do.", 6, 9)
            .unit("bytes").min(0)
            .with_target(series(memory, "memory {{instance}}"))
            .with_target(series(f"rate({cpu}[$__rate_interval])", "CPU {{instance}}", "B"))
            .override_by_regexp("/^CPU/", [
                models.DynamicConfigValue(id_val="unit", value="percentunit"),
                models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            ])
        )
    )  # fmt: skip
