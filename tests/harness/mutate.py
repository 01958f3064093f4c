"""Random damage to files; output is deterministic for a given seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Mutation = Callable[[bytearray, np.random.Generator, Sequence[bytes]], bytes]

_LARGEST = 2**31 - 1
_BOXES = (b"moov", b"trak", b"stsz", b"stsd", b"stts", b"ctts", b"stco", b"elst", b"mdhd", b"mvhd", b"strh", b"strf",
          b"avih", b"idx1", b"\x1aE\xdf\xa3", b"\x1fC\xb6u", b"\x15I\xa9f", b"\x16T\xaek", b"\xff\xda", b"\0\0\1\xb3",
          b"\0\0\1\xba", b"\0\0\1\xe0", b"\0\0\1\x67", b"G@", b"mdat")  # fmt: skip


def mutate(original: bytes, others: Sequence[bytes], seed: int) -> tuple[str, bytes]:
    """Apply one kind of damage 1 to 4 times. Returns the kind and the damaged file.

    Args:
        others: files whose parts may be inserted.
    """
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    data = bytearray(original)
    for _ in range(int(rng.integers(1, 5))):
        data = bytearray(KINDS[kind](data, rng, others))
        if not data:
            break
    return kind, bytes(data)


def _position(data: Sequence[int], rng: np.random.Generator, size: int = 1) -> int:
    """Return a random start of a block of this size."""
    return int(rng.integers(0, max(1, len(data) - size + 1)))


def _flip(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Invert up to 256 bits."""
    for _ in range(int(2 ** rng.uniform(0, 8))):
        data[_position(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Remove the end."""
    return bytes(data[: _position(data, rng)])


def _remove(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Remove bytes in the middle; the rest moves up."""
    size = int(2 ** rng.uniform(0, 12))
    start = _position(data, rng, size)
    return bytes(data[:start] + data[start + size :])


def _zero(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Overwrite a block with zeros."""
    size = int(2 ** rng.uniform(0, 12))
    start = _position(data, rng, size)
    stop = min(len(data), start + size)
    return bytes(data[:start] + bytes(stop - start) + data[stop:])


def _swap(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Exchange two blocks."""
    size = min(int(2 ** rng.uniform(4, 11)), len(data) // 2)
    a, b = sorted((_position(data, rng, size), _position(data, rng, size)))
    b = max(b, a + size)
    return bytes(data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :])


def _field(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Change a number in a header to zero, one, a large, a negative or a random number."""
    found = [position for position in map(bytes(data).find, _BOXES) if position >= 0] or [0]
    start = int(rng.choice(found)) + int(rng.integers(-8, 64))
    start = min(max(start, 0), max(0, len(data) - 4))
    number = int(rng.choice([0, 1, 2**16, 2**24, _LARGEST, -1, int(rng.integers(0, _LARGEST))]))
    data[start : start + 4] = number.to_bytes(4, "big" if rng.random() < 0.6 else "little", signed=True)
    return bytes(data)


def _join(data: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Insert another file, or a part of one, at the start, at the end or in between."""
    other = others[int(rng.integers(len(others)))]
    start = int(rng.choice([0, _position(other, rng)]))
    at = int(rng.choice([0, len(data), _position(data, rng)]))
    return bytes(data[:at] + other[start : start + 20_000] + data[at:])


KINDS: dict[str, Mutation] = {
    "bit flips": _flip, "cut": _cut, "removed": _remove, "zeroed": _zero, "swapped": _swap, "header": _field,
    "joined": _join,
}  # fmt: skip
