"""The families about the cluster: its storage and its management actor."""

from __future__ import annotations

from ..family import CLUSTER, GAUGE, Family
from ..samplers import one

FAMILIES: tuple[Family, ...] = (
    Family(
        "ray_workflow_storage_up", GAUGE, CLUSTER,
        "1 if the last poll could read the workflow storage, else 0.",
        one(lambda snapshot: int(snapshot.storage_up)),
    ),
    Family(
        "ray_workflow_manager_up", GAUGE, CLUSTER,
        "1 if the WorkflowManagementActor answered the last poll, else 0; "
        "absent if only storage is read.",
        one(lambda snapshot: None if snapshot.manager_up is None else int(snapshot.manager_up)),
    ),
    Family(
        "ray_workflow_running_limit", GAUGE, CLUSTER,
        "Runs that may be RUNNING at the same time (max_running_workflows); "
        "absent without such a limit or without a manager.",
        one(lambda snapshot: snapshot.running_limit),
    ),
    Family(
        "ray_workflow_pending_limit", GAUGE, CLUSTER,
        "Runs that may be PENDING at the same time (max_pending_workflows); "
        "absent without such a limit or without a manager.",
        one(lambda snapshot: snapshot.pending_limit),
    ),
)  # fmt: skip
