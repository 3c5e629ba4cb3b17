"""The signals by which our processes are told to stop. Nothing else, so that the smallest of them can load it."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""However often they come: a terminal, and what stops services, may send them to each of our processes, besides whoever passes them on."""
REPEAT_SECONDS = 0.5
"""A stop that comes again so soon is the same one: from a terminal, and from who started us and passes on what it got."""
FORCE_SIGNAL = signal.SIGUSR1
"""Ends jobs without their grace. Sent by the process that knows that a person asked twice."""
OURS = (*STOP_SIGNALS, FORCE_SIGNAL)
