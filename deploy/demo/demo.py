"""Run the demo: a local Ray, one workflow of each kind, Prometheus and a live view.

Usage: demo.py [SECONDS]; without SECONDS it runs until Ctrl-C. It stops everything that it started
and removes the temporary folder that it wrote to.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from support.cluster import Cluster, environment
from support.ports import free_port
from support.waiting import wait_until

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
PROGRAM = Path(sys.executable).with_name("ray-workflow-exporter")
CPUS = 4

# Everything runs on this machine: ignore proxy settings.
HTTP = requests.Session()
HTTP.trust_env = False


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        try:
            return int(show(stack, seconds))
        except KeyboardInterrupt:
            print("\nStopping the demo.", flush=True)
            return 0


def show(stack: contextlib.ExitStack, seconds: float | None) -> int:
    cluster = start_ray(stack)

    token = secrets.token_urlsafe(12)
    tokens = cluster.folder / "tokens.yml"
    digest = hashlib.sha256(token.encode()).hexdigest()
    tokens.write_text(f"tokens: [{{name: demo, role: act, sha256: {digest}}}]")
    tokens.chmod(0o600)
    port = usual_or_free_port(20729)
    url = f"http://127.0.0.1:{port}"
    programs = [
        stack.enter_context(
            running(
                [
                    *(PROGRAM, "serve", "--listen", f"127.0.0.1:{port}"),
                    *("--address", cluster.address, "--state-dir", cluster.folder / "state"),
                    *("--tokens-file", tokens),
                ],
                cluster.folder / "exporter.log",
            )
        )
    ]
    wait_until(
        lambda: answers(f"{url}/-/ready"), timeout=60, message=f"{PROGRAM.name} is not ready"
    )
    urls = {"Metrics": f"{url}/metrics", "Page": f"{url}/"}
    if cluster.dashboard_port:
        urls["Ray dashboard"] = cluster.dashboard_url

    scratch = cluster.folder / "scratch"
    scratch.mkdir()
    # It exits when its stdin ends, however this process ends.
    programs.append(
        stack.enter_context(
            running(
                [sys.executable, HERE / "workflows.py", cluster.address],
                cluster.folder / "workflows.log",
                DEMO_SCRATCH=str(scratch),
            )
        )
    )
    prometheus = start_prometheus(stack, cluster.folder, port)
    if prometheus:
        urls["Prometheus"] = f"{prometheus}/graph?g0.expr=ray_workflow_run_progress_ratio&g0.tab=0"
        urls["Alerts"] = f"{prometheus}/alerts"
    wait_until(lambda: runs(url), timeout=60, message="The exporter shows no workflow")
    for name, address in urls.items():
        print(f"  {name + ':':15}{address}", flush=True)
    print(f"  {'Token:':15}{token}  (needed to cancel, resume or delete on the page)", flush=True)
    print("  Press Ctrl-C to stop the demo.", flush=True)

    watch: list[Any] = [PROGRAM, "watch", "--url", url]
    if seconds is not None:
        watch += ["--duration", str(seconds)]
    outcome = subprocess.run(watch, check=False).returncode
    summary(url, prometheus)
    return outcome or any(died() for died in programs)


def start_ray(stack: contextlib.ExitStack) -> Cluster:
    """Start a local Ray; without its dashboard if the machine is too slow for it."""
    print(f"Starting a local Ray with {CPUS} logical CPUs …", flush=True)
    try:
        cluster = Cluster(num_cpus=CPUS, resources={"licence": 1}, dashboard=True)
        stack.callback(cluster.stop)
        cluster.start()
    except AssertionError:
        # Ray gives up on its dashboard, and with it on the node, after 20 s.
        print("The Ray dashboard did not start in time: the demo runs without it.", flush=True)
        cluster = Cluster(num_cpus=CPUS, resources={"licence": 1})
        stack.callback(cluster.stop)
        cluster.start()
    return cluster


@contextlib.contextmanager
def running(command: list[Any], log: Path, **variables: str) -> Iterator[Callable[[], bool]]:
    """Run a program in its own session, so that Ctrl-C only reaches this process.

    Yields a function that returns whether the program has exited, and prints the end of its log.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**environment(), **variables},
            start_new_session=True,
        )

    def died() -> bool:
        if process.poll() is None:
            return False
        print(f"{Path(command[0]).name} exited early:\n{log.read_text()[-2000:]}")
        return True

    try:
        yield died
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()


def start_prometheus(stack: contextlib.ExitStack, folder: Path, target: int) -> str | None:
    program = shutil.which("prometheus")
    if program is None:
        print("Prometheus is not installed: the demo runs without it.")
        return None
    config = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text())
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    config["rule_files"] = [str(REPOSITORY / "prometheus" / "rules" / "*.yml")]
    del config["alerting"]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = usual_or_free_port(9090)
    stack.enter_context(
        running(
            [
                *(program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            folder / "prometheus.log",
        )
    )
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(f"{url}/-/ready"), timeout=60, message="Prometheus is not ready")
    return url


def usual_or_free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port


def answers(url: str) -> bool:
    try:
        return HTTP.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def runs(url: str) -> list[dict[str, Any]]:
    answer = HTTP.get(f"{url}/api/v1/workflows", params={"limit": "1000"}, timeout=10)
    return list(answer.json()["items"])


def summary(url: str, prometheus: str | None) -> None:
    seen = runs(url)
    body = HTTP.get(f"{url}/metrics", timeout=10).text
    series = sum(1 for line in body.splitlines() if line and not line.startswith("#"))
    print(f"\n{len(seen)} runs:")
    for status, count in sorted(Counter(run["status"] for run in seen).items()):
        print(f"  {count:4} {status}")
    for run in seen:
        if run["failure"]:
            failure = run["failure"]
            print(f"  {run['workflow_id']}: {failure['task_id']}: {failure['exception']}: "
                  f"{failure['message'].splitlines()[0][:100]}")  # fmt: skip
    print(f"{series} series in /metrics")
    if prometheus:
        query = {"query": "count(ray_workflow_run_info)"}
        answer = HTTP.get(f"{prometheus}/api/v1/query", params=query, timeout=10).json()
        result = answer["data"]["result"]
        print(f"{result[0]['value'][1] if result else 0} runs in Prometheus")


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"The demo ended after {time.monotonic() - started:.0f} s.")
    sys.exit(code)
