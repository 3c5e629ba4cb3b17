"""What the processes of a server tell each other at the start: names of variables and one-byte messages. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from jobs.settings import Settings

SETTINGS, LIFELINE, LISTENER = "RUNCAST_SETTINGS", "RUNCAST_LIFELINE", "RUNCAST_LISTENER"
STEPS = "RUNCAST_STEPS"
"""The socket on which the first worker process is told to take each step of the preparation."""
GATE = "RUNCAST_GATE"
"""The socket on which the API process is told that the store is prepared. The byte is never taken out, so a restarted API finds it too."""
GO, STEP_DONE = b"\1", b"\0"

Step = Callable[[Settings], None]
