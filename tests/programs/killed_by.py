"""Ends by the given signal, which it sends to itself."""

import argparse
import os
import resource
import signal

parser = argparse.ArgumentParser()
parser.add_argument("signal", help="for instance SIGSEGV")
options = parser.parse_args()

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
number = signal.Signals[options.signal]
if number not in (signal.SIGKILL, signal.SIGSTOP):
    signal.signal(number, signal.SIG_DFL)
os.kill(os.getpid(), number)
signal.pause()
