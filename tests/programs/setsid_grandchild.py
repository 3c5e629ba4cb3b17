"""Leaves a grandchild in a session of its own behind, as daemons do, and exits (or stays, with --stay)."""

import argparse
import os
import signal
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--pid-file", type=Path, help="where the grandchild writes its pid")
parser.add_argument("--ignore-sigterm", action="store_true")
parser.add_argument("--clean-env", action="store_true", help="the grandchild has an empty environment")
parser.add_argument("--stay", action="store_true")
options = parser.parse_args()

told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if options.ignore_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if options.pid_file:
            partial = options.pid_file.with_suffix(".partial")
            partial.write_text(str(os.getpid()))
            partial.rename(options.pid_file)  # so that nobody reads half a number
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(tell, b".")
        if options.clean_env:
            os.execve("/bin/sleep", ["sleep", "600"], {})
        while True:
            time.sleep(60)
    os._exit(0)
os.wait()
os.read(told, 1)
print("started", flush=True)
while options.stay:
    time.sleep(60)
