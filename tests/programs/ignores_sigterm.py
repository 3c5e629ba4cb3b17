"""Ignores SIGTERM, SIGINT and SIGHUP, says `ready`, and runs until it is killed."""

import argparse
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--say", action="store_true", help="print a line for each signal instead of ignoring it silently")
options = parser.parse_args()

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if options.say:
        signal.signal(number, lambda received, _: print(f"ignored {signal.Signals(received).name}", flush=True))
    else:
        signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(60)
