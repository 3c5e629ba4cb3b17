"""Closes its standard streams, runs on without them, and ends by the given code (or stays)."""

import argparse
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--code", type=int, default=0)
parser.add_argument("--stay", action="store_true")
options = parser.parse_args()

os.write(1, b"closing\n")
for fd in (0, 1, 2):
    os.close(fd)
time.sleep(0.2)
while options.stay:
    time.sleep(60)
os._exit(options.code)
