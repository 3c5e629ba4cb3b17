"""Prints `waiting` and ends when the file appears: lets a test hold a job without sleeping."""

import argparse
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("path", type=Path)
parser.add_argument("--say", default="waiting")
options = parser.parse_args()

print(options.say, flush=True)
while not options.path.exists():
    time.sleep(0.01)
print("seen", flush=True)
