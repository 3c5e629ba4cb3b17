"""What the WSGI layers share: their types, and whether the client has closed its connection."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from typing import Any

from gevent.monkey import get_original

from jobs.errors import RuncastError

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""An application, or a layer around one."""
Refuse = Callable[[RuncastError, Callable[..., Any]], Iterable[bytes]]
"""Answers a request with the problem of an error."""

_poll = get_original("select", "poll")  # gevent's own does not report the end of a connection
_POLLRDHUP = getattr(select, "POLLRDHUP", select.POLLHUP)


def client_has_closed(connection: Any) -> bool:
    """Whether the client has closed its end of a connection. Asked only while nothing is read from the connection or sent to it."""
    if connection is None or connection.fileno() < 0:
        return False
    poll = _poll()
    poll.register(connection.fileno(), _POLLRDHUP)
    return bool(poll.poll(0))
