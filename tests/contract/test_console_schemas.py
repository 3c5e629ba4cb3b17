"""The console for events judges payloads in the browser, with code of its own; the server judges them with Rust. They have to agree.

Asked are both about every example of the contract, and about each with one thing changed: left out, added, of another type, out of bounds.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.contract.document import Contract
from handlers.web import built_pages

ROOT = Path(__file__).parents[2]
NODE_TOOLS = ROOT / "tests" / "node" / "run.py"
JUDGE = """
const { readFileSync } = require('node:fs')
const [module, folder] = process.argv.slice(1)
const read = name => JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8'))
import(module).then(({ Schemas }) => {
  const schemas = new Schemas(read('asyncapi'), read('openapi'))
  console.log(JSON.stringify(read('cases').map(([message, payload]) => schemas.violations(message, payload))))
})
"""
OTHERS: tuple[Any, ...] = (None, True, -1, 1.5, 1e300, "", "x" * 5000, "\n", [], ["x"], {}, {"unknown": 1})

pytestmark = pytest.mark.skipif(built_pages.page("events") is None, reason="the pages are not built; `make console` builds them")


@pytest.mark.builds
@pytest.mark.timeout(300)  # the first run on a machine installs the tools
def test_browser_and_server_agree_on_violations(tmp_path: Path) -> None:
    contract = Contract.load()
    cases = [(name, payload) for name, example in examples(contract) for payload in (example, *changed(example))]
    expected = [bool(violations(contract, name, payload)) for name, payload in cases]
    assert len(cases) > 2000
    assert 0.02 < expected.count(False) / len(cases) < 0.5, "some of all are right"

    documents = {"asyncapi": contract.published_asyncapi(host="127.0.0.1"), "openapi": contract.openapi, "cases": cases}
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document, default=str))
    module = (ROOT / "console" / "src" / "events" / "schemas.ts").as_uri()
    done = subprocess.run([sys.executable, str(NODE_TOOLS), "node", "-e", JUDGE, module, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    assert [(case, found) for case, wrong, found in zip(cases, expected, judged, strict=True) if bool(found) != wrong] == []
    assert all(violation["pointer"].startswith("#") and violation["detail"] for found in judged for violation in found)


def violations(contract: Contract, name: str, payload: Any) -> list[Any]:
    """By the server's own checks: of what it sends, of what it acknowledges, and of what it gets."""
    if name in contract.events_out:
        return contract.event_violations(name, payload)
    if name in contract.events_in:
        return list(contract.message_violations(name, payload))
    return contract.ack_violations({"connect_error": "connect"}.get(name, name.removesuffix("_ack")), payload)


def examples(contract: Contract) -> Iterator[tuple[str, Any]]:
    for message in contract.asyncapi["components"]["messages"].values():
        for example in message.get("examples", ()):
            yield message["name"], json.loads(json.dumps(example["payload"], default=str))


def changed(payload: Any) -> Iterator[Any]:
    """The payload with one thing changed, for every thing in it."""
    for path in paths(payload):
        for other in OTHERS:
            yield replaced(payload, path, other)
        if path:
            yield replaced(payload, path, None, leave_out=True)


def paths(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, member in members:
        yield from paths(member, (*path, key))


def replaced(payload: Any, path: tuple[str | int, ...], other: Any, *, leave_out: bool = False) -> Any:
    if not path:
        return other
    result = copy.deepcopy(payload)
    holder = result
    for step in path[:-1]:
        holder = holder[step]
    if leave_out:
        del holder[path[-1]]
    else:
        holder[path[-1]] = other
    return result
