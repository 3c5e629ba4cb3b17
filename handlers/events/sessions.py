"""Which token each connection was opened with. When a token expires or is revoked, its connections are closed.

This module does not know the library that carries the connections: a callback closes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from jobs.errors import Unauthenticated, Unavailable
from jobs.model import Caller
from jobs.store.tokens import Tokens

logger = logging.getLogger("runcast.sockets")

TOKEN_POLL_INTERVAL_SECONDS = 1.0


class Sessions:
    """`disconnect` is called with the connection, and with the error that its client is told."""

    def __init__(self, tokens: Tokens, disconnect: Callable[[str, Unauthenticated], None]) -> None:
        self._tokens = tokens
        self._disconnect = disconnect
        self._callers: dict[str, Caller] = {}
        self._checking = False

    def open(self, sid: str, caller: Caller) -> None:
        self._callers[sid] = caller
        if not self._checking:
            self._checking = True
            gevent.spawn(self._run)

    def close(self, sid: str) -> None:
        self._callers.pop(sid, None)

    def caller(self, sid: str) -> Caller:
        """The caller whose token the connection was opened with, if that is still valid. Raises Unauthenticated."""
        caller = self._callers.get(sid)
        if caller is None:
            raise Unauthenticated("The token of this connection is no longer valid.")
        self._tokens.check(caller)
        return caller

    def _run(self) -> None:
        try:
            while self._callers:
                gevent.sleep(TOKEN_POLL_INTERVAL_SECONDS)
                try:
                    self._disconnect_ended()
                except Unavailable as error:
                    logger.warning("%s Checking the tokens of connections again.", error)
        finally:
            self._checking = False

    def _disconnect_ended(self) -> None:
        for sid, caller in list(self._callers.items()):
            try:
                self._tokens.check(caller)
            except Unauthenticated as error:
                self.close(sid)
                self._disconnect(sid, error)
