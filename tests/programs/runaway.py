"""Runs away: each process starts the next one in a session of its own, and exits. There is never one for long."""

import os
import time

print("running", flush=True)
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.002)
