"""The dashboards hold what Grafana, its linter and our users expect, before any server is asked."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from prometheus.alerts import ALERTS
from prometheus.generate import dashboard_url
from prometheus.recording import GROUPS
from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS
from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import Kind
from support.dashboards import (
    DASHBOARDS,
    Query,
    computed_variables,
    filled,
    links,
    offers,
    page_links,
    panels,
    queries,
    row_links,
    variable_queries,
    variables,
)

KEYS = ("workflow", "exporter", "fleet", "oncall", "run")
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in panels(dashboard)]
ASKING = [(name, panel) for name, panel in PANELS if panel["type"] not in ("text", "alertlist")]
SCALARS = ("stat", "gauge", "bargauge", "table", "timeseries", "heatmap", "barchart")

by_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
by_panel = pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=[f"{name}/{panel['title']}" for name, panel in PANELS]
)
by_asking = pytest.mark.parametrize(
    ("name", "panel"), ASKING, ids=[f"{name}/{panel['title']}" for name, panel in ASKING]
)


def test_there_are_the_five_dashboards() -> None:
    assert set(DASHBOARDS) == {f"ray-workflow-{key}" for key in KEYS}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's builder needs Python 3.11")
def test_no_dashboard_is_stale() -> None:
    from grafana.generate import files

    stale = [path.name for path, text in files().items() if path.read_text() != text]
    assert not stale, "run `make dashboards`"


@by_dashboard
def test_a_dashboard_keeps_the_rules_of_provisioning(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == name
    assert dashboard["title"]
    assert dashboard["schemaVersion"] == 41
    assert "id" not in dashboard
    assert dashboard["editable"] is False
    assert dashboard["timezone"] == "browser"
    assert dashboard["tags"] == ["ray-workflow"]
    assert dashboard["description"].endswith("?"), "it says which question it answers"
    assert dashboard["refresh"]
    (to_others,) = [it for it in dashboard["links"] if it["type"] == "dashboards"]
    assert to_others["tags"] == dashboard["tags"]
    assert to_others["keepTime"]
    assert to_others["includeVars"]


def test_titles_differ() -> None:
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@by_dashboard
def test_variables_keep_the_rules_of_grafanas_linter(name: str) -> None:
    found = variables(DASHBOARDS[name])
    assert next(iter(found)) == "datasource"
    assert found["datasource"]["label"] == "Data source"
    assert found["datasource"]["type"] == "datasource"
    # Not `job` and `instance`: a workflow, a run or a task is no matter of the exporter's address.
    assert {"cluster", "SessionName"} <= set(found)
    known = {"datasource"}
    for variable in found.values():
        assert variable["label"]
        if variable["type"] != "query":
            known.add(variable["name"])
    for queried, query in variable_queries(DASHBOARDS[name]):
        assert found[queried]["refresh"] == 2, "read again when the time range changes"
        assert set(re.findall(r"\$(\w+)", query)) <= known, "it asks for a later variable"
        known.add(queried)


@by_panel
def test_a_panel_says_what_it_is_and_what_to_do(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) >= 30
    assert panel["description"].endswith((".", "?"))


@by_asking
def test_a_panel_asks_the_chosen_data_source(name: str, panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == chosen
        assert bool(target.get("instant")) is not bool(target.get("range"))
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@by_asking
def test_a_number_has_a_unit_and_an_empty_panel_a_word(name: str, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] in SCALARS:
        overridden = [
            prop
            for override in panel["fieldConfig"]["overrides"]
            for prop in override["properties"]
            if prop["id"] == "unit"
        ]
        assert defaults.get("unit") or defaults.get("mappings") or overridden
    if panel["type"] in ("stat", "gauge", "bargauge", "table"):
        assert defaults.get("noValue"), "what does it show on a fresh installation?"


@by_dashboard
def test_panels_fill_the_grid_without_overlaps(name: str) -> None:
    boxes = [
        (it["x"], it["y"], it["x"] + it["w"], it["y"] + it["h"])
        for it in (panel["gridPos"] for panel in DASHBOARDS[name]["panels"])
    ]
    assert all(left >= 0 and right <= 24 for left, _, right, _ in boxes)
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


def test_colours_are_those_of_the_palette_alone() -> None:
    palette = {it.hex for it in (*STATE_COLOURS.values(), *STATUS_COLOURS.values())}
    for name, dashboard in DASHBOARDS.items():
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", json.dumps(dashboard))) <= palette, name


def test_the_same_word_has_the_same_colour_everywhere() -> None:
    known = {
        state.value: colour.hex
        for colours in (STATE_COLOURS, STATUS_COLOURS)
        for state, colour in colours.items()
    }
    seen = Counter[str]()
    for _, panel in PANELS:
        for override in panel["fieldConfig"]["overrides"]:
            word = override["matcher"].get("options")
            for prop in override["properties"]:
                fixed = prop["id"] == "color" and prop["value"]["mode"] == "fixed"
                if fixed and word in known:
                    assert prop["value"]["fixedColor"] == known[word], panel["title"]
                    seen[word] += 1
                if prop["id"] == "mappings":
                    _check_mappings(prop["value"], known, seen)
        _check_mappings(panel["fieldConfig"]["defaults"].get("mappings", ()), known, seen)
    assert set(seen) >= {"RUNNING", "SUCCESSFUL", "FAILED"}


def _check_mappings(mappings: Any, known: dict[str, str], seen: Counter[str]) -> None:
    for mapping in mappings:
        for result in mapping["options"].values() if mapping["type"] == "value" else ():
            word = result.get("text")
            if word in known and "color" in result:
                assert result["color"] == known[word]
                seen[word] += 1


def metrics() -> dict[str, Kind]:
    """Return every name that a dashboard may ask for; those of rules count as gauges."""
    found = {"ALERTS": Kind.GAUGE, "ALERTS_FOR_STATE": Kind.GAUGE, "up": Kind.GAUGE}
    found["ray_workflow:threshold"] = Kind.GAUGE
    found |= {record.record: Kind.GAUGE for group in GROUPS for record in group.records}
    found |= dict.fromkeys(
        ("process_resident_memory_bytes", "process_start_time_seconds"), Kind.GAUGE
    )
    found["process_cpu_seconds_total"] = Kind.COUNTER
    for family in FAMILIES:
        if family.kind is Kind.HISTOGRAM:
            found |= {family.name + it: Kind.COUNTER for it in ("_bucket", "_sum", "_count")}
        else:
            found[family.name] = family.kind
    return found


NAME = re.compile(r"(?<![\w\"'=~/.-])((?:\w+:)?(?:ray_workflow|process|ALERTS|up\b)[\w:]*)")


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_names_metrics_that_exist_and_rates_only_counters(query: Query) -> None:
    known = metrics()
    named = NAME.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', query.expr))
    assert named
    assert set(named) <= set(known)
    rated = re.findall(r"\b(?:i?rate|increase)\(([\w:]+)", query.expr)
    assert all(known[name] is Kind.COUNTER for name in rated)
    assert not re.search(r"\birate?\([^[]*\[\d", query.expr)
    for name in named:
        if known[name] is Kind.COUNTER:
            pattern = rf"(?:rate|increase|last_over_time)\({name}\b"
            assert re.search(pattern, query.expr), f"{name} is a counter: take its increase"
    for window in re.findall(r"\brate\([^[]*\[([^\]]+)\]", query.expr):
        assert window == "$__rate_interval"


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_of_recorded_series_does_not_select_a_session_of_ray(query: Query) -> None:
    # Recorded series add up over sessions and have no such label.
    for matchers in re.findall(r"\b\w+:ray_workflow[\w:]*\{([^}]*)", query.expr):
        assert "SessionName" not in matchers


@by_dashboard
def test_labels_of_variables_exist(name: str) -> None:
    labels = {label for family in FAMILIES for label in (*family.scope.labels, *family.labels)}
    for _, query in variable_queries(DASHBOARDS[name]):
        match = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query)
        assert match, query
        assert match[1] in metrics()
        assert match[2] in labels | {"cluster", "SessionName"}


@by_dashboard
def test_links_lead_to_dashboards_and_variables_that_exist(name: str) -> None:
    for url in links(DASHBOARDS[name]):
        target = urlsplit(url)
        if not target.path.startswith("/d/"):
            assert re.match(r"\$\{\w+\}/|https?://", url), url
            continue
        key = target.path.split("/")[2]
        assert key in DASHBOARDS, url
        asked = [part for part in parse_qsl(target.query) if part[0].startswith("var-")]
        for variable, _ in asked:
            assert variable[4:] in variables(DASHBOARDS[key]), url
        for shared in re.findall(r"\$\{(\w+):queryparam\}", url):
            assert shared in variables(DASHBOARDS[name])
            assert shared in variables(DASHBOARDS[key])


ROW_LINKS = [
    (panel, url)
    for _, panel in PANELS
    if panel["type"] == "table"
    for url in row_links(panel)
    if "&var-workflow=" in url
]


@pytest.mark.parametrize(
    ("panel", "url"), ROW_LINKS, ids=[f"{panel['title']}: {url}" for panel, url in ROW_LINKS]
)
def test_a_row_leads_to_what_is_in_its_own_cluster(panel: dict[str, Any], url: str) -> None:
    assert "&var-cluster=${__data.fields.cluster:percentencode}&" in url
    assert "cluster:queryparam" not in url
    about = dict(re.findall(r"&var-(workflow|run)=([^&]+)", url))
    assert about["workflow"] == "${__data.fields.workflow:percentencode}"
    assert about.get("run", "") in ("", "${__data.fields.workflow_id:percentencode}")
    for target in panel["targets"]:
        assert re.search(r"\bby \([^)]*\bcluster\b", target["expr"]), "rows lose their cluster"
    (empty,) = [
        prop["value"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "Cluster"
        for prop in override["properties"]
        if prop["id"] == "noValue"
    ]
    assert empty == "", "a link would ask for what an empty cell says"


@pytest.mark.parametrize(
    "panel", list(panels(DASHBOARDS["ray-workflow-run"])), ids=lambda it: it["title"]
)
def test_the_dashboard_of_a_run_asks_for_one_run_of_one_cluster(panel: dict[str, Any]) -> None:
    for target in panel.get("targets", ()):
        selectors = re.findall(r"ray_workflow_\w+\{([^}]*\}[^}]*\}[^}]*)\}", target["expr"])
        assert len(selectors) == target["expr"].count("ray_workflow_")
        for selector in selectors:
            assert "cluster=`${run_cluster:raw}`" in selector
            assert "workflow_id=`${run:raw}`" in selector


def test_links_to_the_page_of_a_run_hold_its_id_in_the_query() -> None:
    found = Counter[str]()
    for name, dashboard in DASHBOARDS.items():
        for url in page_links(dashboard):
            values = {"exporter": "http://host"}
            values |= dict.fromkeys(("run", "__data.fields.workflow_id"), 'a/b "c" (d)?#%\\`')
            expected = "http://host/run?workflow_id=a%2Fb%20%22c%22%20%28d%29%3F%23%25%5C%60"
            assert filled(url, values, link=True) == expected
            found[name] += 1
    assert found == {"ray-workflow-oncall": 1, "ray-workflow-run": 1}


@by_dashboard
def test_variables_leave_out_what_no_query_can_say(name: str) -> None:
    for variable, _ in variable_queries(DASHBOARDS[name]):
        # In a query, their values stand between backquotes.
        pattern = variables(DASHBOARDS[name])[variable]["regex"].strip("/")
        assert re.search(pattern, 'etl "a"\\\n/b')
        assert not re.search(pattern, "tick`tock")


@by_dashboard
def test_alerts_in_charts_are_off_at_first_and_only_those_of_what_is_shown(name: str) -> None:
    (annotation,) = DASHBOARDS[name]["annotations"]["list"]
    assert annotation["enable"] is False
    selector, again = annotation["target"]["expr"].split("\nunless ")
    assert again == f"{selector} offset $__interval", "only starts"
    shown = {
        "ray-workflow-run": "workflow_id=`${run:raw}`",
        "ray-workflow-workflow": "workflow=`${workflow:raw}`",
        "ray-workflow-fleet": "workflow=~`${workflow:regex}`",
        "ray-workflow-exporter": 'workflow=""',
        "ray-workflow-oncall": "cluster",
    }
    assert shown[name] in selector
    for variable in re.findall(r"\$\{?(\w+)", selector):
        assert variable in variables(DASHBOARDS[name])


@by_dashboard
def test_computed_variables_are_queries_that_grafana_reads(name: str) -> None:
    for variable, expr in computed_variables(DASHBOARDS[name]):
        assert "\n" not in expr, "Grafana would offer nothing"
        assert set(NAME.findall(re.sub(r'"[^"]*"', '""', expr))) <= set(metrics())
        assert variables(DASHBOARDS[name])[variable].get("sort", 0) == 0
        assert variables(DASHBOARDS[name])[variable]["refresh"] == 2


def test_runs_are_offered_by_their_start_whatever_their_id() -> None:
    ids = ['etl "a"} 1 \\\n/b', "tick`tock", "z"]
    result = [
        {"metric": {"workflow_id": it}, "value": [1764359200.123, str(at)]}
        for at, it in enumerate(ids)
    ]
    variable = variables(DASHBOARDS["ray-workflow-run"])["run"]
    assert "query_result(sort_desc(" in variable["query"]["query"]
    assert offers(variable, result) == [ids[0], ids[2]]


def test_a_dashboard_opens_on_the_default_data_source_with_few_controls() -> None:
    shown = {"datasource", "cluster", "workflow", "run", "stage"}
    for dashboard in DASHBOARDS.values():
        found = variables(dashboard)
        assert found["datasource"]["current"]["value"] == "default"
        assert {name for name, it in found.items() if it.get("hide", 0) == 0} <= shown


def test_alerts_lead_to_dashboards_and_variables_that_exist() -> None:
    for alert in ALERTS:
        url = urlsplit(dashboard_url(alert, "http://grafana"))
        asked = re.findall(r"var-(\w+)=", url.query)
        assert asked
        assert set(asked) <= set(variables(DASHBOARDS[url.path.split("/")[2]])), alert.name
