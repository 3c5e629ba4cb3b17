"""The contracts and the code: what only one side has is reported in one clear line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.contract.document import Contract
from handlers.errors import ContractError
from handlers.operations import functions_of, module_of
from handlers.server.agreement import Comparison, check_agreement, name_comparisons, operation_comparisons

OPENAPI, ASYNCAPI = "openapi/jobs.yaml", "openapi/jobs.asyncapi.yaml"


def comparisons(contract: Contract) -> list[Comparison]:
    return [*operation_comparisons(contract.operations.values()), *name_comparisons(contract)]


ALL = comparisons(Contract.load())


def test_the_code_agrees_with_the_contracts() -> None:
    check_agreement(Contract.load())


def test_everything_that_both_sides_name_is_compared() -> None:
    assert [(comparison.kind, comparison.document, comparison.file) for comparison in ALL] == [
        *(
            ("operation", f"the tag {module} of {OPENAPI}", f"handlers/operations/{module}.py")
            for module in ("catalogue", "documents", "jobs", "logs", "service", "tokens")
        ),
        ("event from clients", ASYNCAPI, "handlers/events/sockets.py"),
        ("event to clients", ASYNCAPI, "handlers/events/sockets.py"),
        ("problem type", OPENAPI, "handlers/problems.py"),
        ("status", OPENAPI, "jobs/model.py"),
        ("reason", OPENAPI, "jobs/model.py"),
        ("job type", OPENAPI, "jobs/model.py"),
        ("waiting_for value", OPENAPI, "jobs/model.py"),
        ("stream", OPENAPI, "jobs/model.py"),
        ("scope", OPENAPI, "jobs/model.py"),
    ]
    assert all(comparison.documented and comparison.documented == comparison.coded for comparison in ALL)


@pytest.mark.parametrize("comparison", ALL, ids=lambda comparison: f"{comparison.kind} {comparison.file}")
def test_a_name_that_only_one_side_has_is_one_clear_line(comparison: Comparison) -> None:
    gone = min(comparison.documented)
    with pytest.raises(ContractError, match=rf"^{comparison.document} has the {comparison.kind} {gone}, but {comparison.file} does not$"):
        replace(comparison, coded=comparison.coded - {gone}).check()
    with pytest.raises(ContractError, match=rf"^{comparison.file} has the {comparison.kind} zebra, but {comparison.document} does not$"):
        replace(comparison, coded=comparison.coded | {"zebra"}).check()


def test_a_tag_without_a_module_is_one_clear_line() -> None:
    operation = replace(Contract.load().operations["get_stats"], tag="key figures")
    line = r"^openapi/jobs\.yaml has the tag key figures, but handlers/operations/key_figures\.py does not exist$"
    with pytest.raises(ContractError, match=line):
        list(operation_comparisons([operation]))


def test_the_function_of_an_operation_is_found_by_its_tag() -> None:
    operations = Contract.load().operations
    functions = functions_of(operations.values())
    assert set(functions) == set(operations)
    for name, function in functions.items():
        assert (function.__name__, function.__module__) == (name, f"handlers.operations.{operations[name].tag}")


def test_a_tag_may_have_several_words() -> None:
    assert module_of("key-figures of the day") == "key_figures_of_the_day"
