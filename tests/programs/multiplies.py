"""Multiplies, as a fork bomb does, but not beyond so many processes: each forks as long as it may, ignores SIGTERM and runs on."""

import argparse
import os
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--processes", type=int, default=60)
options = parser.parse_args()

allowed, allow = os.pipe()
os.write(allow, b"." * options.processes)
os.close(allow)  # reading ends when the allowance is used up
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while os.read(allowed, 1):
    if os.fork() == 0:
        os.write(1, b"%d\n" % os.getpid())
        if os.getpid() % 2:
            os.setsid()
while True:
    time.sleep(60)
