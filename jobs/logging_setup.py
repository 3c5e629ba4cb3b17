"""What the processes of the service say to their operator: one line an occurrence, on standard error."""

from __future__ import annotations

import logging
import re

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class PlainText(logging.Formatter):
    """What clients sent may be in a message, or in an exception: no terminal that shows it shall obey, or turn its writing around."""

    def format(self, record: logging.LogRecord) -> str:
        return _COMMANDS.sub(_spelled_out, super().format(record))


def _spelled_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainText("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # They tell every step at the level where we tell what matters.
    for talkative in ("alembic", "connexion", "werkzeug"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
