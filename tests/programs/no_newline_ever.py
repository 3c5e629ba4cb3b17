"""Prints and prints, and never ends a line."""

import argparse
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--bytes", type=int, default=1_000_000)
parser.add_argument("--pause", type=float, default=0, help="seconds between two writes of 4 KiB")
options = parser.parse_args()

left = options.bytes
while left > 0:
    left -= sys.stdout.write("x" * min(left, 4096))
    if options.pause:
        sys.stdout.flush()
        time.sleep(options.pause)
