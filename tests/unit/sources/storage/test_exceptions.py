from __future__ import annotations

import copy
import copyreg
import functools
import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle as cloudpickle
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.sources.storage.exceptions import (
    MAX_BYTES,
    MAX_MESSAGE,
    UNREADABLE,
    read_exception,
)
from ray_workflow_exporter.sources.storage.pickle_machine import MAX_NAME, MAX_OPCODES
from support import exceptions_zoo as zoo
from support.pickle_bombs import GROWTH, SKELETON, VALUE_ERROR, named, short

EXACT = {**zoo.builtin(), **zoo.by_value(), **zoo.by_reference()}
BY_VALUE = set(zoo.by_value())


def type_name(error: BaseException, by_value: bool = False) -> str:
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    # What pickle.loads would say, too: cloudpickle does not write the qualified name.
    return f"{kind.__module__}.{kind.__name__ if by_value else kind.__qualname__}"


def assert_bounded(answer: tuple[str, str]) -> None:
    name, message = answer
    assert isinstance(name, str)
    assert isinstance(message, str)
    assert 0 < len(name) <= MAX_NAME
    assert len(message) <= MAX_MESSAGE
    (name + message).encode("utf-8")


# --- truth ---


@pytest.mark.parametrize("kind", EXACT)
def test_type_and_message_equal_the_truth(kind: str) -> None:
    error = EXACT[kind]
    read = read_exception(cloudpickle.dumps(error))
    assert read == (type_name(error, kind in BY_VALUE), str(error))


@pytest.mark.parametrize("kind", zoo.APPROXIMATIONS)
def test_documented_approximations_are_these(kind: str) -> None:
    error, name, message = zoo.APPROXIMATIONS[kind]
    assert read_exception(cloudpickle.dumps(error)) == (name, message)
    assert (name, message) != (type_name(error), str(error)), "exact: move it to the other table"


@pytest.mark.parametrize("kind", ["text", "missing key", "class of __main__", "by reference"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_ray_task_error_is_unwrapped_to_the_error_of_the_task(kind: str, times: int) -> None:
    error = EXACT[kind]
    wrapped = zoo.task_error(error)
    for _ in range(times - 1):
        wrapped = zoo.task_error(wrapped)
    truth = (type_name(error, kind in BY_VALUE), str(error))
    assert read_exception(cloudpickle.dumps(wrapped)) == truth


@pytest.mark.parametrize("kind", ["text", "class of __main__", "by reference"])
def test_a_ray_task_error_that_is_also_its_cause_is_unwrapped(kind: str) -> None:
    error = EXACT[kind]
    dual = zoo.task_error(error).as_instanceof_cause()
    assert type(dual).__name__ == f"RayTaskError({type(error).__name__})"
    truth = (type_name(error, kind in BY_VALUE), str(error))
    assert read_exception(cloudpickle.dumps(dual)) == truth


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "kind", ["text", "three arguments", "missing key", "unicode", "many lines", "by reference"]
)
def test_every_protocol_is_read(kind: str, protocol: int) -> None:
    error = EXACT[kind]
    answer = read_exception(pickle.dumps(error, protocol))
    assert answer == (type_name(error), str(error))


@pytest.mark.parametrize("module", [b"cloudpickle.cloudpickle", b"vendored.cloudpickle"])
def test_classes_by_value_are_known_from_any_copy_of_cloudpickle(module: bytes) -> None:
    error = EXACT["class of __main__"]
    ours = b"ray.cloudpickle.cloudpickle"
    data = cloudpickle.dumps(error)[11:]  # without the frame, whose length changes
    data = data.replace(bytes([len(ours)]) + ours, bytes([len(module)]) + module)
    assert read_exception(b"\x80\x05" + data) == ("__main__.Main", str(error))


@pytest.mark.parametrize("kind", ["JSON", "syntax", "exit status", "inputs of pydantic"])
def test_documents_and_outputs_are_never_shown(kind: str) -> None:
    error = EXACT[kind] if kind in EXACT else zoo.APPROXIMATIONS[kind][0]
    data = cloudpickle.dumps(error)
    assert b"secret" in data
    assert not any("secret" in part for part in read_exception(data))


def test_a_message_is_cut_at_its_limit() -> None:
    text = "".join(map(str, range(2_000)))
    for error in (ValueError(text), KeyError(text), ValueError([text]), OSError(1, text, text)):
        data = cloudpickle.dumps(error)
        assert read_exception(data) == (type(error).__name__, str(error)[:MAX_MESSAGE])


# --- files that are no whole, or no reasonable pickle ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "The file is empty: it may still be being written."),
        (b"\x80\x05", "The file is not a whole pickle: it is damaged or still being written."),
        (b"\x89PNG", "The file is not a whole pickle: it is damaged or still being written."),
        (pickle.dumps({"a": 1}), "The file holds a pickle, but no exception."),
        (pickle.dumps(ValueError), "The file holds a pickle, but no exception."),
    ],
)
def test_an_unreadable_file_says_why(data: bytes, reason: str) -> None:
    assert read_exception(data) == (UNREADABLE, reason)


def test_every_truncation_of_a_file_is_unreadable() -> None:
    data = cloudpickle.dumps(EXACT["class of __main__"])
    assert {read_exception(data[:size])[0] for size in range(len(data))} == {UNREADABLE}


@pytest.mark.parametrize("kind", ["text", "class of __main__", "by reference"])
def test_a_file_beyond_the_limits_still_tells_its_type(kind: str) -> None:
    error = copy.copy(EXACT[kind])
    name = type_name(error, kind in BY_VALUE)
    for huge in ("x" * MAX_BYTES, [None] * MAX_OPCODES):
        error.args = (huge,)
        for whole in (error, zoo.task_error(error), zoo.task_error(error).as_instanceof_cause()):
            answer = read_exception(cloudpickle.dumps(whole))
            assert answer == (name, "The message is not shown: it is too large to read.")


def test_an_attribute_beyond_the_limits_does_not_hide_the_message() -> None:
    error = zoo.Plain("kept")
    for error.table in ("x" * MAX_BYTES, [None] * MAX_OPCODES):
        data = cloudpickle.dumps(error)
        assert read_exception(data) == ("support.exceptions_zoo.Plain", "kept")
        assert read_exception(cloudpickle.dumps(zoo.task_error(error))) == (
            "support.exceptions_zoo.Plain",
            "kept",
        )


@pytest.mark.parametrize("value", ["x" * MAX_BYTES, [None] * MAX_OPCODES])
def test_a_large_file_without_an_exception_says_so(value: Any) -> None:
    assert read_exception(pickle.dumps(value)) == (UNREADABLE, "The file is too large to read.")


# --- nothing runs ---


class Reduced:
    """Pickled as a call, with whatever else a reduce value may hold."""

    def __init__(self, *value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return self.value


class Trap:
    """Makes a folder when its state is set."""

    def __setstate__(self, path: str) -> None:
        os.mkdir(path)


class TrapOnNew:
    """Makes a folder when it is made."""

    def __new__(cls, path: str) -> TrapOnNew:
        os.mkdir(path)
        return super().__new__(cls)


def run_as_function(path: str) -> Any:
    def trap() -> None:
        os.mkdir(path)

    return trap


ATTACKS: dict[str, Callable[[str], bytes]] = {
    "REDUCE of mkdir": lambda path: cloudpickle.dumps(Reduced(os.mkdir, (path,))),
    "REDUCE of a shell": lambda path: cloudpickle.dumps(Reduced(os.system, (f"mkdir {path}",))),
    "REDUCE of a method": lambda path: cloudpickle.dumps(Reduced(Path(path).touch, ())),
    "REDUCE of exec": lambda path: pickle.dumps(
        Reduced(exec, (f"__import__('os').mkdir({path!r})",)), 0
    ),
    "within an exception": lambda path: cloudpickle.dumps(
        ValueError("harmless", Reduced(os.mkdir, (path,)))
    ),
    "a function by value": lambda path: cloudpickle.dumps(Reduced(run_as_function(path), ())),
    "INST": lambda path: f"(S{path!r}\nios\nmkdir\n.".encode(),
    "OBJ": lambda path: b"(" + named("os", "mkdir") + short(path) + b"o.",
    "NEWOBJ": lambda path: named(__name__, "TrapOnNew") + short(path) + b"\x85\x81.",
    "NEWOBJ_EX": lambda path: named(__name__, "TrapOnNew") + short(path) + b"\x85}\x92.",
    "BUILD": lambda path: named(__name__, "Trap") + b")\x81" + short(path) + b"b.",
    "a state setter": lambda path: cloudpickle.dumps(
        Reduced(object, (), path, None, None, lambda _, state: os.mkdir(state))
    ),
    "partial": lambda path: cloudpickle.dumps(Reduced(functools.partial(os.mkdir, path), ())),
    "an extension code": lambda path: b"\x82\xf0" + short(path) + b"\x85R.",
}


@pytest.fixture
def extension_code() -> Any:
    copyreg.add_extension("os", "mkdir", 0xF0)
    yield
    copyreg.remove_extension("os", "mkdir", 0xF0)


@pytest.mark.usefixtures("extension_code")
@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_runs_nothing_that_loading_would_run(attack: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    data = ATTACKS[attack](str(trace))
    assert_bounded(read_exception(data))
    assert not trace.exists()
    try:
        result = pickle.loads(data)
    except Exception as error:  # after the deed, a load may fail
        result = error
    assert trace.exists(), f"the attack is none, it made {result!r}"


def test_a_persistent_id_is_no_error_but_its_exception_is_read() -> None:
    data = b"\x80\x05" + named("builtins", "ValueError") + short("text") + b"Pid\n\x86R."
    assert read_exception(data) == ("ValueError", "('text', persistent_id())")


@pytest.mark.parametrize("module", ["antigravity", "this", "trap_module"])
def test_reading_imports_nothing(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_module.py").write_text("class Error(Exception): pass")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    assert module not in before
    data = named(module, "Error") + short("text") + b"\x85R."
    assert read_exception(data) == (f"{module}.Error", "text")
    assert set(sys.modules) == before


# --- nothing grows ---


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", GROWTH)
def test_time_and_memory_stay_bounded(attack: str) -> None:
    data = GROWTH[attack]
    assert len(data) <= MAX_BYTES
    tracemalloc.start()
    try:
        answer = read_exception(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_bounded(answer)
    assert "too large" not in answer[1], "the limit hides what this test is for"
    assert peak < 48 << 20


@pytest.mark.parametrize(
    ("attack", "answer"),
    [
        ("long number", ("ValueError", "<a number of 3199999 bits>")),
        ("long number as errno", ("OSError", "[Errno <a number of 3199999 bits>] None")),
        ("long number as a position", ("json.decoder.JSONDecodeError", "bad")),
        ("place before the text", ("UnicodeEncodeError", "bad")),
        ("deep errors", ("ValueError", "ValueError(" * 20 + "..." + ")" * 20)),
        ("list in itself", ("ValueError", "[" * 20 + "..." + "]" * 20)),
    ],
)
def test_what_is_beyond_measure_is_left_out(attack: str, answer: tuple[str, str]) -> None:
    assert read_exception(GROWTH[attack]) == answer


def test_a_line_of_protocol_0_has_a_limit() -> None:
    assert read_exception(pickle.dumps(ValueError("x" * 9_000), 0))[1] == "x" * MAX_MESSAGE
    assert read_exception(pickle.dumps(ValueError("x" * 11_000), 0))[0] == UNREADABLE


# --- whatever comes ---

DATA = [cloudpickle.dumps(error) for error in EXACT.values()]
FRAGMENTS = [
    bytes([code]) for code in b"().012NRQ]a}besutod\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94"
]
FRAGMENTS += [VALUE_ERROR, SKELETON, named("ray.exceptions", "RayTaskError"), short("cause")]
FRAGMENTS += [
    named("builtins", "getattr"),
    named("functools", "partial"),
    named("builtins", "OSError"),
]
FRAGMENTS += [named("copyreg", "__newobj__"), named("json", "JSONDecodeError"), named("m", "func")]
FRAGMENTS += [b"K\x02", b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x82\x01", short("\u20ac")]


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes) -> None:
    assert_bounded(read_exception(data))


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_random_opcodes_never_raise(fragments: list[bytes]) -> None:
    assert_bounded(read_exception(VALUE_ERROR + b"".join(fragments) + b"."))


@given(st.sampled_from(DATA), st.data())
def test_damaged_files_never_raise(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    places = st.integers(0, len(data) - 1)
    for place, value in draw.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        damaged[place] = value
    start, end = sorted(draw.draw(st.tuples(places, places)))
    if draw.draw(st.booleans()):
        del damaged[start:end]
    assert_bounded(read_exception(bytes(damaged)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)
KINDS = [
    ValueError,
    KeyError,
    RuntimeError,
    OSError,
    StopIteration,
    zoo.Plain,
    type(EXACT["local class"]),
]


@given(st.sampled_from(KINDS), st.text())
def test_any_text_comes_back_as_it_was(kind: type[Exception], text: str) -> None:
    error = kind(text)
    answer = read_exception(cloudpickle.dumps(error))
    assert answer == (type_name(error, kind is KINDS[-1]), str(error)[:MAX_MESSAGE])


@given(st.sampled_from(KINDS), st.lists(VALUES, max_size=4))
def test_any_arguments_come_back_as_they_were(kind: type[Exception], args: list[Any]) -> None:
    error = kind(*args)
    answer = read_exception(cloudpickle.dumps(error))
    assert answer == (type_name(error, kind is KINDS[-1]), str(error)[:MAX_MESSAGE])
