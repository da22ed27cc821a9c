"""What tests start ends with them, even when they are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.guard import Guard
from support.waiting import wait_until

pytestmark = pytest.mark.process

OWNER = """\
import subprocess, sys, time
from pathlib import Path
from support.guard import Guard
group, folder = sys.argv[1] == "group", Path(sys.argv[2])
child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE,
                         text=True, start_new_session=group)
Guard(child.pid, group=group, folder=folder)
print(child.pid, child.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["group", "process"])
def test_it_ends_what_a_killed_owner_left(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind, str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        child, grandchild = map(psutil.Process, map(int, owner.stdout.readline().split()))
        owner.kill()
    try:
        wait_until(lambda: not child.is_running(), message="the child has ended")
        if kind == "group":
            wait_until(lambda: not grandchild.is_running(), message="the group has ended")
        wait_until(lambda: not folder.exists(), message="the folder is gone")
    finally:
        if grandchild.is_running():
            grandchild.kill()


def test_a_dismissed_guard_does_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        guard = Guard(child.pid, folder=tmp_path)
        guard.dismiss()
        assert child.poll() is None
        assert tmp_path.exists()
        child.kill()
