"""How Schemathesis meets the service behind the door, and not the same refusal again and again.

Its coverage phase sends the contract's example of an `Idempotency-Key` with every body that it varies, which would be the same conflict
hundreds of times, so that hardly a job was ever submitted.
"""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis

from handlers.contract.document import Contract

EXAMPLE = Contract.load().openapi["components"]["parameters"]["IdempotencyKey"]["example"]
_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case[Any], _kwargs: dict[str, Any]) -> None:
    """A key of its own for each submission that carries the example."""
    if case.headers and case.headers.get("Idempotency-Key") == EXAMPLE:
        case.headers["Idempotency-Key"] = f"{EXAMPLE}-{next(_numbers)}"
