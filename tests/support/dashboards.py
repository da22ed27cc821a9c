"""The dashboards as Grafana reads them: panels, queries, variables, links."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}


class Query(NamedTuple):
    """An expression of a dashboard, and where it stands."""

    dashboard: str
    panel: str  # its title; "" for a variable or an annotation
    ref: str
    expr: str
    instant: bool
    interval: str = ""  # the least step that its panel asks for

    def __str__(self) -> str:
        return f"{self.dashboard}/{self.panel or 'dashboard'}/{self.ref}"


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return all panels of a dashboard, those inside rows too, without the rows themselves."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def variables(dashboard: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables of a dashboard by name."""
    return {it["name"]: it for it in dashboard["templating"]["list"]}


def queries() -> Iterator[Query]:
    """Return every expression of every panel and annotation."""
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                instant = bool(target.get("instant"))
                yield Query(
                    name, panel["title"], target["refId"], target["expr"], instant,
                    panel.get("interval") or "",
                )  # fmt: skip
        for annotation in dashboard["annotations"]["list"]:
            target = annotation["target"]
            yield Query(name, "", annotation["name"], target["expr"], False, target["interval"])


def variable_queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return name and query of each variable that offers values of a label, in their order."""
    for name, query in _queries_of_variables(dashboard):
        if query.startswith("label_values("):
            yield name, query


def computed_variables(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return name and expression of each variable that is the result of a query."""
    for name, query in _queries_of_variables(dashboard):
        if query.startswith("query_result("):
            yield name, query.removeprefix("query_result(").removesuffix(")")


def _queries_of_variables(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, variable in variables(dashboard).items():
        if variable["type"] == "query":
            query = variable["query"]
            yield name, query if isinstance(query, str) else query["query"]


def offers(variable: Mapping[str, Any], result: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a variable offers of the result of its query, as Grafana reads it."""
    pattern = variable["regex"].strip("/")
    found = []
    for it in result:
        labels = ",".join(f'{name}="{value}"' for name, value in it["metric"].items())
        time, value = it["value"]
        match = re.search(pattern, f"{{{labels}}} {value} {time * 1000}")
        if match:
            found.append(match[1])
    return found


def row_links(panel: Mapping[str, Any]) -> Iterator[str]:
    """Return the addresses that a panel's rows lead to."""
    return (url for url in links(panel["fieldConfig"]["overrides"]) if "${__data.fields" in url)


def page_links(dashboard: Mapping[str, Any]) -> list[str]:
    """Return the addresses of pages of runs, in links and in texts."""
    return re.findall(r"\$\{exporter\}/(?:run\?|workflows/)[^\s\")]+", json.dumps(dashboard))


def links(found: Any) -> Iterator[str]:
    """Return the addresses of all links in a part of a dashboard."""
    if isinstance(found, dict):
        if isinstance(found.get("url"), str) and found["url"]:
            yield found["url"]
        for value in found.values():
            yield from links(value)
    elif isinstance(found, list):
        for value in found:
            yield from links(value)


def filled(text: str, values: Mapping[str, str], *, link: bool = False) -> str:
    """Put values in the place of variables, as Grafana does in a query or in a link.

    What stands for All stays as it is.
    """

    def value(match: re.Match[str]) -> str:
        name, _, form = (match[1] or match[2]).partition(":")
        it = values[name]
        if (it == ALL and form != "queryparam") or (link and not form):
            return it
        return _FORMATS[form](name, it)

    return re.sub(r"\$(?:\{([^}]+)\}|([A-Za-z_]\w*))", value, text)


ALL = ".*"
_FORMATS: Mapping[str, Callable[[str, str], str]] = {
    "raw": lambda _, it: it,
    "regex": lambda _, it: re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", it),
    "percentencode": lambda _, it: quote(it, safe=""),
    "queryparam": lambda name, it: f"var-{name}={quote(it, safe='')}",
    # For a regular expression between double quotes, if the variable offers All; of our others
    # that stand there without a format, no value is changed by it.
    "": lambda _, it: re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", it.replace("\\", "\\" * 4)),
}
