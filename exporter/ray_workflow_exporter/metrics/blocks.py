"""Text that is ready to be sent: kept in blocks, plain and deflated, so that a scrape only joins.

A gzip body is one member: a header, deflated blocks that each stand alone (`Z_FULL_FLUSH`), an
empty last block, checksum and length (RFC 1951, RFC 1952). A member for each block would be legal
too, but curl reads the first one only. The checksum of the whole comes from those of the blocks.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Optional

# Objects share a bucket up to this many bytes, all families taken together. More would have to
# be deflated again for each change; in less, there is less that repeats.
BUCKET_BYTES = 256 * 1024
CHUNK_BYTES = 256 * 1024

_LEVEL = 1  # of zlib: higher ones take two to three times as long to save a tenth
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no time, no name, any system
_LAST_BLOCK = b"\x03\x00"

Fragments = Sequence[bytes]  # the lines of one object: a piece for each family


@dataclass(frozen=True)
class Body:
    """An answer in pieces, which it shares with all other answers that hold the same text."""

    pieces: Sequence[bytes]
    length: int

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in order, small pieces joined."""
        waiting: list[bytes] = []
        size = 0
        for piece in self.pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)


class Block(NamedTuple):
    """Some text in pieces, plain and deflated; `length` and `lines` are those of the text.

    `checksum` is its CRC-32 and `shift` what appending it does to that of the text before it,
    both as polynomials.
    """

    plain: tuple[bytes, ...]
    packed: tuple[bytes, ...]
    length: int
    lines: int
    checksum: int
    shift: int


def block(text: bytes) -> Block:
    """Deflate some text."""
    if not text:
        return concat(())
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum, shift = _polynomial(zlib.crc32(text)), _shift(len(text))
    return Block((text,), (packed,), len(text), text.count(b"\n"), checksum, shift)


def concat(blocks: Iterable[Block]) -> Block:
    """Return one block with the text of all, without a look at the text."""
    plain: list[bytes] = []
    packed: list[bytes] = []
    length = lines = checksum = 0
    for it in blocks:
        if it.length:
            plain += it.plain
            packed += it.packed
            length += it.length
            lines += it.lines
            checksum = _product(checksum, it.shift) ^ it.checksum
    return Block(tuple(plain), tuple(packed), length, lines, checksum, _shift(length))


def plain_body(blocks: Sequence[Block]) -> Body:
    """Return the text of all blocks."""
    return Body([piece for it in blocks for piece in it.plain], sum([it.length for it in blocks]))


def gzip_body(blocks: Iterable[Block]) -> Body:
    """Return the text of all blocks as a gzip file."""
    whole = concat(blocks)
    crc, size = _crc32(whole.checksum), whole.length % 2**32
    tail = _LAST_BLOCK + crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    pieces = [_GZIP_HEADER, *whole.packed, tail]
    return Body(pieces, sum(map(len, pieces)))


class Blocks:
    """The lines of many objects, in one block a family; not for use by two threads at once.

    Objects share buckets: what changes costs the work of its bucket, and in it only that of the
    families whose lines are not the same as before.
    """

    def __init__(self, families: int) -> None:
        self.families = [concat(())] * families
        self._buckets: dict[_Bucket, None] = {}  # as a set that keeps its order
        self._bucket_of: dict[str, _Bucket] = {}
        self._open: Optional[_Bucket] = None  # takes the next new object
        self._changed: set[int] = set()  # families of which some bucket has another text

    def update(self, changes: Iterable[tuple[str, Optional[Fragments]]]) -> None:
        """Take the lines of new and changed objects, by their keys; None for one that is gone."""
        misfits: list[tuple[str, Optional[Fragments]]] = []
        for bucket in self._write(changes):
            if self._misfit(bucket):
                misfits += bucket.fragments()
                self._drop(bucket)
        self._write(misfits)
        for family in self._changed:
            self.families[family] = concat([bucket.blocks[family] for bucket in self._buckets])
        self._changed.clear()

    def _write(self, changes: Iterable[tuple[str, Optional[Fragments]]]) -> Collection[_Bucket]:
        written: dict[_Bucket, dict[str, Optional[Fragments]]] = {}
        for key, fragments in changes:
            bucket, full = self._bucket_of.get(key), None
            if fragments is None:
                del self._bucket_of[key]
            elif bucket is None:
                before, bucket = self._open, self._place(fragments)
                self._bucket_of[key] = bucket
                full = before if bucket is self._open else bucket
            assert bucket is not None
            written.setdefault(bucket, {})[key] = fragments
            if full is not None and full is not self._open and full in written:
                # At once, for the lines of all objects would take as much memory as the blocks.
                self._changed.update(full.write(written[full]))
                written[full] = {}
        for bucket, of_bucket in written.items():
            self._changed.update(bucket.write(of_bucket))
        return written

    def _place(self, fragments: Fragments) -> _Bucket:
        size = sum(map(len, fragments))
        if size >= BUCKET_BYTES // 2:
            return self._new(size)
        if self._open is None or self._open.size + size > BUCKET_BYTES:
            self._open = self._new(0)
        self._open.size += size
        return self._open

    def _new(self, size: int) -> _Bucket:
        bucket = _Bucket(len(self.families), size)
        self._buckets[bucket] = None
        return bucket

    def _misfit(self, bucket: _Bucket) -> bool:
        """Whether objects have to move: they grew too big for one bucket, or many are gone."""
        if bucket.size > 2 * BUCKET_BYTES:
            return len(bucket.keys) > 1
        return bucket.size < BUCKET_BYTES // 4 and bucket is not self._open

    def _drop(self, bucket: _Bucket) -> None:
        del self._buckets[bucket]
        if bucket is self._open:
            self._open = None
        for key in bucket.keys:
            del self._bucket_of[key]
        self._changed.update(family for family, it in enumerate(bucket.blocks) if it.length)


class _Bucket:
    """Some objects and their blocks, one a family.

    The lines of one object are found by their lengths: kept as bytes of their own beside the
    block, they would take the same memory once more.
    """

    def __init__(self, families: int, size: int) -> None:
        self.keys: list[str] = []
        self.blocks = [concat(())] * families
        self.size = size  # bytes of all blocks, with what is still to be written
        self._lengths = [array("L")] * families

    def fragments(self) -> list[tuple[str, Fragments]]:
        """Return the lines of each object."""
        families = [self._of_family(family) for family in range(len(self.blocks))]
        return list(zip(self.keys, zip(*families)))

    def write(self, changes: Mapping[str, Optional[Fragments]]) -> list[int]:
        """Put, replace and (None) drop objects; return the families whose text is another."""
        place = {key: at for at, key in enumerate(self.keys)}
        self.keys = [key for key in {**place, **changes} if changes.get(key, ()) is not None]
        sources = [(changes.get(key), place.get(key, -1)) for key in self.keys]
        changed = []
        for family, before in enumerate(self.blocks):
            old = self._of_family(family)
            new = [old[at] if given is None else given[family] for given, at in sources]
            if new == old:
                continue
            self._lengths[family] = array("L", map(len, new))
            text = b"".join(new)
            if (text,) != (before.plain or (b"",)):
                self.blocks[family] = block(text)
                changed.append(family)
        self.size = sum([it.length for it in self.blocks])
        return changed

    def _of_family(self, family: int) -> list[bytes]:
        text, lengths = b"".join(self.blocks[family].plain), self._lengths[family]
        return [text[end - length : end] for length, end in zip(lengths, accumulate(lengths))]


# Polynomials with coefficients 0 and 1, modulo that of CRC-32. Coefficient i is byte i of an
# integer, so that Python multiplies them: at most 33 products of coefficients add up in a byte,
# and of each sum only whether it is odd counts.
_ODD = int.from_bytes(b"\1" * 65, "little")
_LOW = 256**32 - 1  # coefficients 0 to 31
_DIGITS = int.from_bytes(b"0" * 32, "little")
_CRC32 = int.from_bytes(f"{0x104C11DB7:b}"[::-1].encode(), "little") & _ODD
_INVERSE = int.from_bytes(f"{0x104D101DF:b}"[::-1].encode(), "little") & _ODD  # x^64 / _CRC32


def _product(one: int, other: int) -> int:
    product = one * other & _ODD
    # Barrett's reduction: two products instead of a division.
    quotient = ((product >> 256) * _INVERSE & _ODD) >> 256
    return (product ^ (quotient * _CRC32 & _ODD)) & _LOW


def _polynomial(crc: int) -> int:
    # The highest bit of a CRC is the coefficient of x^0.
    return int.from_bytes(f"{crc:032b}".encode(), "little") & _ODD


def _crc32(polynomial: int) -> int:
    return int((polynomial | _DIGITS).to_bytes(32, "little"), 2)


# x^8, x^16, x^32, ...: enough for texts of any length.
_POWERS = [1 << 64]
for _ in range(63):
    _POWERS.append(_product(_POWERS[-1], _POWERS[-1]))


def _shift(length: int) -> int:
    """Return the factor that appending so many bytes means: x^8 for each."""
    factor = 1
    for at in range(length.bit_length()):
        if length >> at & 1:
            factor = _product(factor, _POWERS[at])
    return factor
