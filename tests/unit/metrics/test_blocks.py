from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.metrics import blocks
from ray_workflow_exporter.metrics.blocks import (
    EMPTY,
    Block,
    Blocks,
    Fragments,
    block,
    concat,
    gzip_pieces,
)

FAMILIES = ("one", "two", "three")
LIMIT = 400  # bytes of a bucket, in these tests


def text_of(it: Block) -> bytes:
    return b"".join(it.plain)


# --- one gzip member from many blocks


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_a_gzip_body_holds_the_text_of_all_blocks(texts: list[bytes]) -> None:
    body = b"".join(gzip_pieces([block(text) for text in texts]))
    assert gzip.decompress(body) == b"".join(texts)  # which checks CRC and length


@given(st.lists(st.lists(st.binary(max_size=100), max_size=4), max_size=4))
def test_the_checksum_does_not_depend_on_how_the_text_was_put_together(
    texts: list[list[bytes]],
) -> None:
    nested = concat([concat([block(text) for text in some]) for some in texts])
    whole = block(b"".join(text for some in texts for text in some))
    assert (nested.checksum, nested.shift) == (whole.checksum, whole.shift)
    assert text_of(nested) == text_of(whole)
    assert nested.lines == whole.lines == text_of(whole).count(b"\n")


@pytest.mark.parametrize("size", [1, 255, 256, 65_537, 3_000_001])
def test_the_checksum_is_that_of_zlib_for_texts_of_any_size(size: int) -> None:
    halves = [b"a" * size, bytes(range(256)) * (size // 256 + 1)]
    tail = gzip_pieces(map(block, halves))[-1][-8:]
    assert tail[:4] == zlib.crc32(b"".join(halves)).to_bytes(4, "little")


def test_a_gzip_body_is_one_member() -> None:
    # curl would drop silently all that follows the first one.
    body = b"".join(gzip_pieces([block(b"one\n"), block(b"two\n")]))
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(body) == b"one\ntwo\n"
    assert reader.eof
    assert reader.unused_data == b""


def test_a_gzip_body_beyond_4_gb_gives_its_length_modulo_2_to_the_32() -> None:
    part = block(bytes(2**20))
    for _ in range(12):
        part = concat([part, part])
    pieces = gzip_pieces([part, block(b"more")])
    assert part.length == 2**32
    assert pieces[-1][-4:] == (4).to_bytes(4, "little")


# --- buckets


def buckets_of(held: Blocks[str]) -> list[blocks._Bucket]:
    return list(held._buckets)


fragments = st.lists(
    st.integers(0, 30).map(lambda count: b"a line\n" * count) | st.binary(max_size=20),
    min_size=len(FAMILIES),
    max_size=len(FAMILIES),
)
operations = st.lists(
    st.dictionaries(
        st.sampled_from([f"run-{number}" for number in range(12)]),
        st.none() | fragments,
        max_size=12,
    ),
    max_size=12,
)


@given(operations)
def test_any_changes_leave_the_lines_of_what_is_there(
    steps: list[dict[str, Optional[list[bytes]]]],
) -> None:
    held = new_blocks()
    known: dict[str, Sequence[bytes]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BUCKET_BYTES", LIMIT)
        for step in steps:
            changes = {key: it for key, it in step.items() if it is not None or key in known}
            before = list(held.families.values())
            texts = [text_of(it) for it in before]
            after = {**known, **changes}
            known = {key: it for key, it in after.items() if it is not None}
            held.update(known)
            check(held, known)
            # An exposition that a scrape still reads stays what it was.
            assert [text_of(it) for it in before] == texts


def check(held: Blocks[str], known: dict[str, Sequence[bytes]]) -> None:
    buckets = buckets_of(held)
    shown: dict[str, Fragments] = {}
    for bucket in buckets:
        shown.update(zip(bucket.keys, zip(*map(bucket.lines, range(len(FAMILIES))))))
        assert bucket.size == sum(it.length for it in bucket.blocks)
        assert bucket.size <= 2 * LIMIT or len(bucket.keys) == 1
    assert {key: list(it) for key, it in shown.items()} == {k: list(v) for k, v in known.items()}
    assert sum(len(bucket.keys) for bucket in buckets) == len(known)
    for family, it in enumerate(held.families.values()):
        text = text_of(it)
        assert text == b"".join(shown[key][family] for bucket in buckets for key in bucket.keys)
        assert it.lines == text.count(b"\n")
        assert it.length == len(text)
        assert gzip.decompress(b"".join(gzip_pieces([it]))) == text


def new_blocks() -> Blocks[str]:
    """Return blocks of objects that are their own lines."""
    return Blocks(FAMILIES, lambda lines: lines)


def lines_of(number: int, count: int = 2) -> list[bytes]:
    return [b"family %d of %d\n" % (family, number) * count for family in range(len(FAMILIES))]


def test_only_what_changed_is_deflated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BUCKET_BYTES", LIMIT)
    held = new_blocks()
    known = {f"run-{number}": lines_of(number) for number in range(40)}
    held.update(known)
    before = list(held.families.values())
    assert len(buckets_of(held)) > 5

    deflated: list[bytes] = []
    original = blocks.block

    def spy(text: bytes) -> Block:
        deflated.append(text)
        return original(text)

    monkeypatch.setattr(blocks, "block", spy)
    held.update(known)
    held.update({**known, "run-7": list(known["run-7"])})
    assert deflated == []
    assert all(now is then for now, then in zip(held.families.values(), before))

    held.update({**known, "run-7": [b"new\n", *known["run-7"][1:]]})
    assert len(deflated) == 1
    assert b"new\n" in deflated[0]
    assert [now is then for now, then in zip(held.families.values(), before)] == [False, True, True]


def test_the_objects_that_are_left_move_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BUCKET_BYTES", LIMIT)
    held = new_blocks()
    known = {f"run-{number}": lines_of(number) for number in range(200)}
    held.update(known)
    many = len(buckets_of(held))
    held.update({key: known[key] for key in list(known)[::20]})
    assert len(buckets_of(held)) < many / 8
    held.update({})
    assert held.families == dict.fromkeys(FAMILIES, EMPTY)
    assert len(buckets_of(held)) <= 1


def test_a_big_object_has_a_bucket_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BUCKET_BYTES", LIMIT)
    held = new_blocks()
    held.update({"small": lines_of(1), "big": lines_of(2, 50), "small too": lines_of(3)})
    assert Counter(tuple(it.keys) for it in buckets_of(held)) == Counter(
        [("small", "small too"), ("big",)]
    )


def test_not_all_lines_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BUCKET_BYTES", LIMIT)
    unwritten: list[int] = []

    def render(number: int) -> Fragments:
        written = sum(len(bucket.keys) for bucket in buckets_of(held))
        unwritten.append(number - written)
        # Every tenth is too big to share a bucket.
        return lines_of(number, 2 if number % 10 else 50)

    held = Blocks(FAMILIES, render)
    held.update({f"run-{number}": number for number in range(100)})
    assert max(unwritten) < 10


def test_an_object_that_grew_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BUCKET_BYTES", LIMIT)
    held = new_blocks()
    before = {"still": lines_of(1), "grows": lines_of(2)}
    held.update(before)
    held.update({**before, "grows": lines_of(2, 50)})
    assert Counter(tuple(it.keys) for it in buckets_of(held)) == Counter([("still",), ("grows",)])
