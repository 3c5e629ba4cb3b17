"""Exits with the given code."""

import argparse
import sys

parser = argparse.ArgumentParser()
parser.add_argument("code", type=int)
parser.add_argument("--say", help="a line to print before")
options = parser.parse_args()

if options.say is not None:
    print(options.say, flush=True)
sys.exit(options.code)
