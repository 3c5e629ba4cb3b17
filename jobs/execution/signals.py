"""The signals that tell our processes to stop. It imports nothing of ours, so that the smallest of these processes can load it."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""They may come several times: a terminal, and what stops services, may send them to each of our processes, and a parent passes them on."""
REPEAT_SECONDS = 0.5
"""A stop signal that comes again within this time is the same one, sent by a terminal and passed on by the process that started us."""
FORCE_SIGNAL = signal.SIGUSR1
"""Ends jobs without their grace period. Sent by the process that knows that a person asked twice."""
OURS = (*STOP_SIGNALS, FORCE_SIGNAL)
