"""Logging of the service's processes for their operator: one line per event, on standard error."""

from __future__ import annotations

import logging
import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class PlainText(logging.Formatter):
    """Escapes control characters and changes of writing direction: messages and exceptions may quote what clients sent."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROLS.sub(_escaped, super().format(record))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainText("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # At the level INFO these libraries log every step.
    for talkative in ("alembic", "connexion", "werkzeug"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
