"""A storage that holds finished runs of three tasks, written as Ray writes them."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

from support.trees import StorageTree

TASKS = ("__main__.extract", "__main__.transform", "__main__.load")


class LocalTree(StorageTree):
    """A storage on a local disk, written faster than through pyarrow."""

    def put(self, path: str, data: bytes) -> None:
        """Write a file in place, and its folders if there are none."""
        file = Path(self.uri, path)
        try:
            file.write_bytes(data)
        except FileNotFoundError:
            file.parent.mkdir(parents=True)
            file.write_bytes(data)


def plant(folder: str, runs: int, ended: float) -> None:
    """Write so many SUCCESSFUL runs that ended one second after the other."""
    tree = LocalTree(folder)
    chance = random.Random(20_729)
    for number in range(runs):
        end = ended - runs + number
        start = end - 20
        workflow_id = f"{uuid.UUID(int=chance.getrandbits(128), version=4)}.{start:.9f}"
        run = tree.run(workflow_id, {"workflow": f"etl-{number % 12}", "owner": "data-platform"})
        run.put("pre_run_metadata.json", {"start_time": start}).entry(TASKS[-1])
        for at, task_id in enumerate(TASKS):
            begin = start + 6 * at + chance.random()
            value = "x" * chance.randrange(100, 1000)
            run.task(task_id, *TASKS[max(0, at - 1) : at])
            run.succeed(task_id, begin, begin + chance.uniform(1, 5), value)
        run.put("post_run_metadata.json", {"end_time": end})
        run.meta("SUCCESSFUL").mark("SUCCESSFUL")
