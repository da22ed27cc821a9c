"""The steps of docs/getting-started.md, on a real Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from support.cluster import Cluster
from support.served import Served
from support.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "getting-started.md"
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_workflow_of_the_page_is_listed_shown_and_exposed(
    cluster: Cluster, tmp_path: Path
) -> None:
    assert 'ray.init(address="auto")' in PROGRAM
    served = Served(tmp_path, "--address", cluster.address).start()
    try:
        # Not `auto`: other clusters may run on this machine.
        cluster.run_driver(PROGRAM.replace('ray.init(address="auto")\n', ""))
        wait_until(lambda: served.status("report-001") == "SUCCESSFUL")
        metrics = requests.get(f"{served.url}/metrics", timeout=10).text
        assert 'ray_workflow_run_info{workflow="report",workflow_id="report-001"} 1' in metrics
        program = str(Path(sys.executable).with_name("ray-workflow-exporter"))
        done = subprocess.run(
            [program, "show", "report-001", "--url", served.url, "-o", "json"],
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["workflow"] == "report"
    finally:
        served.stop()
