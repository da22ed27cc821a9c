"""Tables put together from several instant queries, whose rows lead to other dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as models

from .common import Panel, link, panel

# The labels that tell runs apart and that all families of a run have; most setups lack `cluster`.
RUN = "cluster, workflow, workflow_id"


def each(by: str, expr: str) -> str:
    """Return one sample for each of the objects that these labels tell apart."""
    return f"max by ({by}) (\n  {expr}\n)"


def rows_panel(title: str, description: str, empty: str, width: int, height: int) -> table.Panel:
    """Begin a table, whose rows are asked for by `rows`; `empty` is what it says without any."""
    nothing = models.DynamicConfigValue(id_val="noValue", value="–")
    return (
        panel(table.Panel(), title, description, width, height)
        .no_value(empty)
        .override_by_regexp(".*", [nothing])
    )


def columns(it: table.Panel, names: Mapping[str, str]) -> table.Panel:
    """Join the queries by the labels that they share, and show these fields in this order.

    A field that is named "" is not shown; links may use it.
    """
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {field: index for index, field in enumerate(names)},
        "renameByName": {field: name for field, name in names.items() if name},
    }
    # All rows have the same time. Without rows, this leaves no table: then Grafana shows the text
    # for that, as it does for a single query without rows, instead of a head without a body.
    only_rows = {"fields": ["Time"], "keepFields": True, "naming": {"asLabels": False}}
    joined = "Value" not in names
    for transformation, settings in (
        *((("merge", {}), ("partitionByValues", only_rows)) if joined else ()),
        ("organize", organize),
    ):
        it = it.with_transformation(
            models.DataTransformerConfig(id_val=transformation, options=settings)
        )
    for field, name in names.items():
        if not name:
            it = column(it, field, {"custom.hidden": True})
    # Links say it: no cluster is an empty one.
    return column(it, "Cluster", {"custom.width": 90, "noValue": ""})


def column(it: Panel, name: str, settings: Mapping[str, Any]) -> Panel:
    """Set properties of a field, by the name that is shown."""
    return it.override_by_name(
        name,
        [models.DynamicConfigValue(id_val=key, value=value) for key, value in settings.items()],
    )


def greatest_first(name: str) -> options.TableSortByFieldState:
    """Sort a table by a field, by the name that is shown."""
    return options.TableSortByFieldState().display_name(name).desc(True)


def cell(field: str) -> str:
    """Return Grafana's text for a label of the row, to be put into an address."""
    return f"${{__data.fields.{field}:percentencode}}"


def number(ref: str) -> str:
    """Return Grafana's text for the value that a query of the table gave to the row."""
    return f'${{__data.fields["Value #{ref}"].numeric}}'


def text(ref: str) -> str:
    """Return Grafana's text for the same value as it is shown, mappings applied."""
    return f'${{__data.fields["Value #{ref}"]}}'


def workflow_link() -> dict[str, Any]:
    """Return the link from a row to the dashboard of its workflow in its cluster."""
    return link(
        "workflow", "Workflow dashboard", cluster=cell("cluster"), workflow=cell("workflow")
    )


def run_link(time: str = "${__url_time_range}") -> dict[str, Any]:
    """Return the link from a row to the dashboard of its run in its cluster."""
    return link(
        "run", "Run dashboard", time=time,
        cluster=cell("cluster"), workflow=cell("workflow"), run=cell("workflow_id"),
    )  # fmt: skip


BAR = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
WORD = {"type": "color-background", "mode": "basic"}
