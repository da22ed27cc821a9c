"""One typed settings object: file (YAML) < environment < flags; unknown keys are errors.

To add a setting, add a field: its flag, its variable and its line in the docs follow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import values
from .problems import SettingsError, hint, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONFIG_VARIABLE", "SETTINGS", "Settings", "SettingsError", "WorkflowSettings"]

ENV_PREFIX = "RAY_WORKFLOW_EXPORTER_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
# The flags that every Prometheus exporter has, beside our own.
USUAL_FLAGS = {
    "listen": "--web.listen-address",
    "web_config_file": "--web.config.file",
    "log_level": "--log.level",
    "log_format": "--log.format",
}

# Kubernetes sets these for every Service of a namespace: one called `ray-workflow-exporter` must
# not look like unknown settings.
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True)
class WorkflowSettings:
    """What the owner of a workflow expects from its runs."""

    expected_interval: Optional[float] = values.DURATION(None)
    deadline: Optional[float] = values.DURATION(None)
    objective: Optional[float] = values.SHARE(None)


_WORKFLOWS = values.mapping_of(values.ANY_TEXT, values.section(WorkflowSettings), from_text=True)


@dataclass(frozen=True)
class Settings:
    """All settings of the exporter."""

    storage: Optional[str] = values.TEXT(
        None,
        "Workflow storage, as given to `ray start --storage`. Default: the storage of the cluster.",
    )
    address: str = values.TEXT(
        "auto",
        "Address of the Ray cluster. `auto`: the one on this machine; `none`: read storage only.",
    )
    listen: str = values.LISTEN(
        ":20729",
        "Address to listen on. Without a host: all interfaces. Write an IPv6 address in brackets.",
    )
    actions_listen: Optional[str] = values.LISTEN(
        None,
        "Separate address for actions. If set, `listen` accepts none; page and metrics are served "
        "on both.",
    )
    tokens_file: Optional[Path] = values.PATH(
        None,
        "YAML file of bearer tokens; see `docs/security.md`. Without it, actions are off. Read "
        "again when it changes.",
    )
    web_config_file: Optional[Path] = values.PATH(
        None,
        "TLS, headers and users, in Prometheus's web-config format. Read again when it changes.",
    )
    public_reading: bool = values.FLAG(
        True,
        "Allow reading metrics, page and API without credentials. Has no effect if the web config "
        "has users.",
    )
    cors_origins: tuple[str, ...] = values.ORIGINS(
        (),
        "Origins whose pages may call the API from a browser, such as `https://grafana.example`.",
    )
    interval: float = values.INTERVAL(1.0, "Time between two polls, at least 100ms.")
    history_interval: Optional[float] = values.DURATION(
        None,
        "Longest time between two listings of the marks of all runs; the polls between them list "
        "what changed. Default: 1m on a disk, 10m on an object store.",
    )
    shard: str = values.SHARD(
        "0/1",
        "Watch only shard i of n, counted from 0. A run belongs to one shard, by the hash of its "
        "id.",
    )
    detail: str = values.choice("workflow", "run", "stage", "task")(
        "task", "Finest tier of metrics to expose."
    )
    finished_retention: float = values.DURATION(
        86_400.0, "How long to expose the metrics of a finished run."
    )
    max_finished_runs: int = values.COUNT(
        1000, "Maximum number of finished runs to expose, newest first."
    )
    workflow_retention: float = values.DURATION(
        30 * 86_400.0,
        "How long the counters of a workflow without runs are exposed after its last count.",
    )
    task_retention: float = values.DURATION(
        3_600.0,
        "How long to expose the tasks of a finished run. Failed tasks are exposed as long as "
        "their run.",
    )
    max_tasks_per_run: int = values.COUNT(
        1000, "Maximum number of tasks to expose for a run; a larger run is exposed by stage only."
    )
    max_workflows: int = values.COUNT(
        200, "Maximum number of workflows in labels; further ones count as `other`."
    )
    max_staleness: float = values.DURATION(
        60.0, "How long to serve the last good poll while polls fail."
    )
    manager_timeout: float = values.DURATION(
        5.0, "Time-out for Ray's workflow management actor, per poll."
    )
    storage_timeout: float = values.DURATION(30.0, "Time-out for workflow storage, per poll.")
    manager_grace: float = values.DURATION(
        30.0,
        "How long live runs keep their status while Ray cannot be reached; then they count as "
        "RESUMABLE.",
    )
    expose_error_messages: bool = values.FLAG(
        True,
        "Expose the messages of exceptions, not only their types. What looks like a secret is "
        "masked in any case.",
    )
    metadata_labels: tuple[str, ...] = values.TEXTS(
        (), "Keys of user metadata to expose as labels, prefixed `meta_`."
    )
    workflow_key: str = values.TEXT(
        "workflow", "Key of user metadata that holds the name of a run's workflow."
    )
    workflows: Mapping[str, WorkflowSettings] = _WORKFLOWS(
        {},
        "Per workflow: `expected_interval` (time between two runs), `deadline` (maximum duration "
        "of a run) and `objective` (share of its runs that should succeed).",
    )
    objective: float = values.SHARE(
        0.99,
        "Share of runs that should succeed, between 0 and 1, for workflows without their own "
        "objective.",
    )
    state_dir: Optional[Path] = values.PATH(
        None,
        "Folder for the counters and the cache of finished runs. Default: `ray-workflow-exporter` "
        "under `$XDG_STATE_HOME` or `~/.local/state`.",
    )
    log_level: str = values.choice("debug", "info", "warning", "error")(
        "info", "Minimum log level."
    )
    log_format: str = values.choice("text", "json")("text", "Format of log lines on stderr.")

    @property
    def state_path(self) -> Path:
        """The folder of the counters' state, default applied."""
        from pathlib import Path  # slow to import, and commands that ask an exporter need none

        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return (self.state_dir or Path(base, "ray-workflow-exporter")).expanduser()

    @property
    def shards(self) -> int:
        """How many exporters share the runs."""
        return values.parse_shard(self.shard)[1]

    def holds(self, workflow_id: str) -> bool:
        """Tell whether a run belongs to this shard; of all shards, exactly one holds it."""
        index, count = values.parse_shard(self.shard)
        if count == 1:
            return True
        import hashlib  # slow to import, and seldom needed

        digest = hashlib.blake2b(workflow_id.encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") % count == index

    @classmethod
    def load(
        cls,
        file: Union[str, Path, None],
        environ: Mapping[str, str],
        flags: Mapping[str, Any],
        **defaults: Any,
    ) -> Settings:
        """Merge `defaults`, `file`, the variables of `environ` and `flags`; the later one wins.

        A flag that is None is not set, nor is an empty variable. Raises SettingsError.
        """
        given: dict[str, tuple[Any, str]] = {}
        for key, value, origin in (*_from_file(file), *_from_environ(environ)):
            given[key] = value, origin
        for key, value in flags.items():
            if value is not None:
                given[key] = value, f"The flag {flag(key)}"
        settings = dict(defaults)
        for key, (default, kind, _) in SETTINGS.items():
            value, origin = given.get(key, (default, ""))
            if key not in given or value is default is None:
                continue
            try:
                settings[key] = kind.read(value)
            except ValueError as error:
                place, problem = values.problem_of(error)
                at = f", at {place}," if place else ""
                raise SettingsError(f"{origin}{at} {problem}") from None
        return cls(**settings)

    @classmethod
    def load_here(
        cls, flags: Mapping[str, Any], file: Optional[str] = None, **defaults: Any
    ) -> Settings:
        """Load `file`, else the one that the environment names, and this process's environment."""
        path = file or os.environ.get(CONFIG_VARIABLE) or None
        return cls.load(path, os.environ, flags, **defaults)


SETTINGS = values.definitions(Settings)


def _from_file(file: Union[str, Path, None]) -> Iterator[tuple[str, Any, str]]:
    if file is None:
        return
    content = read_yaml(file, f"The file {file}")
    if content is not None and not isinstance(content, dict):
        raise SettingsError(f"The file {file} must hold `key: value` lines, one for a setting.")
    for key, value in (content or {}).items():
        if key not in SETTINGS:
            near = hint(str(key), SETTINGS)
            raise SettingsError(f"The file {file} has the unknown key {str(key)!r}{near}")
        yield key, value, f"{key!r} in the file {file}"


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    known = {variable(key): key for key in SETTINGS}
    for name, value in environ.items():
        if name in known and value:
            yield known[name], value, f"The variable {name}"
        elif (
            name.startswith(ENV_PREFIX)
            and name not in (*known, CONFIG_VARIABLE)
            and not _SERVICE_LINK.fullmatch(name[len(ENV_PREFIX) :])
        ):
            raise SettingsError(f"The variable {name} names no setting{hint(name, known)}")


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return ENV_PREFIX + key.upper()


def flag(key: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + key.replace("_", "-")
