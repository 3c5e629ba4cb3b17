"""Prints a number and the time, many times a second: for so long, and then on until the file appears."""

import argparse
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=1)
parser.add_argument("--rate", type=float, default=50, help="lines a second")
parser.add_argument("--until", type=Path)
options = parser.parse_args()

end = time.monotonic() + options.seconds
number = 0
while time.monotonic() < end or (options.until and not options.until.exists()):
    number += 1
    print(number, time.time(), flush=True)
    time.sleep(1 / options.rate)
