"""One typed settings object: file (YAML) < environment < flags; unknown keys are errors.

To add a setting, add a field: its flag, its variable and its line in the docs follow.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .problems import SettingsError, first_problem, hint, read_yaml
from .values import Count, Duration, Listen, Names, Origins, Shard, Share, parse_shard, read_mapping

__all__ = ["CONFIG_VARIABLE", "Settings", "SettingsError", "WorkflowSettings", "flag", "variable"]

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


class WorkflowSettings(BaseModel):
    """What the owner of a workflow expects from its runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected_interval: Optional[Duration] = None
    deadline: Optional[Duration] = None
    objective: Optional[Share] = None


class Settings(BaseModel):
    """All settings of the exporter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    storage: Optional[str] = Field(
        None,
        min_length=1,
        description="Workflow storage, as given to `ray start --storage`. Default: the storage of "
        "the cluster.",
    )
    address: str = Field(
        "auto",
        min_length=1,
        description="Address of the Ray cluster. `auto`: the one on this machine; `none`: read "
        "storage only.",
    )
    listen: Listen = Field(
        ":20729",
        description="Address to listen on. Without a host: all interfaces. Write an IPv6 address "
        "in brackets.",
    )
    actions_listen: Optional[Listen] = Field(
        None,
        description="Separate address for actions. If set, `listen` accepts none; page and metrics "
        "are served on both.",
    )
    tokens_file: Optional[Path] = Field(
        None,
        description="YAML file of bearer tokens; see `docs/security.md`. Without it, actions are "
        "off. Read again when it changes.",
    )
    web_config_file: Optional[Path] = Field(
        None,
        description="TLS, headers and users, in Prometheus's web-config format. Read again when it "
        "changes.",
    )
    public_reading: bool = Field(
        True,
        description="Allow reading metrics, page and API without credentials. Has no effect if the "
        "web config has users.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call the API from a browser, such as "
        "`https://grafana.example`.",
    )
    interval: Duration = Field(1.0, ge=0.1, description="Time between two polls, at least 100ms.")
    shard: Shard = Field(
        "0/1",
        description="Watch only shard i of n, counted from 0. A run belongs to one shard, by the "
        "hash of its id.",
    )
    detail: Literal["workflow", "run", "stage", "task"] = Field(
        "task", description="Finest tier of metrics to expose."
    )
    finished_retention: Duration = Field(
        86_400.0, description="How long to expose the metrics of a finished run."
    )
    max_finished_runs: Count = Field(
        1000, description="Maximum number of finished runs to expose, newest first."
    )
    workflow_retention: Duration = Field(
        30 * 86_400.0,
        description="How long the counters of a workflow without runs are exposed after its last "
        "count.",
    )
    task_retention: Duration = Field(
        3_600.0,
        description="How long to expose the tasks of a finished run. Failed tasks are exposed as "
        "long as their run.",
    )
    max_tasks_per_run: Count = Field(
        1000,
        description="Maximum number of tasks to expose for a run; a larger run is exposed by "
        "stage only.",
    )
    max_workflows: Count = Field(
        200, description="Maximum number of workflows in labels; further ones count as `other`."
    )
    max_staleness: Duration = Field(
        60.0, description="How long to serve the last good poll while polls fail."
    )
    manager_timeout: Duration = Field(
        5.0, description="Time-out for Ray's workflow management actor, per poll."
    )
    storage_timeout: Duration = Field(30.0, description="Time-out for workflow storage, per poll.")
    manager_grace: Duration = Field(
        30.0,
        description="How long live runs keep their status while Ray cannot be reached; then they "
        "count as RESUMABLE.",
    )
    expose_error_messages: bool = Field(
        True,
        description="Expose the messages of exceptions, not only their types. What looks like a "
        "secret is masked in any case.",
    )
    metadata_labels: Names = Field(
        (), description="Keys of user metadata to expose as labels, prefixed `meta_`."
    )
    workflow_key: str = Field(
        "workflow",
        min_length=1,
        description="Key of user metadata that holds the name of a run's workflow.",
    )
    workflows: Annotated[dict[str, WorkflowSettings], BeforeValidator(read_mapping)] = Field(
        default_factory=dict,
        description="Per workflow: `expected_interval` (time between two runs), `deadline` "
        "(maximum duration of a run) and `objective` (share of its runs that should succeed).",
    )
    objective: Share = Field(
        0.99,
        description="Share of runs that should succeed, between 0 and 1, for workflows without "
        "their own objective.",
    )
    state_dir: Optional[Path] = Field(
        None,
        description="Folder for the counters and the cache of finished runs. Default: "
        "`ray-workflow-exporter` under `$XDG_STATE_HOME` or `~/.local/state`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum log level."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines on stderr."
    )

    @property
    def state_path(self) -> Path:
        """The folder of the counters' state, default applied."""
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return (self.state_dir or Path(base, "ray-workflow-exporter")).expanduser()

    @property
    def shards(self) -> int:
        """How many exporters share the runs."""
        return parse_shard(self.shard)[1]

    def holds(self, workflow_id: str) -> bool:
        """Tell whether a run belongs to this shard; of all shards, exactly one holds it."""
        index, count = parse_shard(self.shard)
        if count == 1:
            return True
        digest = hashlib.blake2b(workflow_id.encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") % count == index

    @classmethod
    def load(
        cls, file: Optional[Path], environ: Mapping[str, str], flags: Mapping[str, Any]
    ) -> Settings:
        """Merge `file`, the variables of `environ` and `flags`; the later one wins.

        A flag that is None is not set, nor is an empty variable. Raises SettingsError.
        """
        values: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for key, value, where in (*_from_file(file), *_from_environ(environ), *_from_flags(flags)):
            values[key], origin[key] = value, where
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            (key, *inside), problem = first_problem(error, WorkflowSettings.model_fields)
            at = f", at {'.'.join(inside)}," if inside else ""
            raise SettingsError(f"{origin[key]}{at} {problem}") from None

    @classmethod
    def load_here(cls, flags: Mapping[str, Any], file: Optional[str] = None) -> Settings:
        """Load `file`, else the one that the environment names, and this process's environment."""
        path = file or os.environ.get(CONFIG_VARIABLE)
        return cls.load(Path(path) if path else None, os.environ, flags)


def _from_file(file: Optional[Path]) -> Iterator[tuple[str, Any, str]]:
    if file is None:
        return
    content = read_yaml(file, f"The file {file}")
    if content is not None and not isinstance(content, dict):
        raise SettingsError(f"The file {file} must hold `key: value` lines, one for a setting.")
    for key, value in (content or {}).items():
        if key not in Settings.model_fields:
            near = hint(str(key), Settings.model_fields)
            raise SettingsError(f"The file {file} has the unknown key {str(key)!r}{near}")
        yield key, value, f"{key!r} in the file {file}"


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    known = {variable(key): key for key in Settings.model_fields}
    for name, value in environ.items():
        if name in known and value:
            yield known[name], value, f"The variable {name}"
        elif (
            name.startswith(ENV_PREFIX)
            and name not in (*known, CONFIG_VARIABLE)
            and not _SERVICE_LINK.fullmatch(name[len(ENV_PREFIX) :])
        ):
            raise SettingsError(f"The variable {name} names no setting{hint(name, known)}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for key, value in flags.items():
        if value is not None:
            yield key, value, f"The flag {flag(key)}"


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return ENV_PREFIX + key.upper()


def flag(key: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + key.replace("_", "-")
