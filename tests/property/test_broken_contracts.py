"""Whatever is wrong with a contract is said in one line: never a traceback, wherever a part is missing or another stands in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from handlers.contract.document import Contract
from handlers.errors import ContractError
from handlers.server.agreement import check_agreement

pytestmark = pytest.mark.slow

DOCUMENTS = {"openapi": Contract.load().openapi, "asyncapi": Contract.load().asyncapi}
REPLACEMENTS: list[Any] = [None, True, 5, "text", [], {}, [None], {"$ref": "#/nowhere"}, {"$ref": 5}, {"name": []}]


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document but those of its examples, which only tests read."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, inner in items:
        if step not in ("example", "examples"):
            yield (*place, step)
            yield from places(inner, (*place, step))


PLACES = [(name, place) for name, document in DOCUMENTS.items() for place in places(document)]


def changed(document: Any, place: tuple[Any, ...], replacement: Any) -> Any:
    document = copy.deepcopy(document)
    parent = document
    for step in place[:-1]:
        parent = parent[step]
    if replacement is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = replacement
    return document


def check(name: str, place: tuple[Any, ...], replacement: Any) -> None:
    try:
        check_agreement(Contract.of(**{**DOCUMENTS, name: changed(DOCUMENTS[name], place, replacement)}))
        event("still a contract")
    except ContractError as error:
        event("refused")
        assert str(error) and "\n" not in str(error)


@given(st.sampled_from(PLACES), st.sampled_from([..., *REPLACEMENTS]))
@example(("openapi", ("components", "schemas", "ProblemType", "enum", 0)), [])
@example(("asyncapi", ("operations",)), ...)
def test_a_changed_contract_is_harmless_or_reported_in_one_line(where: tuple[str, tuple[Any, ...]], replacement: Any) -> None:
    check(*where, replacement)


@given(st.sampled_from([(name, place) for name, place in PLACES if len(place) <= 2]))
def test_a_part_missing_near_the_top_is_reported_in_one_line(where: tuple[str, tuple[Any, ...]]) -> None:
    check(*where, ...)
