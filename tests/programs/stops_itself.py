"""Stops itself by SIGSTOP, with a child that does the same; with --continue somebody wakes it up a little later, and it ends well."""

import argparse
import os
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--continue", dest="goes_on", action="store_true")
options = parser.parse_args()

leader = os.getpid()
child = os.fork()
if child == 0 and options.goes_on:
    time.sleep(0.3)
    os.kill(leader, signal.SIGCONT)
    os._exit(0)
print("stopping", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("going on", flush=True)
if child and options.goes_on:
    os.wait()
else:
    time.sleep(600)
