"""Tables joined from several instant queries, with links to other dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as models

from .common import Panel, link, panel

# The labels that identify a run; all families of a run have them. Most setups have no `cluster`.
RUN = "cluster, workflow, workflow_id"


def each(by: str, expr: str) -> str:
    """Return one sample for each combination of these labels."""
    return f"max by ({by}) (\n  {expr}\n)"


def rows_panel(title: str, description: str, empty: str, width: int, height: int) -> table.Panel:
    """Create a table for queries made by `rows`; `empty` is shown when it has no rows."""
    nothing = models.DynamicConfigValue(id_val="noValue", value="–")
    return (
        panel(table.Panel(), title, description, width, height)
        .no_value(empty)
        .override_by_regexp(".*", [nothing])
    )


def columns(it: table.Panel, names: Mapping[str, str]) -> table.Panel:
    """Join the queries by their common labels, and show these fields in this order.

    A field named "" is hidden; links may use it.
    """
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {field: index for index, field in enumerate(names)},
        "renameByName": {field: name for field, name in names.items() if name},
    }
    # All rows have the same time. Without rows, this leaves no table, and Grafana shows the text
    # for an empty table instead of a header without rows.
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
    # Links use this field: without a cluster, it must be empty.
    return column(it, "Cluster", {"custom.width": 90, "noValue": ""})


def column(it: Panel, name: str, settings: Mapping[str, Any]) -> Panel:
    """Set properties of a field, selected by its displayed name."""
    return it.override_by_name(
        name,
        [models.DynamicConfigValue(id_val=key, value=value) for key, value in settings.items()],
    )


def greatest_first(name: str) -> options.TableSortByFieldState:
    """Sort a table by a field, selected by its displayed name."""
    return options.TableSortByFieldState().display_name(name).desc(True)


def cell(field: str) -> str:
    """Return the Grafana expression for a label of the row, encoded for a URL."""
    return f"${{__data.fields.{field}:percentencode}}"


def number(ref: str) -> str:
    """Return the Grafana expression for the row's value of a query."""
    return f'${{__data.fields["Value #{ref}"].numeric}}'


def text(ref: str) -> str:
    """Return the Grafana expression for the same value with mappings applied."""
    return f'${{__data.fields["Value #{ref}"]}}'


def workflow_link() -> dict[str, Any]:
    """Return the link from a row to the dashboard of its workflow."""
    return link(
        "workflow", "Workflow dashboard", cluster=cell("cluster"), workflow=cell("workflow")
    )


def run_link(time: str = "${__url_time_range}") -> dict[str, Any]:
    """Return the link from a row to the dashboard of its run."""
    return link(
        "run", "Run dashboard", time=time,
        cluster=cell("cluster"), workflow=cell("workflow"), run=cell("workflow_id"),
    )  # fmt: skip


BAR = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
WORD = {"type": "color-background", "mode": "basic"}
