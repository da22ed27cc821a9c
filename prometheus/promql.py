"""PromQL fragments that several rules share."""

from __future__ import annotations

# Replicas of an exporter differ in these labels and expose the same runs. `shard` is set by users:
# each shard exposes a part of the runs. SessionName changes when Ray restarts. All other target
# labels, such as `cluster`, are kept, and expressions match on them without naming them.
REPLICA = "instance, pod"
TARGET = f"{REPLICA}, SessionName, shard"

# How long the last value is used while an exporter restarts or a scrape fails: the look-back of
# Prometheus, and `for` of RayWorkflowExporterDown. A series that ends counts for so long.
GAP = "5m"


def recent(selector: str) -> str:
    """Return the last values, also while the exporter is away for a short time."""
    return f"last_over_time({selector}[{GAP}])"


def one(values: str, *dropped: str) -> str:
    """Return the maximum over the exporters of a cluster; drop further labels."""
    return f"max without ({', '.join([TARGET, *dropped])}) ({values})"


def latest(selector: str, *dropped: str) -> str:
    """Return the maximum of the last values over the exporters of a cluster; see `recent`."""
    return one(recent(selector), *dropped)


def total(values: str, *dropped: str) -> str:
    """Return the sum of gauges over the shards of a cluster, each replica set counted once."""
    replica = f"max without ({REPLICA}, SessionName) ({values})"
    return f"sum without ({', '.join(['shard', *dropped])}) ({replica})"


def added(increases: str, *dropped: str) -> str:
    """Return the sum of increases over shards and Ray sessions, each replica set counted once."""
    replica = f"max without ({REPLICA}) ({increases})"
    return f"sum without ({', '.join(['shard', 'SessionName', *dropped])}) ({replica})"


def most(increases: str) -> str:
    """Return the maximum of increases over the exporters of a cluster, added over Ray sessions."""
    return f"sum without (SessionName) (max without ({REPLICA}, shard) ({increases}))"


def worst(values: str) -> str:
    """Return the minimum over the shards of a cluster, and the maximum over replicas."""
    return f"min without (shard) (max without ({REPLICA}, SessionName) ({values}))"


def threshold(name: str) -> str:
    """Return a value of rules/thresholds.yml."""
    return f'scalar(max(ray_workflow:threshold{{name="{name}"}}))'


def run_status(statuses: str) -> str:
    """Return the runs that have one of these statuses."""
    return latest(f'ray_workflow_run_status{{status=~"{statuses}"}}', "status") + " == 1"


RUNNING = run_status("RUNNING")
LIVE = run_status("PENDING|RUNNING|RESUMABLE")
