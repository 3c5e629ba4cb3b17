"""Prints bytes that are no UTF-8: a lone continuation, a cut character, an overlong one, a surrogate, and a null byte."""

import sys

LINES = [
    b"before",
    b"lone \x80 byte",
    b"cut \xe2\x82",
    b"overlong \xc0\xaf",
    b"surrogate \xed\xa0\x80",
    b"null \x00 byte",
    "after ü".encode(),
]
sys.stdout.buffer.write(b"".join(line + b"\n" for line in LINES))
