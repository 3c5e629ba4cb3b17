"""Prints a line in pieces, with pauses, and exits without its end (or with it)."""

import argparse
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("pieces", nargs="*", default=["no ", "line ", "end"])
parser.add_argument("--delay", type=float, default=0.02, help="seconds between two pieces")
parser.add_argument("--end", action="store_true", help="end the line")
options = parser.parse_args()

for piece in options.pieces:
    sys.stdout.write(piece)
    sys.stdout.flush()
    time.sleep(options.delay)
if options.end:
    print(flush=True)
