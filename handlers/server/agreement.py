"""Holds the contracts against the code at start-up. What only one side knows stops the server with one clear line; nothing is mended."""

from __future__ import annotations

import importlib
import inspect

from handlers import OPERATIONS
from handlers.contract.document import Contract
from handlers.errors import ContractError
from handlers.events.sockets import EVENTS_IN, EVENTS_OUT
from handlers.problems import PROBLEM_TYPES
from jobs.model import JobType, Reason, Scope, Status, Stream, WaitingFor


def check_agreement(contract: Contract) -> None:
    """Raises ContractError with the first difference."""
    contract.agree(
        handlers=frozenset(OPERATIONS),
        events_in=EVENTS_IN,
        events_out=EVENTS_OUT,
        problem_types=PROBLEM_TYPES,
        statuses=frozenset(Status),
        reasons=frozenset(Reason),
        job_types=frozenset(JobType),
        waiting_for=frozenset(WaitingFor),
        streams=frozenset(Stream),
        scopes=frozenset(Scope),
    )
    _check_functions()


def _check_functions() -> None:
    """Every operation has its function where the table of the package says, and no other function looks like one."""
    listed, there = set(OPERATIONS.items()), set()
    for module in map(importlib.import_module, sorted(set(OPERATIONS.values()))):
        functions = inspect.getmembers(module, inspect.isfunction)
        there |= {(name, module.__name__) for name, one in functions if one.__module__ == module.__name__ and not name.startswith("_")}
    for name, home in sorted(listed - there):
        raise ContractError(f"handlers/__init__.py has the operation {name} in {home}, but {home} has not")
    for name, home in sorted(there - listed):
        raise ContractError(f"{home} has the function {name}, but handlers/__init__.py has not")
