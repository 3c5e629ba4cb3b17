"""The audit log: a line for each change that somebody asked for, and for each who was not let in. No secrets, and nothing for terminals.

runcast.audit INFO submit_job by=ci from=127.0.0.1 outcome=202 job=019ab0c4-5e00-7a61-8c2d-0f6a7d3b9e11
"""

from __future__ import annotations

import json
import logging
import re

from handlers.access.rates import Rate, neighbourhood

logger = logging.getLogger("runcast.audit")

NOBODY = "-"
REFUSALS = "20/minute"
"""Lines about those from one address who are not let in, or about a token that asks too much; neither may fill the disk."""

_PLAIN = re.compile(r"[\w.:/@+-]{1,300}", re.ASCII)


class Audit:
    """Writes the lines."""

    def __init__(self) -> None:
        self._refusals = Rate(REFUSALS)
        self._left_out: dict[str, int] = {}

    def change(self, action: str, *, by: str, address: str, outcome: str, **about: str) -> None:
        """Somebody asked for a change; `outcome` is the status, or the kind of problem."""
        _write(action, {"by": by, "from": address, "outcome": outcome, **about})

    def refused(self, action: str, *, address: str, outcome: str, by: str = NOBODY) -> None:
        """Somebody was not let in, or asked too much. Lines beyond the limit are counted, and the next line says how many there were."""
        place = f"{by} {neighbourhood(address)}"
        if not self._refusals.take(place):
            if len(self._left_out) < 1000 or place in self._left_out:
                self._left_out[place] = self._left_out.get(place, 0) + 1
            return
        left_out = self._left_out.pop(place, 0)
        _write(action, {"by": by, "from": address, "outcome": outcome, **({"left_out": str(left_out)} if left_out else {})})


def _write(action: str, facts: dict[str, str]) -> None:
    logger.info("%s %s", action, " ".join(f"{name}={_quoted(value)}" for name, value in facts.items()))


def _quoted(value: str) -> str:
    """As it is, or as a JSON string in ASCII: no value ends the line, looks like another field, or commands a terminal."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value[:300])
