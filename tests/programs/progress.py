"""Draws a bar that redraws itself with a carriage return, or prints its progress in another common style."""

import argparse
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--delay", type=float, default=0, help="seconds between two steps")
parser.add_argument("--style", choices=["before", "after", "ninja", "make", "directive"], default="before")
parser.add_argument("--result", help="a JSON object to report at the end")
options = parser.parse_args()


def draw(step: int) -> str:
    percent = 100 * step // options.steps
    bar = "#" * (percent // 5)
    return {
        "before": f"\r[{bar:<20}] {percent}%",
        "after": f"{percent}% {bar}\r",
        "ninja": f"[{step}/{options.steps}] Building part_{step}\n",
        "make": f"[{percent:3}%] Building part_{step}\n",
        "directive": f"::progress {percent} part {step}\n",
    }[options.style]


for step in range(1, options.steps + 1):
    sys.stdout.write(draw(step))
    sys.stdout.flush()
    time.sleep(options.delay)
if options.style in ("before", "after"):
    sys.stdout.write("\n" if options.style == "before" else "\r\n")
if options.result:
    print(f"::result {options.result}")
