"""Pieces of expressions that many rules share."""

from __future__ import annotations

# Replicas of an exporter differ in these labels and tell the same. `shard` is for users to give:
# shards tell each its part. All other labels of targets, such as `cluster`, stay where they are,
# and expressions match on them without naming them.
REPLICA = "instance, pod"
TARGET = f"{REPLICA}, shard"


def one(selector: str, *dropped: str) -> str:
    """Return the greatest of what the exporters of a cluster tell; drop further labels."""
    return f"max without ({', '.join([TARGET, *dropped])}) ({selector})"


def total(selector: str, *dropped: str) -> str:
    """Return the sum over the shards of a cluster, replicas counted once; drop further labels."""
    return f"sum without ({', '.join(['shard', *dropped])}) (max without ({REPLICA}) ({selector}))"


def worst(selector: str) -> str:
    """Return the least of what the shards of a cluster tell, of replicas the greatest."""
    return f"min without (shard) (max without ({REPLICA}) ({selector}))"


def threshold(name: str) -> str:
    """Return a number of rules/thresholds.yml."""
    return f'scalar(max(ray_workflow:threshold{{name="{name}"}}))'


RUNNING = one('ray_workflow_run_status{status="RUNNING"}', "status") + " == 1"
LIVE = one('ray_workflow_run_status{status=~"PENDING|RUNNING|RESUMABLE"}', "status") + " == 1"
