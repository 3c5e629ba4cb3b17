"""What the WSGI layers have in common: their types, and whether the client at the other end has gone."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from typing import Any

from gevent.monkey import get_original

from jobs.errors import RuncastError

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""An application, or a layer around one."""
Refuse = Callable[[RuncastError, Callable[..., Any]], Iterable[bytes]]
"""Answers a request with the problem that an error stands for."""

poll = get_original("select", "poll")  # gevent's own does not report the end of a connection
POLLRDHUP = getattr(select, "POLLRDHUP", select.POLLHUP)


def has_left(connection: Any) -> bool:
    """Whether the client has closed its end of a connection that nothing is read from or sent to at the moment."""
    if connection is None or connection.fileno() < 0:
        return False
    look = poll()
    look.register(connection.fileno(), POLLRDHUP)
    return bool(look.poll(0))
