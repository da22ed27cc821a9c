"""PromQL fragments that several rules share."""

from __future__ import annotations

# Replicas of an exporter differ in these labels and expose the same runs. `shard` is set by users:
# each shard exposes a part of the runs. All other target labels, such as `cluster`, are kept, and
# expressions match on them without naming them.
REPLICA = "instance, pod"
TARGET = f"{REPLICA}, shard"


def one(selector: str, *dropped: str) -> str:
    """Return the maximum over the exporters of a cluster; drop further labels."""
    return f"max without ({', '.join([TARGET, *dropped])}) ({selector})"


def total(selector: str, *dropped: str) -> str:
    """Return the sum over the shards of a cluster, each replica set counted once."""
    return f"sum without ({', '.join(['shard', *dropped])}) (max without ({REPLICA}) ({selector}))"


def worst(selector: str) -> str:
    """Return the minimum over the shards of a cluster, and the maximum over replicas."""
    return f"min without (shard) (max without ({REPLICA}) ({selector}))"


def threshold(name: str) -> str:
    """Return a value of rules/thresholds.yml."""
    return f'scalar(max(ray_workflow:threshold{{name="{name}"}}))'


RUNNING = one('ray_workflow_run_status{status="RUNNING"}', "status") + " == 1"
LIVE = one('ray_workflow_run_status{status=~"PENDING|RUNNING|RESUMABLE"}', "status") + " == 1"
