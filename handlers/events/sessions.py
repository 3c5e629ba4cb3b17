"""Whose token each connection was opened with. A token that ends takes its connections with it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from jobs.errors import Unauthenticated, Unavailable
from jobs.model import Caller
from jobs.store.tokens import Tokens

logger = logging.getLogger("runcast.sockets")

LOOK_SECONDS = 1.0


class Sessions:
    """`dismiss` is told the connection, and why its client has to go."""

    def __init__(self, tokens: Tokens, dismiss: Callable[[str, Unauthenticated], None]) -> None:
        self._tokens = tokens
        self._dismiss = dismiss
        self._callers: dict[str, Caller] = {}
        self._looking = False

    def open(self, sid: str, caller: Caller) -> None:
        self._callers[sid] = caller
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)

    def close(self, sid: str) -> None:
        self._callers.pop(sid, None)

    def caller(self, sid: str) -> Caller:
        """Who sends, as far as the token is still good. Raises Unauthenticated."""
        caller = self._callers.get(sid)
        if caller is None:
            raise Unauthenticated("The token of this connection has ended.")
        self._tokens.check(caller)
        return caller

    def _look(self) -> None:
        try:
            while self._callers:
                gevent.sleep(LOOK_SECONDS)
                try:
                    self._dismiss_ended()
                except Unavailable as error:
                    logger.warning("%s Looking for ended tokens again.", error)
        finally:
            self._looking = False

    def _dismiss_ended(self) -> None:
        for sid, caller in list(self._callers.items()):
            try:
                self._tokens.check(caller)
            except Unauthenticated as error:
                self.close(sid)
                self._dismiss(sid, error)
