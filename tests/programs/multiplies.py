"""Multiplies, as a fork bomb does, but not beyond so many processes: each forks as long as it may, ignores SIGTERM and runs on."""

import argparse
import os
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--processes", type=int, default=60)
parser.add_argument("--leave", action="store_true", help="the first one exits when there are so many")
options = parser.parse_args()

allowed, allow = os.pipe()
os.write(allow, b"." * options.processes)
os.close(allow)  # reading ends when the allowance is used up
signal.signal(signal.SIGTERM, signal.SIG_IGN)
first = os.getpid()
while os.read(allowed, 1):
    if os.fork() == 0:
        os.write(1, b"%d\n" % os.getpid())
        if os.getpid() % 2:
            os.setsid()
while not (options.leave and os.getpid() == first):
    time.sleep(60)
