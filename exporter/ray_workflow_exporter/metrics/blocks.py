"""Text that is ready to be sent: kept in blocks, plain and deflated, so that a scrape only joins.

A gzip body is one member: a header, deflated blocks that each stand alone (`Z_FULL_FLUSH`), an
empty last block, checksum and length (RFC 1951, RFC 1952). A member for each block would be legal
too, but curl reads the first one only. The checksum of the whole comes from those of the blocks.
"""

from __future__ import annotations

import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Callable, Generic, NamedTuple, Optional, TypeVar

# Objects share a bucket up to this many bytes, all families taken together. More would have to
# be deflated again for each change; in less, there is less that repeats.
BUCKET_BYTES = 256 * 1024

_LEVEL = 1  # of zlib: higher ones take two to three times as long to save a tenth
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no time, no name, any system
_LAST_BLOCK = b"\x03\x00"

F = TypeVar("F")  # a family
Fragments = Sequence[bytes]  # the lines of one object: a piece for each family


class Block(NamedTuple):
    """Some text in pieces, plain and deflated; `length` and `lines` are those of the text.

    `checksum` is its CRC-32 and `shift` what appending it does to that of the text before it,
    both as polynomials.
    """

    plain: tuple[bytes, ...] = ()
    packed: tuple[bytes, ...] = ()
    length: int = 0
    lines: int = 0
    checksum: int = 0
    shift: int = 1


EMPTY = Block()


def block(text: bytes) -> Block:
    """Deflate some text."""
    if not text:
        return EMPTY
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


def gzip_pieces(blocks: Iterable[Block]) -> list[bytes]:
    """Return the text of all blocks as a gzip file, in pieces that the blocks share."""
    whole = concat(blocks)
    crc, size = _crc32(whole.checksum), whole.length % 2**32
    tail = _LAST_BLOCK + crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    return [_GZIP_HEADER, *whole.packed, tail]


class Blocks(Generic[F]):
    """The lines of many objects, in one block a family; not for use by two threads at once.

    `render` makes the lines of one object, and only if it is not equal to that before under its
    key. Objects share buckets: what changes costs the work of its bucket, and in it only that of
    the families whose lines are not the same as before.
    """

    def __init__(self, families: Sequence[F], render: Callable[[Any], Fragments]) -> None:
        self._render = render
        self.families = dict.fromkeys(families, EMPTY)
        self._objects: Mapping[str, object] = {}
        self._bucket_of: dict[str, _Bucket] = {}
        self._open = _Bucket(len(families))  # takes the next new object
        self._buckets = {self._open: None}  # as a set that keeps its order
        self._changed: set[int] = set()  # families of which some bucket has another text

    def update(self, objects: Mapping[str, object]) -> Mapping[F, Block]:
        """Return the block of each family for these objects. Of no more use after an error."""
        new = []
        changed: defaultdict[_Bucket, list[str]] = defaultdict(list)
        for key in self._objects.keys() - objects.keys():
            changed[self._bucket_of.pop(key)].append(key)
        for key, it in objects.items():
            known = self._objects.get(key)
            if known is None:
                new.append(key)
            elif known is not it and known != it:
                changed[self._bucket_of[key]].append(key)
        self._objects = objects
        for bucket, keys in changed.items():
            new += self._rewrite(bucket, keys)
        self._place(new)
        for at, family in enumerate(self.families):
            if at in self._changed:
                self.families[family] = concat([bucket.blocks[at] for bucket in self._buckets])
        self._changed.clear()
        return self.families

    def _rewrite(self, bucket: _Bucket, keys: Iterable[str]) -> list[str]:
        """Write changed and gone objects of one bucket; return those that have to move."""
        objects = self._objects
        lines = {key: self._render(objects[key]) if key in objects else None for key in keys}
        self._changed.update(bucket.write(lines))
        grown = bucket.size > 2 * BUCKET_BYTES and len(bucket.keys) > 1
        if not grown and (bucket.size >= BUCKET_BYTES // 4 or bucket is self._open):
            return []
        del self._buckets[bucket]
        if bucket is self._open:
            self._open = self._new_bucket()
        self._changed.update(at for at, it in enumerate(bucket.blocks) if it.length)
        return bucket.keys

    def _place(self, keys: Iterable[str]) -> None:
        """Write objects that have no bucket.

        A bucket is written as soon as it is full: the lines of all objects would take as much
        memory as the blocks.
        """
        waiting: dict[str, Optional[Fragments]] = {}
        size = self._open.size
        for key in keys:
            fragments = self._render(self._objects[key])
            length = sum(map(len, fragments))
            if length >= BUCKET_BYTES // 2:
                self._bucket_of[key] = alone = self._new_bucket()
                self._changed.update(alone.write({key: fragments}))
                continue
            if size + length > BUCKET_BYTES:
                self._changed.update(self._open.write(waiting))
                self._open, waiting, size = self._new_bucket(), {}, 0
            self._bucket_of[key] = self._open
            waiting[key] = fragments
            size += length
        self._changed.update(self._open.write(waiting))

    def _new_bucket(self) -> _Bucket:
        bucket = _Bucket(len(self.families))
        self._buckets[bucket] = None
        return bucket


class _Bucket:
    """Some objects and their blocks, one a family.

    The lines of one object are found by their lengths: kept as bytes of their own beside the
    block, they would take the same memory once more.
    """

    def __init__(self, families: int) -> None:
        self.keys: list[str] = []
        self.blocks = [EMPTY] * families
        self.size = 0  # bytes of all blocks
        self._lengths = [array("L")] * families

    def write(self, changes: Mapping[str, Optional[Fragments]]) -> list[int]:
        """Put, replace and (None) drop objects; return the families whose text is another."""
        if not changes:
            return []
        place = {key: at for at, key in enumerate(self.keys)}
        self.keys = [key for key in {**place, **changes} if changes.get(key, ()) is not None]
        sources = [(changes.get(key), place.get(key, -1)) for key in self.keys]
        changed = []
        for family, before in enumerate(self.blocks):
            old = self.lines(family)
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

    def lines(self, family: int) -> list[bytes]:
        """Return the lines of each object in one family."""
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
