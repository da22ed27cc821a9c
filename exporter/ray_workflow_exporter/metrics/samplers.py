"""The ways in which an object becomes the samples of a family: one value, counts, or flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Callable, Optional, Union

from ..model import Edge, Failure, Run, Task
from . import text
from .family import Options, Sample, Sampler, StageOnPath, TaskOnPath, Value


def one(get: Callable[[Any], Optional[Value]]) -> Sampler:
    """Make one sample, or none where the value is unknown."""

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        value = get(subject)
        return () if value is None else (((), value),)

    return samples


def each(members: Iterable[Enum], get: Callable[[Any], Mapping[Any, int]]) -> Sampler:
    """Make a count for each member, 0 where there is none."""
    keyed = tuple((member, (member.value,)) for member in members)

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        counts = get(subject)
        return [(own, counts.get(member, 0)) for member, own in keyed]

    return samples


def flags(members: Iterable[Enum], get: Callable[[Any], Optional[Enum]]) -> Sampler:
    """Make 1 for the current member and 0 for the others; nothing if no member is current."""
    keyed = tuple((member, (member.value,)) for member in members)

    def samples(subject: Any, _: Options) -> Iterable[Sample]:
        current = get(subject)
        if current is None:
            return ()
        return [(own, int(member is current)) for member, own in keyed]

    return samples


def end_time(item: Union[Run, Task], finished: bool) -> Optional[float]:
    """Return the end of a finished run or task; an end before its start is of an earlier life."""
    start, end = item.start_time, item.end_time
    return end if finished and not (start is not None and end is not None and end < start) else None


def column(subject: Union[StageOnPath, TaskOnPath]) -> Optional[int]:
    """Return the column in a drawing of the DAG."""
    return subject.place and subject.place.column


def row(subject: Union[StageOnPath, TaskOnPath]) -> Optional[float]:
    """Return the row in a drawing of the DAG."""
    return subject.place and subject.place.row


def edge_id(edge: Edge, _: Options) -> Iterable[Sample]:
    """Make a 1 with an id of the edge."""
    yield (text.digest("\0".join((edge.source, edge.target, edge.kind.value))),), 1


def failure_labels(failure: Failure, options: Options) -> tuple[str, str, str]:
    """Return the labels `kind`, `exception` and `message`."""
    message = failure.message if options.error_messages else ""
    return failure.kind.value, failure.exception, message
