"""Shared by all dashboards: data source, variables, links, colours and panel defaults.

Create panels with the functions here: they require a title, a description that says what to do
with what the panel shows, and a unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS, Colour
from ray_workflow_exporter.model import RunStatus, TaskState

UID = "ray-workflow-"
TAG = "ray-workflow"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Matchers for the variables of a dashboard, for use in every selector.
# Recorded series have no SessionName: they add up over restarts of Ray.
RECORDED = 'cluster=~"$cluster"'
CLUSTER = f'{RECORDED}, SessionName=~"$SessionName"'
WORKFLOW = f"{CLUSTER}, workflow=~`${{workflow:regex}}`"
RECORDED_WORKFLOW = f"{RECORDED}, workflow=~`${{workflow:regex}}`"
# Ids may contain quotes and backslashes: between backquotes they need no escape.
CHOSEN_RUN = f"{CLUSTER}, workflow_id=`${{run:raw}}`"
# Of one cluster: two clusters may have a run with the same id.
RUN = 'cluster=`${run_cluster:raw}`, SessionName=~"$SessionName", workflow_id=`${run:raw}`'

GREEN = STATUS_COLOURS[RunStatus.SUCCESSFUL].hex
RED = STATUS_COLOURS[RunStatus.FAILED].hex
BLUE = STATUS_COLOURS[RunStatus.RUNNING].hex
ORANGE = STATUS_COLOURS[RunStatus.CANCELED].hex
PURPLE = STATUS_COLOURS[RunStatus.PENDING].hex
GREY = STATE_COLOURS[TaskState.WAITING].hex


class _Panel(Protocol):
    """What the builders of all kinds of panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: models.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def interval(self, interval: str) -> Self: ...
    def max_data_points(self, max_data_points: float) -> Self: ...
    def mappings(self, mappings: list[models.ValueMapping]) -> Self: ...
    def override_by_name(self, name: str, properties: list[models.DynamicConfigValue]) -> Self: ...


Panel = TypeVar("Panel", bound=_Panel)


def make_dashboard(
    key: str,
    title: str,
    question: str,
    variables: Sequence[Any],
    *,
    refresh: str = "10s",
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """Create the dashboard with the stable uid `ray-workflow-KEY`; `question` is its description."""
    it = (
        dashboard.Dashboard(f"Ray Workflows / {title}")
        .uid(UID + key)
        .description(question)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh(refresh)
        .link(
            dashboard.DashboardLink("Ray Workflows")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(models.VariableOption(text="default", value="default"))
        )
    )
    for variable in variables:
        it = it.with_variable(variable)
    return it


def as_json(it: dashboard.Dashboard, alerts: str) -> str:
    """Return the JSON file with which Grafana is provisioned.

    `alerts` are matchers of the alerts that can be shown in its charts.
    """
    made = json.loads(JSONEncoder().encode(it.build()))
    made["schemaVersion"] = 41  # of Grafana 11.6; 12 reads it as well
    # The builder has no Prometheus annotations.
    made["annotations"] = {"list": [_alerts(alerts)]}
    for drawn in made["panels"]:
        if drawn["type"] == "nodeGraph":  # not in the builder, and ignored by Grafana 11.6
            drawn.setdefault("options", {})["layoutAlgorithm"] = "layered"
    return json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _alerts(matchers: str) -> dict[str, Any]:
    """Return a line at each start of an alert, hidden at first: the time of all would hide charts."""
    firing = f'ALERTS{{alertname=~"RayWorkflow.+", alertstate="firing", {matchers}}}'
    return {
        "name": "Starts of alerts",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": False,
        "iconColor": RED,
        "target": {
            "refId": "alerts",
            "expr": f"{firing}\nunless {firing} offset $__interval",
            "interval": "30s",
        },
        "titleFormat": "{{alertname}}",
        "textFormat": "{{workflow}} {{workflow_id}}",
        "tagKeys": "severity,cluster",
    }


def variable(
    name: str, label: str, query: str, *, every: bool = True, multi: bool = False
) -> dashboard.QueryVariable:
    """Return a variable with the values that a query finds in the time range.

    `every` adds All, which also matches series without the label. Values with a backquote are left
    out: a dashboard cannot write them in a query, and every panel would show an error.
    """
    it = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": "values"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .regex("/^[^`]*$/")
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(multi)
        .include_all(every)
    )
    return it.all_value(".*") if every else it


def cluster() -> Sequence[dashboard.QueryVariable]:
    """Return the variables that select a cluster: the label `cluster` and Ray's SessionName."""
    return (
        variable("cluster", "Cluster", "label_values(ray_workflow_storage_up, cluster)"),
        # Ray's own dashboards set it in the address.
        variable(
            "SessionName",
            "Ray session",
            'label_values(ray_workflow_storage_up{cluster=~"$cluster"}, SessionName)',
        ).hide(models.VariableHide.HIDE_VARIABLE),
    )


def workflow(*, every: bool = True) -> dashboard.QueryVariable:
    """Return the variable that selects a workflow."""
    query = f"label_values(ray_workflow_runs{{{CLUSTER}}}, workflow)"
    return variable("workflow", "Workflow", query, every=every, multi=every)


def run() -> dashboard.QueryVariable:
    """Return the variable that selects one run of the workflow."""
    start, info = (
        f"max by (workflow_id) (last_over_time(ray_workflow_run_{it}{{{WORKFLOW}}}[$__range]))"
        for it in ("start_timestamp_seconds", "info")
    )
    query = f"query_result(sort_desc({start} or {info}))"  # without a start: it is PENDING
    it = variable("run", "Run", query, every=False).sort(models.VariableSort.DISABLED)
    return it.regex(r"""/^\{workflow_id="([^`]*)"\} \S+ \S+$/""").description(
        "Runs of the selected workflows in the time range, newest first. Ids with a backquote are "
        "not listed, because a dashboard cannot query them: see the run's page in the exporter."
    )


def run_cluster() -> dashboard.QueryVariable:
    """Return the hidden variable with the cluster of the selected run: the first that has the run.

    It is empty if targets have no label `cluster`, and then matches series without the label.
    """
    query = f"label_values(ray_workflow_run_info{{{CHOSEN_RUN}}}, cluster)"
    it = variable("run_cluster", "Cluster of the run", query, every=False)
    return it.hide(models.VariableHide.HIDE_VARIABLE)


def stage() -> dashboard.QueryVariable:
    """Return the variable that selects a stage of the run."""
    return variable("stage", "Stage", f"label_values(ray_workflow_stage_tasks{{{RUN}}}, stage)")


def address(name: str, label: str, of: str, default: str) -> dashboard.TextBoxVariable:
    """Return the hidden variable for an address that the browser opens: see `grafana export`."""
    it = dashboard.TextBoxVariable(name).label(label).default_value(default)
    return it.hide(models.VariableHide.HIDE_VARIABLE).description(
        f"Address of {of}, as the browser reaches it."
    )


def exporter() -> dashboard.TextBoxVariable:
    """Return the variable for the address of the exporter's pages."""
    return address("exporter", "Exporter", "the exporter", "http://localhost:20729")


def link(
    key: str, title: str, *, time: str = "${__url_time_range}", **variables: str
) -> dict[str, Any]:
    """Return a link to another dashboard; it keeps the time range unless `time` is given.

    `variables` are Grafana expressions such as `${__data.fields.workflow_id}`. Data source,
    cluster and Ray session are kept unless given here.
    """
    kept = (it for it in ("datasource", "cluster", "SessionName") if it not in variables)
    asked = (
        time,
        *(f"${{{name}:queryparam}}" for name in kept),
        *(f"var-{name}={value}" for name, value in variables.items()),
    )
    return {"title": title, "url": f"/d/{UID}{key}?{'&'.join(asked)}", "targetBlank": False}


def series(expr: str, legend: str, ref: str = "A") -> prometheus.Dataquery:
    """Query values over the time range."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .legend_format(legend)
        .range()
        .ref_id(ref)
    )


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """Query a table at the end of the time range: a row per series, a column per label."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .format(prometheus_models.PromQueryFormat.TABLE)
        .instant()
        .ref_id(ref)
    )


def now(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Query values at the end of the time range."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .legend_format(legend)
        .instant()
        .ref_id(ref)
    )


def panel(kind: Panel, title: str, description: str, width: int, height: int) -> Panel:
    """Set the properties that every panel has."""
    it = kind.title(title).description(description).datasource(SOURCE)
    return it.span(width).height(height).no_value("–")


def fixed(colour: str) -> dict[str, str]:
    """Return the setting for a fixed colour."""
    return {"mode": "fixed", "fixedColor": colour}


def colour_series(it: Panel, colours: Mapping[Any, Colour]) -> Panel:
    """Set the colours of series named like states or statuses."""
    for state, colour in colours.items():
        it = it.override_by_name(
            state.value, [models.DynamicConfigValue(id_val="color", value=fixed(colour.hex))]
        )
    return it


def word_mapping(colours: Mapping[Any, Colour]) -> models.ValueMap:
    """Return the mapping that colours a cell by its state or status."""
    return coloured_words({state.value: colour.hex for state, colour in colours.items()})


def coloured_words(colours: Mapping[str, str]) -> models.ValueMap:
    """Return the mapping that colours a cell by its text."""
    return models.ValueMap(
        options={
            word: models.ValueMappingResult(text=word, color=colour, index=index)
            for index, (word, colour) in enumerate(colours.items())
        }
    )


def steps(*at: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return thresholds: a colour from each value on; the first value is None."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in at])
    )


def yes_or_no(it: Panel) -> Panel:
    """Show 1 as a green yes and 0 as a red no."""
    words = {
        "0": models.ValueMappingResult(text="no", color=RED, index=0),
        "1": models.ValueMappingResult(text="yes", color=GREEN, index=1),
    }
    return it.mappings([models.ValueMap(options=words)]).unit("short").no_value("–")
