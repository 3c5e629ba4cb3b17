"""What the processes of the service say to their operator: one line an occurrence, on standard error."""

from __future__ import annotations

import logging
import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainText(logging.Formatter):
    """What clients sent may be in a message, or in an exception: no terminal that shows the log shall obey it."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().format(record))


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainText("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # They tell every step at the level where we tell what matters.
    for talkative in ("alembic", "connexion", "werkzeug"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
