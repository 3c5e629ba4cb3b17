"""What the processes of the service say to their operator: one line an occurrence, on standard error."""

from __future__ import annotations

import logging


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # They tell every step at the level where we tell what matters.
    for talkative in ("alembic", "connexion", "werkzeug"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
