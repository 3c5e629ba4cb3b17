"""The HTTP operations: one module for each tag of `openapi/jobs.yaml`, one function for each operationId.

They know no web framework and no SQL. The modules are imported when their functions are asked for, because the command line lives in
`handlers`, too, and must not load the service.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.contract.document import Operation
    from handlers.representations import Answer

    OperationFunction = Callable[..., Answer]


def module_names() -> frozenset[str]:
    """The modules of this package."""
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))


def module_of(tag: str) -> str:
    """The name of the module that holds the operations with this tag."""
    return tag.replace("-", "_").replace(" ", "_")


def functions_in(module_name: str) -> dict[str, OperationFunction]:
    """The public functions that a module of this package defines, by name."""
    module = importlib.import_module(f"{__name__}.{module_name}")
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name: function for name, function in functions if function.__module__ == module.__name__ and not name.startswith("_")}


def functions_of(operations: Iterable[Operation]) -> dict[str, OperationFunction]:
    """The function of each operation, by operationId. Raises KeyError where there is none, which the agreement check finds first."""
    return {operation.operation_id: functions_in(module_of(operation.tag))[operation.operation_id] for operation in operations}
