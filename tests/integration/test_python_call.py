"""The call that the product began with: workflow_tasks(workflow_id) -> {task_id: metadata}."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from ray_workflow_exporter import WorkflowNotFoundError, workflow_tasks
from support.cluster import Cluster
from support.served import Served
from support.waiting import wait_until

DRIVER = """
import json
from ray_workflow_exporter import workflow_tasks

@ray.remote
def double(value):
    return 2 * value

name = sys.argv[1]
workflow.run(double.bind(double.bind(1)), workflow_id=name)
tasks = workflow_tasks(name)  # storage and address are those of this very driver
assert ray.is_initialized()
print(json.dumps(tasks))
"""


@pytest.mark.slow
def test_a_driver_asks_about_its_own_workflow_and_others_from_outside(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = f"call/{uuid.uuid4().hex}"
    expected = {"__main__.double", "__main__.double_1"}
    asked = json.loads(cluster.run_driver(DRIVER, name).splitlines()[-1])
    assert set(asked) == expected
    assert {task["state"] for task in asked.values()} == {"SUCCESSFUL"}
    assert sorted(len(task["upstream"]) for task in asked.values()) == [0, 1]
    assert all(task["duration"] is not None for task in asked.values())

    assert set(workflow_tasks(name, address=cluster.address)) == expected
    assert set(workflow_tasks(name, storage=str(cluster.storage), address="none")) == expected
    served = Served(tmp_path, "--address", cluster.address).start()
    try:
        wait_until(lambda: served.status(name) == "SUCCESSFUL")
        assert set(workflow_tasks(name, url=served.url)) == expected
        with pytest.raises(WorkflowNotFoundError, match="There is no workflow 'nobody'"):
            workflow_tasks("nobody", url=served.url)
    finally:
        served.stop()
    with pytest.raises(WorkflowNotFoundError, match="There is no workflow 'nobody'"):
        workflow_tasks("nobody", address=cluster.address)
