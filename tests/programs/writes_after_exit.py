"""Exits (or stays, with --stay), but leaves a child behind that writes numbered lines into the inherited output for ever."""

import argparse
import os
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--stay", action="store_true")
options = parser.parse_args()

ready, tell = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it when the leader of its session exits
    number = 0
    while True:
        number += 1
        os.write(1, b"line %d\n" % number)
        if number == 1:
            os.write(tell, b".")
        time.sleep(0.01)
os.read(ready, 1)
while options.stay:
    time.sleep(60)
