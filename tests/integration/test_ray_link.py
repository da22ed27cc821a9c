"""The link to real Rays: what it sees, and how it lives through their deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_workflow_exporter.sources.manager.link import RayLink
from ray_workflow_exporter.sources.records import (
    LinkCause,
    LinkState,
    LiveRun,
    LiveTask,
    ManagerView,
)
from support.cluster import Cluster
from support.links import seen
from support.waiting import wait_until

LinkTo = Callable[[str], RayLink]


NewCluster = Callable[..., Cluster]


# A task waits for a file, so that a test decides when it goes on.
HELD = """
import os
@ray.remote
def held(path, *inputs):
    while not os.path.exists(path): time.sleep(0.05)
"""


# Fan-out, a continuation, a retry and an output that is not checkpointed.
MIXED = (
    HELD
    + """
@ray.remote
def part(number): return number
@ray.remote
def grow(number): return workflow.continuation(part.bind(part.bind(number)))
@ray.remote(max_retries=2, retry_exceptions=True)
def flaky(path, number):
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("once")
    while not os.path.exists(path + ".go"): time.sleep(0.05)
    return number
@ray.remote
def total(path, *numbers):
    while not os.path.exists(path): time.sleep(0.05)
    return sum(numbers)
gate, flag, workflow_id = sys.argv[1:]
parts = [workflow.options(checkpoint=False)(part).bind(i) for i in range(20)]
dag = total.bind(gate, grow.bind(1), flaky.bind(flag, 1), *parts)
print(workflow.run(dag, workflow_id=workflow_id))
"""
)


def in_state(state: LinkState) -> Callable[[ManagerView], bool]:
    return lambda view: view.state is state


def child_of(link: RayLink) -> int:
    assert link._child
    return link._child._process.pid


def test_everything_of_a_mixed_run_is_seen_and_deltas_add_up(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    link, other = link_to(cluster.address), link_to(cluster.address)
    driver = cluster.start_driver(MIXED, str(gate), str(tmp_path / "flag"), "mixed")

    def has_tried_again(view: ManagerView) -> bool:
        run = view.runs.get("mixed")
        return run is not None and run.tasks["__main__.flaky"].retries == 1

    def waits_for_the_gate(view: ManagerView) -> bool:
        run = view.runs.get("mixed")
        return run is not None and run.tasks["__main__.total"].running

    seen(link, has_tried_again)
    (tmp_path / "flag.go").touch()
    run = seen(link, waits_for_the_gate).runs["mixed"]

    assert run.output_task_id == "__main__.total"
    assert (run.queued, run.resumed) == (False, False)
    tasks = {name.removeprefix("__main__."): task for name, task in run.tasks.items()}
    assert set(tasks["total"].upstream or ()) == {
        *("__main__.grow", "__main__.flaky", "__main__.part"),
        *(f"__main__.part_{i}" for i in range(1, 20)),
    }
    assert run.tasks[str(tasks["grow"].continuation)].upstream
    assert tasks["grow"].done
    assert tasks["flaky"].retries == 1
    assert (tasks["flaky"].max_retries, tasks["flaky"].checkpoint) == (2, True)
    assert tasks["part"].checkpoint is False
    assert all(task.submit_time for task in tasks.values())
    assert len(tasks["total"].ray_task_id or "") == 48

    fresh = seen(other, in_state(LinkState.UP)).runs["mixed"]
    assert lasting(seen(link, in_state(LinkState.UP)).runs["mixed"]) == lasting(fresh)

    gate.touch()
    seen(link, lambda view: view.state is LinkState.UP and "mixed" not in view.runs)
    assert driver.finish().strip() == str(1 + 1 + sum(range(20)))


def lasting(run: LiveRun) -> dict[str, LiveTask]:
    """What a link that came later knows as well."""
    return {
        task_id: task._replace(
            retries=0, output_bytes=None, ray_task_id=task.ray_task_id if task.running else None
        )
        for task_id, task in run.tasks.items()
    }


def test_size_of_an_output_that_is_not_checkpointed_is_seen(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = (
        HELD
        + """
@ray.remote
def big(): return b"x" * 50_000
gate = sys.argv[1]
output = workflow.options(checkpoint=False)(big).bind()
workflow.run(held.bind(gate, output, held.bind(gate)), workflow_id="sized")
"""
    )
    cluster.start_driver(code, str(gate))
    link = link_to(cluster.address)
    view = seen(
        link, lambda view: "sized" in view.runs and view.runs["sized"].tasks["__main__.big"].done
    )
    assert 50_000 <= (view.runs["sized"].tasks["__main__.big"].output_bytes or 0) < 51_000
    gate.touch()
    seen(link, lambda view: "sized" not in view.runs)


def test_details_of_ray_tasks_come_from_the_state_api(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = HELD + "workflow.run(held.bind(sys.argv[1]), workflow_id='detailed')"
    cluster.start_driver(code, str(gate))
    link = link_to(cluster.address)
    view = seen(
        link,
        lambda view: (
            "detailed" in view.runs and view.runs["detailed"].tasks["__main__.held"].running
        ),
    )
    ray_task_id = str(view.runs["detailed"].tasks["__main__.held"].ray_task_id)

    details: Any = wait_until(
        lambda: (
            (found := link.task_details([ray_task_id])) and found[ray_task_id].node_id and found
        ),
        message="Ray's state API did not tell the task's node",
    )
    among_many = link.task_details([ray_task_id, *(f"{i:048x}" for i in range(100))])

    assert set(details) == {ray_task_id}
    assert len(details[ray_task_id].node_id or "") == 56
    assert details[ray_task_id].error_type is None
    assert set(among_many) == {ray_task_id}
    gate.touch()


@pytest.mark.slow
def test_a_ray_without_a_dashboard_has_no_details(new_cluster: NewCluster, link_to: LinkTo) -> None:
    link = link_to(new_cluster().address)
    seen(link, in_state(LinkState.ABSENT))
    assert link.task_details(["00" * 24]) == {}
    assert link.poll().state is LinkState.ABSENT


@pytest.mark.slow
def test_a_ray_without_a_storage_is_no_fault(new_cluster: NewCluster, link_to: LinkTo) -> None:
    view = seen(link_to(new_cluster(storage=False).address), in_state(LinkState.ABSENT))
    assert view.cause is LinkCause.NO_STORAGE
    assert "without --storage" in view.reason
    assert (view.storage_uri, view.ray_version is None) == (None, False)


@pytest.mark.slow
def test_link_follows_the_management_actor_through_its_lives(
    new_cluster: NewCluster, link_to: LinkTo
) -> None:
    cluster = new_cluster()
    link = link_to(cluster.address)
    view = seen(link, in_state(LinkState.ABSENT))
    assert view.storage_uri == str(cluster.storage)
    assert view.session_name
    assert view.ray_version
    assert view.reason.endswith(".")

    cluster.run_driver("workflow.init(max_running_workflows=3, max_pending_workflows=7)")
    view = seen(link, in_state(LinkState.UP))
    assert (view.running_limit, view.pending_limit, view.reason) == (3, 7, "")

    cluster.run_driver("ray.kill(ray.get_actor('WorkflowManagementActor', namespace='workflow'))")
    seen(link, in_state(LinkState.ABSENT))

    cluster.run_driver("workflow.init()")
    view = seen(link, in_state(LinkState.UP))
    assert (view.running_limit, view.pending_limit) == (None, None)
    assert view.restarts == 0


@pytest.mark.slow
def test_link_recovers_when_ray_dies_and_comes_back_at_the_same_address(
    new_cluster: NewCluster, link_to: LinkTo
) -> None:
    cluster = new_cluster()
    cluster.run_driver("workflow.init()")
    link = link_to(cluster.address)
    first = seen(link, in_state(LinkState.UP))

    cluster.kill_all()
    view = seen(link, in_state(LinkState.UNREACHABLE))
    assert view.reason.endswith(".")
    assert view.runs == {}
    seen(link, lambda view: view.restarts >= 1)

    cluster.start()
    seen(link, in_state(LinkState.ABSENT))
    cluster.run_driver("workflow.init()")
    view = seen(link, in_state(LinkState.UP))
    assert view.session_name != first.session_name


@pytest.mark.slow
def test_link_without_a_management_actor_recovers_too(
    new_cluster: NewCluster, link_to: LinkTo
) -> None:
    cluster = new_cluster()
    link = link_to(cluster.address)
    first = seen(link, in_state(LinkState.ABSENT))
    cluster.kill_all()
    cluster.start()  # between two polls: the driver's own Ray is gone, another one answers
    seen(
        link,
        lambda view: view.state is LinkState.ABSENT and view.session_name != first.session_name,
    )


@pytest.mark.slow
def test_link_survives_the_death_of_the_gcs(new_cluster: NewCluster, link_to: LinkTo) -> None:
    cluster = new_cluster()
    cluster.run_driver("workflow.init()")
    link = link_to(cluster.address)
    seen(link, in_state(LinkState.UP))
    cluster.kill_gcs()
    seen(link, in_state(LinkState.UNREACHABLE), timeout=120)
    cluster.kill_all()
    cluster.start()
    cluster.run_driver("workflow.init()")
    seen(link, in_state(LinkState.UP), timeout=120)


@pytest.mark.slow
def test_a_killed_child_is_replaced_counted_and_nothing_is_lost(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = HELD + "workflow.run(held.bind(sys.argv[1]), workflow_id='orphan')"
    cluster.start_driver(code, str(gate))
    link = link_to(cluster.address)
    before = seen(link, lambda view: "orphan" in view.runs).runs["orphan"]

    os.kill(child_of(link), signal.SIGKILL)
    seen(link, in_state(LinkState.UNREACHABLE))
    view = seen(link, in_state(LinkState.UP))

    assert view.restarts == 1
    assert set(view.runs["orphan"].tasks) == set(before.tasks)
    assert view.runs["orphan"].changed == set(before.tasks)
    gate.touch()


@pytest.mark.slow
def test_queued_runs_are_told_apart(
    new_cluster: NewCluster, link_to: LinkTo, tmp_path: Path
) -> None:
    cluster, gate = new_cluster(), tmp_path / "gate"
    cluster.run_driver(
        HELD
        + "workflow.init(max_running_workflows=1, max_pending_workflows=5)\n"
        + "for i in range(3): workflow.run_async(held.bind(sys.argv[1]), workflow_id=f'w{i}')",
        str(gate),
    )
    link = link_to(cluster.address)

    view = seen(
        link, lambda view: len(view.runs) == 3 and view.runs["w0"].tasks["__main__.held"].running
    )
    assert [view.runs[f"w{i}"].queued for i in range(3)] == [False, True, True]
    assert (view.running_limit, view.pending_limit) == (1, 5)
    gate.touch()
    seen(link, lambda view: view.state is LinkState.UP and not view.runs)


@pytest.mark.slow
def test_a_resumed_run_names_what_only_storage_knows(
    cluster: Cluster, link_to: LinkTo, tmp_path: Path
) -> None:
    gate, ready = tmp_path / "gate", tmp_path / "ready"
    cluster.run_driver(
        HELD
        + """
gate, ready = sys.argv[1:]
@ray.remote
def early(): return 1
@ray.remote
def fails_unless(path, value):
    if not os.path.exists(path): raise ValueError("not yet")
try: workflow.run(held.bind(gate, fails_unless.bind(ready, early.bind())), workflow_id="again")
except workflow.WorkflowExecutionError: print("failed")
""",
        *(str(gate), str(ready)),
    )
    ready.touch()
    cluster.start_driver("workflow.resume('again')")
    link = link_to(cluster.address)

    view = seen(
        link,
        lambda view: "again" in view.runs and view.runs["again"].tasks["__main__.held"].running,
    )
    run = view.runs["again"]
    assert run.resumed
    assert run.tasks["__main__.early"] == LiveTask()
    assert run.tasks["__main__.fails_unless"].upstream == ("__main__.early",)
    assert run.tasks["__main__.fails_unless"].done
    gate.touch()
    seen(link, lambda view: "again" not in view.runs)


@pytest.mark.slow
def test_the_child_prints_nothing_but_replies_and_leaves_at_the_end_of_its_input(
    cluster: Cluster,
) -> None:
    module = "ray_workflow_exporter.sources.manager.driver"
    with subprocess.Popen(
        [sys.executable, "-m", module, cluster.address, "by-hand", "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        for request in (
            '{"id": 7, "op": "no such", "args": {}}',
            '{"id": 8, "op": "poll", "args": {"seq": 0}}',
        ):
            print(request, file=child.stdin, flush=True)
        replies = sorted(child.stdout.readline() for _ in range(2))
        child.stdin.close()
        assert child.wait(10) == 0
        assert child.stdout.read() == ""
    assert replies[0] == '{"id": 7, "error": "KeyError: \'no such\'"}\n'
    assert json.loads(replies[1])["result"]["connected"]
