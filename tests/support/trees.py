"""Write workflow storage as Ray 2.47.1 writes it: same names, same bytes, same order.

    tree = StorageTree(str(tmp_path))
    tree.run("etl").task("load").task("sum", "load").entry("sum").status("RUNNING")

The bytes were compared with those of a real cluster; `ray/workflow/workflow_storage.py` is where
they come from. Works on any URI that pyarrow opens.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Optional

from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileSystemHandler,
    FileType,
    LocalFileSystem,
    PyFileSystem,
    SubTreeFileSystem,
)

# Of no interest to a reader, and never opened by the exporter: the function None, the argument 1.
FUNC_BODY = pickle.dumps(None, protocol=5)
ARGS = pickle.dumps([b"__RAY_DUMMY__", 1], protocol=5)

STATUSES = ("RUNNING", "CANCELED", "SUCCESSFUL", "FAILED", "RESUMABLE", "PENDING")


class _OwnFileSystem(FileSystemHandler):
    """Somebody's Python, of which nobody can tell that a local disk is behind it."""

    def __init__(self, disk: FileSystem) -> None:
        self._disk = disk

    def get_type_name(self) -> str:
        return "own"

    def get_file_info(self, paths: list[str]) -> Any:
        return self._disk.get_file_info(paths)

    def get_file_info_selector(self, selector: FileSelector) -> Any:
        return self._disk.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._disk.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._disk.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self._disk.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def open_input_stream(self, path: str) -> Any:
        return self._disk.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> Any:
        return self._disk.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return self._disk.open_output_stream(path, compression=None)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError

    def normalize_path(self, path: str) -> str:
        return str(self._disk.normalize_path(path))


def below(path: str) -> tuple[FileSystem, str]:
    """Open a folder for `custom://support.trees.below/path`: a file system of a user's own."""
    return PyFileSystem(_OwnFileSystem(subtree(path)[0])), ""


def subtree(path: str) -> tuple[FileSystem, str]:
    """Open a folder for `custom://support.trees.subtree/path`: a local disk in a wrapper."""
    return SubTreeFileSystem(path, LocalFileSystem()), ""


class StorageTree:
    """A storage: `uri` is the value of Ray's `--storage`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        custom = uri.partition("custom://support.trees.below")[2]
        self._root: str
        self._fs, self._root = below(custom) if custom else FileSystem.from_uri(uri)
        self._prefix = f"{self._root}/" if self._root else ""
        self.put("_valid", b"")

    def run(self, workflow_id: str, metadata: Optional[dict[str, Any]] = None) -> RunTree:
        """Begin a run as a submission does: a folder with the user's metadata, no status yet."""
        run = RunTree(self, workflow_id)
        return run.put("user_run_metadata.json", metadata or {})

    def put(self, path: str, data: bytes) -> None:
        """Write a file in place, and its folders if there are none."""
        path = self._path(path)
        try:
            stream = self._fs.open_output_stream(path)
        except FileNotFoundError:
            self._fs.create_dir(path.rpartition("/")[0])
            stream = self._fs.open_output_stream(path)
        with stream:
            stream.write(data)

    def get(self, path: str) -> Optional[bytes]:
        """Read a file, None if there is none."""
        try:
            with self._fs.open_input_stream(self._path(path), compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        try:
            self._fs.delete_file(self._path(path))
        except FileNotFoundError:
            pass

    def delete_folder(self, path: str) -> None:
        """Delete a folder and all that is in it."""
        self._fs.delete_dir(self._path(path))

    def content(self) -> dict[str, Optional[tuple[bytes, int]]]:
        """Return all there is by path: bytes and mtime of files, None for folders."""
        infos = self._fs.get_file_info(FileSelector(self._root, recursive=True))
        content: dict[str, Optional[tuple[bytes, int]]] = {}
        for info in infos:
            path = info.path[len(self._prefix) :]
            if info.type == FileType.File:
                content[path] = (self.get(path) or b"", info.mtime_ns)
            else:
                content.setdefault(path)
        return content

    def _path(self, path: str) -> str:
        # As ray/_private/storage.py does for all but local disks.
        if not isinstance(self._fs, LocalFileSystem):
            path = path.replace("\\", "/")
        return self._prefix + path


class RunTree:
    """The folder and the marks of one run. Every method returns the run itself."""

    def __init__(self, tree: StorageTree, workflow_id: str) -> None:
        self._tree = tree
        self._id = workflow_id
        self._counters: dict[str, int] = {}

    def put(self, name: str, content: Any) -> RunTree:
        """Write a file of the run: bytes as they are, everything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._tree.put(f"workflows/{self._id}/{name}", data)
        return self

    def delete(self, name: str) -> RunTree:
        """Delete a file of the run."""
        self._tree.delete(f"workflows/{self._id}/{name}")
        return self

    def entry(self, task_id: str) -> RunTree:
        """Name the task whose output is that of the run."""
        return self.put("tasks/outputs.json", {"output_task_id": task_id})

    def count(self, task_id: str) -> RunTree:
        """Give out a task id: `f` for the first task called so, then `f_1`, `f_2`."""
        base, _, number = task_id.rpartition("_")
        if base in self._counters and number.isdecimal():
            self._counters[base] = int(number)
        else:
            base = task_id
            self._counters[base] = 0
        return self.put(f"duplicate_name_counter/{base}", self._counters[base])

    def task(
        self,
        task_id: str,
        *upstream: str,
        max_retries: int = 3,
        checkpoint: bool = True,
        catch_exceptions: bool = False,
        retry_exceptions: bool = False,
        metadata: Optional[dict[str, Any]] = None,
        ray_options: Optional[dict[str, Any]] = None,
    ) -> RunTree:
        """Submit a task: the four files that each task of a DAG has from the beginning."""
        options = {
            "task_type": "FUNCTION",
            "max_retries": max_retries,
            "catch_exceptions": catch_exceptions,
            "retry_exceptions": retry_exceptions,
            "checkpoint": checkpoint,
            "ray_options": ray_options or {},
        }
        inputs = {
            "task_id": task_id,
            "task_options": options,
            "user_metadata": metadata or {},
            "workflow_refs": list(upstream),
        }
        self.count(task_id)
        self.put(f"tasks/{task_id}/inputs.json", inputs)
        self.put(f"tasks/{task_id}/user_task_metadata.json", metadata or {})
        self.put(f"tasks/{task_id}/func_body.pkl", FUNC_BODY)
        return self.put(f"tasks/{task_id}/args.pkl", ARGS)

    def start(self, task_id: str, time: float) -> RunTree:
        """Let a worker begin the task's body."""
        return self.put(f"tasks/{task_id}/pre_task_metadata.json", {"start_time": time})

    def end(self, task_id: str, time: float) -> RunTree:
        """Let the task's body return."""
        return self.put(f"tasks/{task_id}/post_task_metadata.json", {"end_time": time})

    def output(self, task_id: str, value: Any = None) -> RunTree:
        """Save the task's output."""
        return self.put(f"tasks/{task_id}/output.pkl", pickle.dumps(value, protocol=5))

    def fail(self, task_id: str, error: BaseException) -> RunTree:
        """Save the exception of an attempt."""
        return self.put(f"tasks/{task_id}/exception.pkl", pickle.dumps(error, protocol=5))

    def succeed(self, task_id: str, start: float, end: float, value: Any = None) -> RunTree:
        """Run the task from start to end, with a checkpoint of its output."""
        return self.start(task_id, start).end(task_id, end).output(task_id, value)

    def go_on(self, task_id: str, output_task_id: str, dynamic: Optional[str] = None) -> RunTree:
        """Let the task return a workflow, `dynamic` being its latest finished continuation."""
        link = {"output_task_id": output_task_id}
        if dynamic is not None:
            link["dynamic_output_task_id"] = dynamic
        return self.put(f"tasks/{task_id}/outputs.json", link)

    def status(self, status: str, time: Optional[float] = None) -> RunTree:
        """Change the status with all steps of Ray; `time` is when the run starts or ends."""
        before = self._status()
        if before != status:
            self.dirty().meta(status).mark(status)
            if before is not None:
                self.unmark(before)
            self.clean()
        if time is not None and status == "RUNNING":
            self.put("pre_run_metadata.json", {"start_time": time})
        elif time is not None and status in ("SUCCESSFUL", "FAILED"):
            self.put("post_run_metadata.json", {"end_time": time})
        return self

    def meta(self, status: str) -> RunTree:
        """Write the status into the run's folder only."""
        return self.put("workflow_meta.json", {"status": status})

    def mark(self, status: str) -> RunTree:
        """Put the run into the index of a status."""
        self._tree.put(f"workflows/__status__/{status}/{self._id}", b"")
        return self

    def unmark(self, status: str) -> RunTree:
        """Take the run out of the index of a status."""
        self._tree.delete(f"workflows/__status__/{status}/{self._id}")
        return self

    def dirty(self) -> RunTree:
        """Say that the run's status is being changed."""
        return self.mark("dirty")

    def clean(self) -> RunTree:
        """Say that the run's status has been changed."""
        return self.unmark("dirty")

    def remove(self) -> None:
        """Delete the run as `workflow.delete` does: marks first, then the folder."""
        for status in (*STATUSES, "NONE", "dirty"):
            self.unmark(status)
        self._tree.delete_folder(f"workflows/{self._id}")

    def _status(self) -> Optional[str]:
        meta = self._tree.get(f"workflows/{self._id}/workflow_meta.json")
        return json.loads(meta)["status"] if meta else None
