"""From a workflow on a real Ray to the notification that a receiver gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests

from support.cluster import Cluster
from support.monitoring import Monitoring
from support.served import Served
from support.waiting import wait_until

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
PATIENCE = 90.0

RUN = """
@ray.remote(max_retries=0)
def load(fails):
    if fails: raise ValueError('row 7 has no "customer id"')
    return 1
@ray.remote
def report(rows): return rows
try:
    workflow.run(report.bind(load.bind(sys.argv[3] == "fails")), workflow_id=sys.argv[1],
                 metadata={"workflow": sys.argv[2]})
except workflow.WorkflowExecutionError:
    pass
"""
RUN_FOR_LONG = """
@ray.remote
def wait(): time.sleep(600)
workflow.run_async(wait.bind(), workflow_id=sys.argv[1], metadata={"workflow": "long"})
workflow.get_status(sys.argv[1])
"""
KILL_MANAGER = "ray.kill(ray.get_actor('WorkflowManagementActor', namespace='workflow'))"


class Stack(NamedTuple):
    """A Ray, its exporter, and the Prometheus and Alertmanager that monitor it."""

    cluster: Cluster
    served: Served
    monitoring: Monitoring


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("alerts")
    with Cluster() as cluster:
        served = Served(folder, "--address", cluster.address).start()
        try:
            target = {f"127.0.0.1:{served.port}": {"cluster": "production"}}
            with Monitoring(folder, target, after="3s") as monitoring:
                wait_until(
                    lambda: monitoring.query("ray_workflow_storage_up == 1"),
                    message="Prometheus does not scrape the exporter",
                )
                yield Stack(cluster, served, monitoring)
                assert monitoring.rule_faults() == {}
        finally:
            served.stop()


def arrived(stack: Stack, path: str, status: str, **labels: str) -> dict[str, Any]:
    """Wait until a receiver has got an alert, and return its newest notification."""
    receiver = stack.monitoring.receiver
    return wait_until(
        lambda: receiver.find(path, status, **labels),
        timeout=PATIENCE,
        message=f"{labels} did not arrive at {path} as {status}",
    )[-1]


def test_a_failure_arrives_with_its_error_and_a_later_success_resolves_it(
    stack: Stack,
) -> None:
    name = 'etl "daily"/eu'
    about = {"alertname": "RayWorkflowLastRunFailed", "workflow": name}
    stack.cluster.run_driver(RUN, "bad-1", name, "fails")
    alert = arrived(stack, "/tickets", "firing", **about)
    assert alert["labels"] == {
        **about, "severity": "ticket", "cluster": "production", "job": "ray-workflow"
    }  # fmt: skip
    notes = alert["annotations"]
    assert notes["summary"] == f"The last run of {name} on production failed."
    assert notes["description"] == (
        f"The most recently ended run of {name} on production is FAILED. Run bad-1 failed in task "
        '__main__.load (stage __main__.load) with ValueError: row 7 has no "customer id".'
    )
    assert notes["runbook_url"] == "http://localhost:20729/runbooks/RayWorkflowLastRunFailed"
    assert notes["exporter_url"] == ("http://localhost:20729/?workflow=etl+%22daily%22%2Feu")
    assert notes["dashboard_url"] == (
        "http://localhost:3000/d/ray-workflow-workflow"
        "?var-cluster=production&var-workflow=etl+%22daily%22%2Feu"
    )
    stack.cluster.run_driver(RUN, "good-1", name, "succeeds")
    arrived(stack, "/tickets", "resolved", **about)


def test_a_dead_manager_pages_and_inhibits_the_alerts_that_follow_from_it(stack: Stack) -> None:
    cluster, served, monitoring = stack
    cluster.run_driver(RUN_FOR_LONG, "long-1")
    wait_until(lambda: served.status("long-1") == "RUNNING")
    cluster.run_driver(KILL_MANAGER)
    alert = arrived(stack, "/pager", "firing", alertname="RayWorkflowManagerDown")
    assert alert["labels"]["cluster"] == "production"
    assert "1 runs depend on it" in alert["annotations"]["description"]
    wait_until(
        lambda: "RayWorkflowResumable" in monitoring.known(inhibited=True),
        timeout=PATIENCE,
        message="the alert on the interrupted run is not inhibited",
    )
    assert not monitoring.receiver.find("/tickets", "firing", alertname="RayWorkflowResumable")
    # The next call of a user creates a manager; the interrupted run stays RESUMABLE.
    cluster.run_driver(RUN, "good-2", "other", "succeeds")
    arrived(stack, "/pager", "resolved", alertname="RayWorkflowManagerDown")
    arrived(stack, "/tickets", "firing", alertname="RayWorkflowResumable", workflow_id="long-1")
    cluster.run_driver("workflow.delete('long-1')")
    arrived(stack, "/tickets", "resolved", alertname="RayWorkflowResumable")


def test_only_one_alert_fires_for_an_exporter_that_ends(stack: Stack) -> None:
    cluster, served, monitoring = stack
    cluster.run_driver(RUN, "bad-2", "nightly", "fails")
    arrived(stack, "/tickets", "firing", workflow="nightly")
    # Budgets look back for hours, also over the previous tests.
    wait_until(lambda: not monitoring.alerts("pending"), timeout=PATIENCE)
    settled = monitoring.alerts("firing")
    before = len(monitoring.receiver.received)
    served.stop()
    try:
        arrived(stack, "/pager", "firing", alertname="RayWorkflowExporterDown")
        wait_until(
            lambda: monitoring.known(inhibited=False) == {"RayWorkflowExporterDown"},
            timeout=PATIENCE,
            message="other alerts are not inhibited",
        )
        since = monitoring.receiver.received[before:]
        fired = {alert["labels"]["alertname"] for _, alert in since if alert["status"] == "firing"}
        assert fired - settled == {"RayWorkflowExporterDown"}
    finally:
        served.start()
    arrived(stack, "/pager", "resolved", alertname="RayWorkflowExporterDown")
    assert requests.get(f"{served.url}/-/healthy", timeout=5).ok
