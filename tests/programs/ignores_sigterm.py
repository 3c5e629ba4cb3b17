"""Ignores SIGTERM, SIGINT and SIGHUP, says `ready`, and runs until it is killed, or for so many seconds."""

import argparse
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--say", action="store_true", help="print a line for each signal instead of ignoring it silently")
parser.add_argument("--seconds", type=float, default=600, help="until it ends by itself")
options = parser.parse_args()

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if options.say:
        signal.signal(number, lambda received, _: print(f"ignored {signal.Signals(received).name}", flush=True))
    else:
        signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
end = time.monotonic() + options.seconds
while (left := end - time.monotonic()) > 0:
    time.sleep(left)
