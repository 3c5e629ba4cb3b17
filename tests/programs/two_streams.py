"""Prints numbered lines on both streams in turn."""

import argparse
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--lines", type=int, default=10, help="on each stream")
options = parser.parse_args()

for number in range(1, options.lines + 1):
    print(f"out {number}", flush=True)
    print(f"err {number}", file=sys.stderr, flush=True)
