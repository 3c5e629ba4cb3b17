"""Starts children that exit at once and never asks how they ended; a grandchild of each becomes an orphan and exits as well."""

import argparse
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--zombies", type=int, default=50)
parser.add_argument("--stay", action="store_true")
options = parser.parse_args()

for _ in range(options.zombies):
    if os.fork() == 0:
        os.fork()
        os._exit(0)
print("made", flush=True)
while options.stay:
    time.sleep(60)
