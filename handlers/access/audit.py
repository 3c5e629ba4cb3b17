"""The audit log: a line for each change that a caller asked for, and for each refused call. It has no secrets and no control characters.

runcast.audit INFO submit_job by=ci from=127.0.0.1 outcome=202 job=019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11
"""

from __future__ import annotations

import json
import logging
import re

from handlers.access.rates import Rate, network_of

logger = logging.getLogger("runcast.audit")

NOBODY = "-"
REFUSALS = "20/minute"
"""How many lines about refused calls there may be for one token name and network, so that refused calls cannot fill the disk."""

_PLAIN = re.compile(r"[\w.:/@+-]{1,300}", re.ASCII)


class Audit:
    """Writes the lines."""

    def __init__(self) -> None:
        self._refusals = Rate(REFUSALS)
        self._left_out: dict[str, int] = {}

    def change(self, action: str, *, by: str, address: str, outcome: str, **about: str) -> None:
        """A caller asked for a change; `outcome` is the status, or the kind of problem."""
        _write(action, {"by": by, "from": address, "outcome": outcome, **about})

    def refused(self, action: str, *, address: str, outcome: str, by: str = NOBODY) -> None:
        """A caller was not authenticated, or reached a limit. Lines beyond the limit are counted; the next line has their number."""
        key = f"{by} {network_of(address)}"
        if not self._refusals.take(key):
            if len(self._left_out) < 1000 or key in self._left_out:
                self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        left_out = self._left_out.pop(key, 0)
        _write(action, {"by": by, "from": address, "outcome": outcome, **({"left_out": str(left_out)} if left_out else {})})


def _write(action: str, facts: dict[str, str]) -> None:
    logger.info("%s %s", action, " ".join(f"{name}={_quoted(value)}" for name, value in facts.items()))


def _quoted(value: str) -> str:
    """The value as it is, or as a JSON string in ASCII, so that no value ends the line, looks like another field or controls a terminal."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value[:300])
