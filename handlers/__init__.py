"""All that a client touches. From here, one function an operation of `openapi/jobs.yaml`, under its operationId.

They are imported when they are asked for: the command line lives in this package too, and must not load the whole service.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.representations import Answer

_HOMES = {
    "catalogue": ("get_template", "list_job_types", "list_templates"),
    "documents": ("get_asyncapi", "get_docs", "get_event_docs", "get_openapi"),
    "jobs": ("cancel_job", "delete_job", "get_job", "list_jobs", "retry_job", "submit_job"),
    "logs": ("get_job_log", "list_job_events"),
    "service": ("get_liveness", "get_readiness", "get_stats", "get_whoami", "list_workers"),
    "tokens": ("create_token", "list_tokens", "revoke_token"),
}
OPERATIONS = {name: f"handlers.operations.{module}" for module, names in _HOMES.items() for name in names}


def operation(operation_id: str) -> Callable[..., Answer]:
    """The function of an operation. Raises KeyError."""
    function: Callable[..., Answer] = getattr(importlib.import_module(OPERATIONS[operation_id]), operation_id)
    return function
