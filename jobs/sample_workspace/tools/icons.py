"""Draws an application's icon from its name: a mirrored pattern on a rounded tile. Writes PNG with the standard library alone."""

from __future__ import annotations

import colorsys
import hashlib
import struct
import zlib

_CELLS = 5  # of the pattern, in each direction
_MARGIN = 0.16  # between the tile's edge and the pattern
_CORNER = 0.22  # the radius of the tile's corners

Colour = tuple[float, float, float]


def icon(name: str, *, size: int, samples: int) -> bytes:
    """A square PNG. Each pixel is the mean of `samples` by `samples` points, so that curves are smooth."""
    digest = hashlib.sha256(name.encode()).digest()
    colour = colorsys.hls_to_rgb(digest[0] / 256, 0.45, 0.6)
    pattern = [[bool(digest[1 + row] >> min(column, _CELLS - 1 - column) & 1) for column in range(_CELLS)] for row in range(_CELLS)]
    rows = [b"\0" + b"".join(_pixel(x, y, size, samples, colour, pattern) for x in range(size)) for y in range(size)]
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"".join(rows), 9)) + _chunk(b"IEND", b"")


def _pixel(x: int, y: int, size: int, samples: int, colour: Colour, pattern: list[list[bool]]) -> bytes:
    covered = lit = 0
    for part in range(samples * samples):
        u = (x + (part % samples + 0.5) / samples) / size
        v = (y + (part // samples + 0.5) / samples) / size
        if _in_tile(u, v):
            covered += 1
            lit += _in_pattern(u, v, pattern)
    if not covered:
        return b"\0\0\0\0"
    light = lit / covered
    shade = 1 - 0.25 * y / size
    return bytes(round(255 * (part * shade * (1 - light) + light)) for part in colour) + bytes([round(255 * covered / samples**2)])


def _in_tile(u: float, v: float) -> bool:
    du = max(_CORNER - u, u - 1 + _CORNER, 0.0)
    dv = max(_CORNER - v, v - 1 + _CORNER, 0.0)
    return du * du + dv * dv <= _CORNER * _CORNER


def _in_pattern(u: float, v: float, pattern: list[list[bool]]) -> bool:
    column = int((u - _MARGIN) / (1 - 2 * _MARGIN) * _CELLS // 1)
    row = int((v - _MARGIN) / (1 - 2 * _MARGIN) * _CELLS // 1)
    return 0 <= column < _CELLS and 0 <= row < _CELLS and pattern[row][column]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
