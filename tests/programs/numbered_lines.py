"""Prints `line 1` to `line N`, as fast as it can or at a given rate, on either stream."""

import argparse
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("lines", type=int)
parser.add_argument("--first", type=int, default=1)
parser.add_argument("--rate", type=float, default=0, help="lines a second; 0 is as fast as possible")
parser.add_argument("--bytes", type=int, default=0, help="length of each line with its end; shorter ones are filled with x")
parser.add_argument("--flush", action="store_true", help="after every line")
parser.add_argument("--stderr", action="store_true")
options = parser.parse_args()

out = (sys.stderr if options.stderr else sys.stdout).buffer
batch = []
for number in range(options.first, options.first + options.lines):
    line = b"line %d" % number
    if options.bytes:
        line = (line + b" ").ljust(options.bytes - 1, b"x")
    batch.append(line + b"\n")
    if options.flush or options.rate or len(batch) == 1000:
        out.write(b"".join(batch))
        batch.clear()
        if options.flush or options.rate:
            out.flush()
    if options.rate:
        time.sleep(1 / options.rate)
out.write(b"".join(batch))
out.flush()
