"""Makes itself unrecognisable: wipes its environment and its command line where the system shows them, changes its name, and does the same
in a child that leaves the session, and in one that is executed anew with nothing in its environment. Linux only."""

import argparse
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--stay", action="store_true")
parser.add_argument("--ignore-sigterm", action="store_true")
options = parser.parse_args()
PR_SET_NAME = 15
ARG_START = 45  # in what follows the name in /proc/PID/stat: arg_start, arg_end, env_start, env_end


def wipe() -> None:
    stat = Path("/proc/self/stat").read_text()
    start, _, _, end = map(int, stat[stat.rindex(")") + 2 :].split()[ARG_START : ARG_START + 4])
    ctypes.memset(start, 0, end - start)  # command line and environment lie side by side
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"innocent", 0, 0, 0)
    assert Path("/proc/self/environ").read_bytes().strip(b"\0") == b""
    assert Path("/proc/self/cmdline").read_bytes().strip(b"\0") == b""


if options.ignore_sigterm:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
hidden, tell = os.pipe()
null = os.open(os.devnull, os.O_RDWR)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        if os.fork() == 0:
            os.write(tell, b".")
            os.execve("/bin/sleep", ["innocent", "600"], {})
        wipe()
        os.write(tell, b".")
        time.sleep(600)
    os._exit(0)
wipe()
while len(os.read(hidden, 1)) + len(os.read(hidden, 1)) < 2:
    pass
os.write(1, b"hidden\n")
while options.stay:
    time.sleep(60)
sys.exit(0)
