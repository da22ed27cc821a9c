"""What all dashboards share: data source, variables, links, colours, and panels with our manners.

Write new panels with the functions here: they ask for a title, for a description that says what
to do with what one sees, and for a unit.
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

# What the variables of a dashboard choose; to be put into the braces of every selector.
CLUSTER = 'cluster=~"$cluster", SessionName=~"$SessionName"'
WORKFLOW = f"{CLUSTER}, workflow=~`${{workflow:regex}}`"
# Ids may hold quotes and backslashes: between backquotes they need no escape.
CHOSEN_RUN = f"{CLUSTER}, workflow_id=`${{run:raw}}`"
# Of one cluster: two of them may have a run of the same id.
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
    """Begin the dashboard with the stable uid `ray-workflow-KEY`, which answers a question."""
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
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    for variable in variables:
        it = it.with_variable(variable)
    return it


def as_json(it: dashboard.Dashboard) -> str:
    """Return the file that Grafana is provisioned with."""
    made = json.loads(JSONEncoder().encode(it.build()))
    made["schemaVersion"] = 41  # of Grafana 11.6, which 12 reads as well
    # The builder knows no annotations of Prometheus.
    made["annotations"] = {"list": [_ALERTS]}
    for drawn in made["panels"]:
        if drawn["type"] == "nodeGraph":  # unknown to the builder, and to 11.6
            drawn.setdefault("options", {})["layoutAlgorithm"] = "layered"
    return json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


_ALERTS = {
    "name": "Alerts",
    "datasource": {"type": "prometheus", "uid": "${datasource}"},
    "enable": True,
    "iconColor": RED,
    "target": {
        "refId": "alerts",
        "expr": 'ALERTS{alertname=~"RayWorkflow.+", alertstate="firing", cluster=~"$cluster"}',
        "interval": "30s",
    },
    "titleFormat": "{{alertname}}",
    "textFormat": "{{workflow}} {{workflow_id}}",
    "tagKeys": "severity,cluster",
}


def variable(
    name: str, label: str, query: str, *, every: bool = True, multi: bool = False
) -> dashboard.QueryVariable:
    """Return a variable of values that Prometheus knows in the time range.

    `every` offers All, which also matches series that lack the label. Values with a backquote are
    left out: no way to write them in a query is open to a dashboard, and each panel would be an error.
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
    """Return the variables that choose a cluster, by our label and by Ray's."""
    return (
        variable("cluster", "Cluster", "label_values(ray_workflow_storage_up, cluster)"),
        variable(
            "SessionName",
            "Ray session",
            'label_values(ray_workflow_storage_up{cluster=~"$cluster"}, SessionName)',
        ),
    )


def workflow(*, every: bool = True) -> dashboard.QueryVariable:
    """Return the variable that chooses a workflow."""
    query = f"label_values(ray_workflow_runs{{{CLUSTER}}}, workflow)"
    return variable("workflow", "Workflow", query, every=every, multi=every)


def run() -> dashboard.QueryVariable:
    """Return the variable that chooses one run among those of the workflow."""
    query = f"label_values(ray_workflow_run_info{{{WORKFLOW}}}, workflow_id)"
    it = variable("run", "Run", query, every=False)
    return it.description(
        "Of the chosen workflows and the time range. An id with a backquote is not offered, because "
        "no dashboard can ask for it: see the exporter's page of that run."
    )


def run_cluster() -> dashboard.QueryVariable:
    """Return the hidden variable that says which cluster's run is shown: the first that has it.

    It is empty where Prometheus gives clusters no label, and then matches just what lacks it.
    """
    query = f"label_values(ray_workflow_run_info{{{CHOSEN_RUN}}}, cluster)"
    it = variable("run_cluster", "Cluster of the run", query, every=False)
    return it.hide(models.VariableHide.HIDE_VARIABLE)


def stage() -> dashboard.QueryVariable:
    """Return the variable that chooses a stage of the run."""
    return variable("stage", "Stage", f"label_values(ray_workflow_stage_tasks{{{RUN}}}, stage)")


def address(name: str, label: str, of: str, default: str) -> dashboard.TextBoxVariable:
    """Return a variable that says where a browser finds something."""
    it = dashboard.TextBoxVariable(name).label(label).default_value(default)
    return it.description(f"Address of {of}, as a browser reaches it.")


def exporter() -> dashboard.TextBoxVariable:
    """Return the variable that says where a browser finds the exporter's pages."""
    return address("exporter", "Exporter", "the exporter", "http://localhost:20729")


def link(
    key: str, title: str, *, time: str = "${__url_time_range}", **variables: str
) -> dict[str, Any]:
    """Return a link to another of our dashboards, the time range kept unless `time` says another.

    `variables` are texts of Grafana such as `${__data.fields.workflow_id}`; the data source, the
    cluster and Ray's session stay as they are unless these say another.
    """
    kept = (it for it in ("datasource", "cluster", "SessionName") if it not in variables)
    asked = (
        time,
        *(f"${{{name}:queryparam}}" for name in kept),
        *(f"var-{name}={value}" for name, value in variables.items()),
    )
    return {"title": title, "url": f"/d/{UID}{key}?{'&'.join(asked)}", "targetBlank": False}


def series(expr: str, legend: str, ref: str = "A") -> prometheus.Dataquery:
    """Ask for values over the time range."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .legend_format(legend)
        .range()
        .ref_id(ref)
    )


def rows(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """Ask for a table as of the end of the time range: a row a series, a column a label."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .format(prometheus_models.PromQueryFormat.TABLE)
        .instant()
        .ref_id(ref)
    )


def now(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Ask for values as of the end of the time range."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expr)
        .legend_format(legend)
        .instant()
        .ref_id(ref)
    )


def panel(kind: Panel, title: str, description: str, width: int, height: int) -> Panel:
    """Give a panel what every panel has."""
    it = kind.title(title).description(description).datasource(SOURCE)
    return it.span(width).height(height).no_value("–")


def fixed(colour: str) -> dict[str, str]:
    """Return a field's colour."""
    return {"mode": "fixed", "fixedColor": colour}


def colour_series(it: Panel, colours: Mapping[Any, Colour]) -> Panel:
    """Give series that are named like states or statuses their colours."""
    for state, colour in colours.items():
        it = it.override_by_name(
            state.value, [models.DynamicConfigValue(id_val="color", value=fixed(colour.hex))]
        )
    return it


def word_mapping(colours: Mapping[Any, Colour]) -> models.ValueMap:
    """Return the mapping that colours a cell by the state or status that it says."""
    return coloured_words({state.value: colour.hex for state, colour in colours.items()})


def coloured_words(colours: Mapping[str, str]) -> models.ValueMap:
    """Return the mapping that colours a cell by the word that it says."""
    return models.ValueMap(
        options={
            word: models.ValueMappingResult(text=word, color=colour, index=index)
            for index, (word, colour) in enumerate(colours.items())
        }
    )


def steps(*at: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return thresholds: from each value on, a colour; the first value is None."""
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
