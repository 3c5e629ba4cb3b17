"""What Swagger UI is started with: the contract, whose parameters start empty, under a policy that lets nothing foreign in."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from handlers.contract.document import METHODS, Contract
from handlers.web import swagger
from handlers.web.gateway import CONTENT_SECURITY_POLICY
from support.server import RunningServer

NODE_TOOLS = Path(__file__).parents[1] / "node" / "run.py"
CAPTURE = """
const [file, contract] = process.argv.slice(1)
const noted = {}
globalThis.document = { documentElement: { classList: { toggle() {} }, dataset: {} } }
globalThis.MutationObserver = class { observe() {} }
globalThis.window = { matchMedia: () => ({ addEventListener() {} }), SwaggerUIBundle: options => Object.assign(noted, options) }
require(file)
const { updateJsonSpec } = noted.plugins[0].statePlugins.spec.wrapActions
updateJsonSpec(shown => console.log(JSON.stringify({ url: noted.url, validatorUrl: noted.validatorUrl, shown })))(
  JSON.parse(require('fs').readFileSync(contract, 'utf8')),
)
"""


@pytest.mark.builds
@pytest.mark.timeout(300)  # the first run on a machine installs the tools
def test_swagger_page_shows_the_contract_with_empty_parameters(tmp_path: Path) -> None:
    contract = json.loads(json.dumps(Contract.load().openapi, default=str))
    (tmp_path / "openapi.json").write_text(json.dumps(contract))
    command = [str(NODE_TOOLS), "node", "-e", CAPTURE, str(swagger.assets()["swagger-initializer.js"]), str(tmp_path / "openapi.json")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["url"], said["validatorUrl"]) == ("openapi.json", None)
    wanted, dropped = without_parameter_examples(contract)
    assert said["shown"] == wanted
    assert dropped > 10


def without_parameter_examples(contract: dict[str, Any]) -> tuple[dict[str, Any], int]:
    changed, dropped = copy.deepcopy(contract), 0
    items = list(changed["paths"].values())
    holders = [*items, *(item[method] for item in items for method in METHODS if method in item)]
    for parameter in [*changed["components"]["parameters"].values(), *(p for holder in holders for p in holder.get("parameters", []))]:
        dropped += parameter.pop("example", None) is not None
    return changed, dropped


@pytest.mark.parametrize("path", ["/docs", "/docs/events"])
def test_pages_come_under_a_strict_policy(server: RunningServer, path: str) -> None:
    policy = server.call("GET", path).headers["Content-Security-Policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    for directive in ("object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert directive in policy
