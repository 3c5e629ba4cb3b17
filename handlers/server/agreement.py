"""Compares the contracts with the code at start-up. What only one side knows stops the server with one clear line; nothing is repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from handlers.contract.document import Contract, Operation
from handlers.contract.source import ASYNCAPI, OPENAPI
from handlers.errors import ContractError
from handlers.events.sockets import EVENTS_IN, EVENTS_OUT
from handlers.operations import functions_in, module_names, module_of
from handlers.problems import PROBLEM_TYPES
from jobs.model import JobType, Reason, Scope, Status, Stream, WaitingFor

EVENTS = "handlers/events/sockets.py"
MODEL = "jobs/model.py"
PROBLEMS = "handlers/problems.py"


@dataclass(frozen=True)
class Comparison:
    """The names of one kind: those in a contract, or under one of its tags, and those in a file of the code."""

    kind: str
    document: str
    documented: AbstractSet[str]
    file: str
    coded: AbstractSet[str]

    def check(self) -> None:
        """Raises ContractError with the first name that only one side has."""
        for name in sorted(self.documented - self.coded, key=str):
            raise ContractError(f"{self.document} has the {self.kind} {name}, but {self.file} does not")
        for name in sorted(self.coded - self.documented, key=str):
            raise ContractError(f"{self.file} has the {self.kind} {name}, but {self.document} does not")


def check_agreement(contract: Contract) -> None:
    """Raises ContractError with the first difference."""
    contract.check_references()
    for comparison in (*operation_comparisons(contract.operations.values()), *name_comparisons(contract)):
        comparison.check()


def operation_comparisons(operations: Iterable[Operation]) -> Iterator[Comparison]:
    """One for each module of `handlers.operations`. Raises ContractError for a tag that has no module."""
    documented: dict[str, set[str]] = {name: set() for name in module_names()}
    for operation in operations:
        module = module_of(operation.tag)
        if module not in documented:
            raise ContractError(f"{OPENAPI} has the tag {operation.tag}, but {_file(module)} does not exist")
        documented[module].add(operation.operation_id)
    for module, names in sorted(documented.items()):
        yield Comparison("operation", f"the tag {module} of {OPENAPI}", names, _file(module), frozenset(functions_in(module)))


def name_comparisons(contract: Contract) -> Iterator[Comparison]:
    """Events, problem types and the words of the domain."""
    yield Comparison("event from clients", ASYNCAPI, contract.events_in, EVENTS, EVENTS_IN)
    yield Comparison("event to clients", ASYNCAPI, contract.events_out, EVENTS, EVENTS_OUT)
    yield Comparison("problem type", OPENAPI, contract.enum("ProblemType"), PROBLEMS, PROBLEM_TYPES)
    yield Comparison("status", OPENAPI, contract.enum("Status"), MODEL, frozenset(Status))
    yield Comparison("reason", OPENAPI, contract.enum("Reason"), MODEL, frozenset(Reason))
    yield Comparison("job type", OPENAPI, contract.enum("JobType"), MODEL, frozenset(JobType))
    yield Comparison("waiting_for value", OPENAPI, contract.enum("Job", "properties", "waiting_for"), MODEL, frozenset(WaitingFor))
    yield Comparison("stream", OPENAPI, contract.enum("Stream"), MODEL, frozenset(Stream))
    yield Comparison("scope", OPENAPI, contract.enum("Scope"), MODEL, frozenset(Scope))


def _file(module: str) -> str:
    return f"handlers/operations/{module}.py"
