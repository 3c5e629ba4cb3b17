"""Prints one very long line between two short ones."""

import argparse
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--bytes", type=int, default=200_000, help="length of the line without its end")
options = parser.parse_args()

pattern = b"0123456789abcdef"
sys.stdout.buffer.write(b"before\n" + (pattern * (options.bytes // len(pattern) + 1))[: options.bytes] + b"\nafter\n")
