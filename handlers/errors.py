"""Errors in what a client sends or may do, and contracts that the server cannot use. They continue the tree of `jobs/errors.py`.

RuncastError
├─ TooMuch
│  └─ RateLimited          too many calls in too short a time
├─ InvalidRequest          the request does not match the contract
│  ├─ AddressNotFound      the server has no such address
│  ├─ MethodNotAllowed     the address does not support the method
│  ├─ NotAcceptable        the client accepts none of the available media types
│  ├─ TooLarge             the body is too large
│  ├─ TooSlow              the body did not arrive in time
│  └─ UnsupportedMediaType the body is not JSON
├─ Forbidden               the token lacks the scope
├─ OriginRefused           the host or the origin is not allowed
└─ ContractError           a contract cannot be read, or differs from the code

`handlers/problems.py` maps these and the errors of `jobs/errors.py` to problems. Only ContractError never reaches a client.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.errors import RuncastError, TooMuch


class RateLimited(TooMuch):
    """A token makes too many calls, or an address sends too many wrong tokens."""


class InvalidRequest(RuncastError):
    """The request does not match the contract; `violations` says where."""


class AddressNotFound(InvalidRequest):
    """The server has no such address."""


class MethodNotAllowed(InvalidRequest):
    """The address does not support the method, only those in `allowed`."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"This address does not support {method}, only {', '.join(allowed)}.")
        self.allowed = tuple(allowed)


class NotAcceptable(InvalidRequest):
    """The client accepts none of the media types that the answer is available in."""


class TooLarge(InvalidRequest):
    """The body is too large."""


class TooSlow(InvalidRequest):
    """The body did not arrive in time."""


class UnsupportedMediaType(InvalidRequest):
    """The body is not JSON."""


class Forbidden(RuncastError):
    """The token lacks the scope that the call needs."""


class OriginRefused(RuncastError):
    """The request names a host, or comes from an origin, that this server does not accept."""


class ContractError(RuncastError):
    """A contract cannot be read, or differs from the code. The message is one line, and the server does not start."""
