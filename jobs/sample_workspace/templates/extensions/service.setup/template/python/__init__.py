"""The endpoints of the service."""

from __future__ import annotations

import json
import time
from typing import Any

_started = time.monotonic()


def start(app: Any) -> None:
    app.pages["/status"] = lambda: ("application/json", json.dumps(status(app)).encode())


def status(app: Any) -> dict[str, Any]:
    """What `GET /status` answers."""
    return {"service": app.name, "version": app.version, "seconds": round(time.monotonic() - _started, 3)}
