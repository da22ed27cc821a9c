"""`kubernetes`: the objects of the Helm chart without Helm, and the values for KubeRay's chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

import click

from .options import given
from .rules import changed_rules, rule_options
from .shipped import shipped, write

# What each mode of the chart needs, in the order of the chart's values.
MODES = {
    "inside-ray": ("rules", "dashboards", "podmonitor"),
    "storage": ("rules", "dashboards", "servicemonitor", "deployment", "networkpolicy"),
}
WHAT = tuple(dict.fromkeys(name for names in MODES.values() for name in names))
_RULES = ("recording.yml", "alerts.yml", "thresholds.yml")


def _names(
    ctx: click.Context, param: click.Parameter, value: Optional[str]
) -> Optional[tuple[str, ...]]:
    if value is None:
        return None
    names = tuple(it.strip() for it in value.split(","))
    for name in names:
        if name not in WHAT:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(WHAT)}", ctx, param)
    return names


def _storage(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    return value or given(ctx).get("storage")


storage_option = click.option(
    "--storage", callback=_storage, metavar="<uri>", help="Workflow storage."
)


@click.group("kubernetes")
def kubernetes() -> None:
    """Export the objects of the Helm chart.

    \b
    Examples:
      ray-workflow-exporter kubernetes export . --what rules,dashboards,podmonitor
      ray-workflow-exporter kubernetes kuberay-values --storage s3://bucket/ray
    """


@kubernetes.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    default="inside-ray",
    show_default=True,
    help="Run the exporter in the head pods of RayClusters, or alone over a storage.",
)
@click.option(
    "--what",
    callback=_names,
    metavar="<list>",
    help=f"Export these only, such as rules,dashboards. All: {', '.join(WHAT)}.",
)
@storage_option
@click.option(
    "--cluster",
    default="ray-workflow-exporter",
    show_default=True,
    metavar="<name>",
    help="Label `cluster` of the metrics, for `--mode storage`.",
)
@click.option(
    "--prometheus-release",
    default="kube-prometheus-stack",
    show_default=True,
    metavar="<name>",
    help="Label `release` of monitor and rules, by which Prometheus selects them.",
)
@rule_options
def export(
    folder: Path,
    mode: str,
    what: Optional[tuple[str, ...]],
    storage: Optional[str],
    cluster: str,
    prometheus_release: str,
    **options: Any,
) -> None:
    """Write the objects of the Helm chart, with its default values, to FOLDER.

    `--storage` is the workflow storage, which `--mode storage` needs.

    \b
    Examples:
      ray-workflow-exporter kubernetes export objects
      ray-workflow-exporter kubernetes export objects --mode storage --storage s3://bucket/ray
      ray-workflow-exporter kubernetes export objects --what rules --threshold slow_factor=5
    """
    names = what or MODES[mode]
    if "deployment" in names and not storage:
        raise click.UsageError("A Deployment needs --storage, such as s3://bucket/ray.")
    known = shipped("kubernetes")
    texts = {f"{name}.yaml": known[f"{name}.yaml"] for name in names}
    for name, text in texts.items():
        texts[name] = _filled(text, STORAGE=storage, CLUSTER=cluster, RELEASE=prometheus_release)
    if "rules" in names:
        texts["rules.yaml"] += _groups(changed_rules(None, **options))
    if "dashboards" in names:
        texts["dashboards.yaml"] = _with_dashboards(texts["dashboards.yaml"])
    write(texts, folder)


@kubernetes.command("kuberay-values")
@storage_option
def kuberay_values(storage: Optional[str]) -> None:
    """Print values for KubeRay's chart `ray-cluster`: a head pod with the exporter in it.

    `--storage` is the workflow storage of the cluster.

    \b
    Example:
      ray-workflow-exporter kubernetes kuberay-values --storage s3://bucket/ray
    """
    text = shipped("kubernetes")["kuberay-values.yaml"]
    if storage is None:
        text = text.replace('  rayStartParams:\n    storage: "STORAGE"\n', "")
    click.echo(_filled(text, STORAGE=storage), nl=False)


def _filled(text: str, **values: Optional[str]) -> str:
    """Replace the words in capitals; a label without a value is left out."""
    for word, value in values.items():
        if value:
            text = text.replace(f'"{word}"', json.dumps(value))
        text = re.sub(rf'(?m)^.*"{word}"\n', "", text)
    return text


def _groups(rules: dict[str, str]) -> str:
    """Return the groups of rule files, indented as in a PrometheusRule."""
    groups = (rules[name].partition("\ngroups:\n")[2] for name in _RULES)
    return "".join(re.sub(r"(?m)^(?=.)", "  ", it) for it in groups)


def _with_dashboards(text: str) -> str:
    dashboards = shipped("dashboards")
    return re.sub(
        r"(?m)^  ([\w-]+\.json): \|\n",
        lambda line: line[0] + re.sub(r"(?m)^(?=.)", "    ", dashboards[line[1]]),
        text,
    )
