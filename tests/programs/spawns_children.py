"""Starts a tree of processes that all run on, prints the pid of each, and stays (or exits, with --leave)."""

import argparse
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--children", type=int, default=3, help="of each process")
parser.add_argument("--depth", type=int, default=2)
parser.add_argument("--leave", action="store_true")
options = parser.parse_args()


def grow(depth: int) -> None:
    for _ in range(options.children if depth else 0):
        if os.fork() == 0:
            grow(depth - 1)
            os.write(1, b"%d\n" % os.getpid())
            while True:
                time.sleep(60)


grow(options.depth)
os.write(1, b"%d\n" % os.getpid())
while not options.leave:
    time.sleep(60)
