"""Exits at once, but leaves a child that keeps its output open and writes a last line after a while."""

import argparse
import os
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=600)
parser.add_argument("--own-session", action="store_true")
options = parser.parse_args()

ready, tell = os.pipe()
if os.fork() == 0:
    if options.own_session:
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it when the leader of its session exits
    os.write(tell, b".")
    time.sleep(options.seconds)
    print("late", flush=True)
    os._exit(0)
os.read(ready, 1)
print("leaving", flush=True)
