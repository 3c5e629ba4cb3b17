"""Appends one line with its pid to a file: counts how often it was started."""

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("file", type=Path)
options = parser.parse_args()

with options.file.open("a") as file:  # appending so short a line is atomic
    file.write(f"{os.getpid()}\n")
