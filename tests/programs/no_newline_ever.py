"""Prints and prints, and never ends a line."""

import argparse
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--bytes", type=int, default=1_000_000)
options = parser.parse_args()

left = options.bytes
while left > 0:
    left -= sys.stdout.write("x" * min(left, 4096))
