"""The exporter dashboard: health and cost of the exporter."""

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
    RECORDED,
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
    for ref, quantile, legend in (("A", "0.5", "median"), ("B", "0.99", "p99")):
        it = it.with_target(series(_quantile(name, quantile), legend, ref))
    return it


CHART_ALERTS = f'{RECORDED}, workflow=""'


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
            "Is the data of the other dashboards complete, and what does the exporter cost?",
            cluster(),
        )
        .with_panel(_up("ray_workflow_storage_up", "Storage",
            "Whether the last poll could list the workflow storage. If not, see the exporter's "
            "log: only live runs are up to date."))
        .with_panel(_up("ray_workflow_manager_up", "Manager",
            "Whether the WorkflowManagementActor answers. Before the first workflow, there is none. "
            "If it died, resume its runs. Empty if the exporter reads storage only."))
        .with_panel(_number("Age of the data",
            "Seconds since the last poll ended. Above a minute, the exporter hangs and all "
            "dashboards show old values.", "s",
            f"time() - min({one(_metric(own + 'last_poll_timestamp_seconds'))})",
            (30, ORANGE), (120, RED)))
        .with_panel(_number("Runs to read",
            "Finished runs that are listed in storage and not read yet. Falls to 0 after a start; "
            "until then, history is incomplete.", "short",
            f"sum({one(_metric(own + 'runs_to_read'))})"))
        .with_panel(_number("Objects hidden by limits",
            "Objects that a limit keeps out of the metrics, and so out of dashboards and alerts. "
            "Above 0, raise that limit or set a smaller `detail`.", "short",
            f"sum by (reason) ({hidden}) > 0\n"
            f'or label_replace(sum({hidden}) == 0, "reason", "none", "", "")', (1, ORANGE))
            .text_mode(option_models.BigValueTextMode.VALUE_AND_NAME))
        .with_panel(_number("Restarts of the connection to Ray, last hour",
            "Restarts of the process that connects to Ray. If there are many, Ray's GCS or raylet "
            "fails, or its version does not match.", "short",
            f"sum({one(f'increase({restarts}[1h])')})", (1, ORANGE), (4, RED)))
        .with_panel(_latencies("change_latency", "Latency from a change in Ray to its metric",
            "If it is much longer than the poll interval, see the poll duration."))
        .with_panel(_latencies("poll_duration", "Poll duration",
            "Grows with the number of changes per poll. If it comes near the poll interval, set a "
            "longer interval or use shards."))
        .with_panel(_latencies("probe_duration", "Response time of Ray's manager",
            "Seconds until the WorkflowManagementActor answers a poll. Usually milliseconds; more "
            "means that its process is busy."))
        .with_panel(
            panel(timeseries.Panel(), "Series by family",
                "The ten families with the most series. If one grows, Prometheus needs more memory.",
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
            panel(timeseries.Panel(), "Poll errors per minute",
                "By phase of the poll. `list` and `read`: storage. `manager`: Ray. `render`: a bug in "
                "the exporter, report it with its log.", 6, 9)
            .unit("short").min(0)
            .with_target(series(
                f"60 * sum by (phase) ({one(f'rate({errors}[$__rate_interval])')})", "{{phase}}"))
        )
        .with_panel(
            panel(timeseries.Panel(), "Memory and CPU",
                "Memory grows with the number of exposed series. If it grows without them, report it.", 6, 9)
            .unit("bytes").min(0)
            .with_target(series(memory, "memory {{instance}}"))
            .with_target(series(f"rate({cpu}[$__rate_interval])", "CPU {{instance}}", "B"))
            .override_by_regexp("/^CPU/", [
                models.DynamicConfigValue(id_val="unit", value="percentunit"),
                models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            ])
        )
    )  # fmt: skip
