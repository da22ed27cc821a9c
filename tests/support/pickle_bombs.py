"""Small pickles that would take much time or memory to load or to show, for `test_pickles.py`."""

from __future__ import annotations

import pickle
import struct

MANY = 25_000
LONG = 400_000


def short(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


VALUE_ERROR = named("builtins", "ValueError")
TWICE = b")" + b"2\x86" * 60  # a tuple that holds one tuple twice, and so on: 2 ** 60 in all


def claimed(opcode: bytes, size: str, length: int) -> bytes:
    return VALUE_ERROR + opcode + struct.pack(size, length) + b"x\x85R."


def repeated(*values: bytes, body: bytes, times: int, callee: bytes = VALUE_ERROR) -> bytes:
    """Give the values to the memo, then repeat the body as arguments of the callee."""
    memo = b"".join(value + b"q" + bytes([i]) + b"0" for i, value in enumerate(values))
    return memo + callee + b"(" + body * times + b"tR."


def fed_back(callee: bytes, body: bytes, start: bytes = short("x"), times: int = 60) -> bytes:
    """Put the callee in memo 0, the start in memo 1; each body makes the next one of memo 1."""
    return callee + b"q\x000" + start + b"q\x010" + (body + b"q\x010") * times + b"h\x01."


SKELETON = named("ray.cloudpickle.cloudpickle", "_make_skeleton_class")
GROWTH: dict[str, bytes] = {
    "memo index": VALUE_ERROR + short("x") + b"r\xff\xff\xff\xff\x85R.",
    "memo index in digits": VALUE_ERROR + short("x") + b"p" + b"9" * 4_000 + b"\n\x85R.",
    "claim of 4 EiB of bytes": claimed(b"\x8e", "<Q", 1 << 62),
    "claim of 16 EiB of text": claimed(b"\x8d", "<Q", (1 << 64) - 1),
    "claim of 8 EiB of bytearray": claimed(b"\x96", "<Q", (1 << 63) - 1),
    "claim of 4 GiB of text": claimed(b"X", "<I", (1 << 32) - 1),
    "claim of 2 GiB of number": claimed(b"\x8b", "<i", (1 << 31) - 1),
    "claim of less than nothing": claimed(b"\x8b", "<i", -5),
    "claim of a frame": b"\x80\x05\x95" + b"\xff" * 8 + VALUE_ERROR + short("x") + b"\x85R.",
    "doubled argument": VALUE_ERROR + TWICE + b"\x85R.",
    "doubled arguments": VALUE_ERROR + TWICE + b"R.",
    "doubled key": VALUE_ERROR + b"}" + TWICE + b"Ns\x85R.",
    "doubled item of a set": VALUE_ERROR + b"\x8f(" + TWICE + b"\x90\x85R.",
    "doubled item of a frozenset": VALUE_ERROR + b"(" + TWICE + b"\x91\x85R.",
    "doubled name": short("module") + TWICE + b"\x93)R.",
    "doubled module": TWICE + short("Name") + b"\x93)R.",
    "doubled attribute": named("builtins", "getattr") + VALUE_ERROR + TWICE + b"\x86R)R.",
    "doubled state": VALUE_ERROR + b")R" + TWICE + b"b.",
    "doubled lists": VALUE_ERROR + fed_back(b"N", b"](h\x01h\x01e", b"]")[:-1] + b"\x85R.",
    "doubled errors": fed_back(named("builtins", "OSError"), b"h\x00h\x01h\x01\x86R"),
    "doubled attributes": fed_back(
        named("subprocess", "CalledProcessError"),
        b"h\x00)R}" + short("cmd") + b"h\x01s" + short("returncode") + b"h\x01sb",
    ),
    "doubled base classes": fed_back(
        SKELETON, b"h\x00(N" + short("X") + b"h\x01h\x01\x86}NNtR", VALUE_ERROR
    )[:-1]
    + b")R.",
    "cause of itself": named("ray.exceptions", "RayTaskError")
    + b")Rq\x00}"
    + short("cause")
    + b"h\x00sb.",
    "list in itself": VALUE_ERROR + b"]q\x00h\x00a\x85R.",
    "dict in itself": VALUE_ERROR + b"}q\x00Nh\x00s\x85R.",
    "deep tuples": VALUE_ERROR + b")" + b"\x85" * 90_000 + b"R.",
    "deep lists": VALUE_ERROR + b"]" * 45_000 + b"a" * 44_999 + b"\x85R.",
    "deep marks": VALUE_ERROR + b"(" * 45_000 + b"t" * 45_000 + b"R.",
    "deep errors": VALUE_ERROR + b"q\x00" + b"h\x00" * 30_000 + b")" + b"R\x85" * 30_000 + b"R.",
    "deep states": fed_back(VALUE_ERROR, b"h\x00)Rh\x01b", times=14_000),
    "duplicates": repeated(short("x" * 1_000), body=b"h\x002222222", times=11_000),
    "empty dicts": repeated(body=b"}", times=90_000),
    "calls": repeated(VALUE_ERROR, body=b"h\x00)R", times=30_000),
    "list into itself": repeated(b"]", body=b"h\x00(h\x00h\x00e", times=15_000),
    "same arguments": repeated(
        named("copyreg", "__newobj__"),
        b"(" + VALUE_ERROR + b"N" * MANY + b"t",
        body=b"h\x00h\x01R",
        times=20_000,
    ),
    "same items": repeated(b"(" + (short("k") + b"N") * 10_000 + b"d", body=b"}h\x00b", times=MANY),
    "same long keys": repeated(
        short("x" * LONG), short("x" * LONG), body=b"}h\x00Nsh\x01Ns", times=MANY // 2
    ),
    "same long number as key": repeated(
        b"\x8b" + struct.pack("<i", LONG) + b"\x7f" * LONG, body=b"}h\x00Ns", times=MANY // 2
    ),
    "same long name": repeated(
        short("m" * LONG), short("." * LONG), body=b"h\x00h\x01\x93", times=MANY
    ),
    "same long name of an attribute": repeated(
        named("builtins", "getattr"),
        short("module") + short("x" * LONG) + b"\x93" + short("y") + b"\x86",
        body=b"h\x00h\x01R",
        times=MANY,
    ),
    "names of names": repeated(
        named("builtins", "getattr"),
        VALUE_ERROR + short("\U0001f600" * 245) + b"\x86",
        body=b"h\x00h\x01R",
        times=MANY,
    ),
    "same part of a path": repeated(
        short("x" * LONG), body=b"h\x00", times=90_000, callee=named("pathlib", "PurePosixPath")
    )[:-1]
    + b"q\x010"
    + VALUE_ERROR
    + b"h\x01\x85R.",
    "long text": VALUE_ERROR + short("\U0001f600" + "x" * 900_000) + b"\x85R.",
    "long number": VALUE_ERROR + b"\x8b" + struct.pack("<i", LONG) + b"\x7f" * LONG + b"\x85R.",
    "long number in digits": VALUE_ERROR + b"L" + b"9" * LONG + b"L\n\x85R.",
    "long number as errno": named("builtins", "OSError")
    + b"\x8b"
    + struct.pack("<i", LONG)
    + b"\x7f" * LONG
    + b"N\x86R.",
    "long number as a position": named("json.decoder", "JSONDecodeError")
    + short("bad")
    + short("text")
    + b"\x8b"
    + struct.pack("<i", LONG)
    + b"\x7f" * LONG
    + b"\x87R.",
    "place before the text": pickle.dumps(UnicodeEncodeError("ascii", "ab", -9, -8, "bad")),
    "place behind the text": pickle.dumps(UnicodeDecodeError("ascii", b"ab", 98, 99, "bad")),
}
