"""The documentation pages: Swagger UI for the HTTP contract, and a page of our own for the events, made from their document.

Pure functions and files. Every address in a page is relative, so that it works behind a proxy with a path prefix; no page holds a script
or a style, so that a strict Content-Security-Policy may be set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path

from handlers.web.schema_tables import Schema, SchemaTables, inline_markdown, markdown
from jobs.model import Json

OWN_ASSETS = ("pages.css", "swagger.css", "swagger-initializer.js")
SWAGGER_UI_ASSETS = ("favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css")
_DIRECTIONS = {"receive": "client → server", "send": "server → client"}


def assets() -> dict[str, Path]:
    """The files of both pages by name; served under `docs/assets/`."""
    own = Path(__file__).parent / "assets"
    swagger_ui = _swagger_ui()
    return {name: own / name for name in OWN_ASSETS} | {name: swagger_ui / name for name in SWAGGER_UI_ASSETS}


def _swagger_ui() -> Path:
    """The folder with Swagger UI's files, which the package flask-swagger-ui ships; nothing of its code is used."""
    spec = find_spec("flask_swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package flask-swagger-ui, which has the files of Swagger UI, is not installed")
    return Path(spec.submodule_search_locations[0]) / "dist"


def swagger_page() -> str:
    """The page at `docs`."""
    return _page(
        title="runcast jobs",
        here="docs",
        assets="docs/assets",
        styles=("swagger-ui.css", "swagger.css", "pages.css"),
        links={"HTTP": "docs", "Events": "docs/events", "openapi.json": "openapi.json"},
        body='<div id="swagger-ui"></div>\n'
        '<script src="docs/assets/swagger-ui-bundle.js"></script>\n'
        '<script src="docs/assets/swagger-initializer.js"></script>',
    )


def events_page(document: Mapping[str, Json], openapi: Mapping[str, Json]) -> str:
    """The page at `docs/events`. `document` is the events contract; its references go into `openapi`."""
    info = document["info"]
    return _page(
        title=info["title"],
        here="../docs/events",
        assets="assets",
        styles=("pages.css",),
        links={"HTTP": "../docs", "Events": "../docs/events", "asyncapi.json": "../asyncapi.json"},
        body=f'<main class="events">\n{"".join(_events(document, openapi))}</main>',
    )


def _page(*, title: str, here: str, assets: str, styles: tuple[str, ...], links: Mapping[str, str], body: str) -> str:
    sheets = "\n".join(f'<link rel="stylesheet" href="{assets}/{style}">' for style in styles)
    anchors = "\n".join(f'<a href="{url}"{" aria-current=page" if url == here else ""}>{name}</a>' for name, url in links.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="{assets}/favicon-32x32.png">
{sheets}
</head>
<body>
<nav class="bar" aria-label="Documents">
<strong>runcast</strong>
{anchors}
</nav>
{body}
</body>
</html>
"""


def _events(document: Mapping[str, Json], openapi: Mapping[str, Json]) -> Iterator[str]:
    info = document["info"]
    tables = SchemaTables(openapi)
    operations = document["operations"]
    yield f'<h1>{escape(info["title"])}</h1>\n<p class="faint">Version {escape(info["version"])}</p>\n'
    yield '<ul class="contents">' + "".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name in operations)
    yield '<li><a href="#connecting">how to connect</a></li><li><a href="#types">types</a></li></ul>\n'
    yield markdown(info["description"])
    yield f'<h2 id="connecting">How to connect</h2>\n{_connecting(document["servers"]["this"])}'
    for action, heading in (("receive", "From client to server"), ("send", "From server to client")):
        yield f"<h2>{heading}</h2>\n"
        for name, operation in operations.items():
            if operation["action"] == action:
                yield from _operation(name, operation, document, tables)
    yield '<h2 id="types">Types</h2>\n<p>Shared with the HTTP contract.</p>\n'
    yield from _types(tables)


def _operation(name: str, operation: Mapping[str, Json], document: Mapping[str, Json], tables: SchemaTables) -> Iterator[str]:
    action = operation["action"]
    yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code><span class="badge {action}">{_DIRECTIONS[action]}</span></h3>\n'
    yield f"<p><strong>{inline_markdown(operation['summary'])}.</strong></p>\n{markdown(operation['description'])}"
    for message in _messages(operation, document):
        yield from _message(message, document, tables)
    for message in _messages(operation.get("reply", {}), document):
        yield f"<h4>{'Refusal' if message['name'] == 'connect_error' else 'Acknowledgement'}</h4>\n"
        yield from _message(message, document, tables)


def _messages(holder: Mapping[str, Json], document: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    for message in holder.get("messages", ()):
        while "$ref" in message:
            reference = message["$ref"]
            message = document
            for step in reference.removeprefix("#/").split("/"):
                message = message[step]
        yield message


def _message(message: Mapping[str, Json], document: Mapping[str, Json], tables: SchemaTables) -> Iterator[str]:
    yield f"<p>{inline_markdown(message['summary'])}</p>\n"
    if "payload" in message:
        yield tables.tables(Schema(message["payload"]["schema"], document)) + "\n"
    for example in message.get("examples", ()):
        yield f'<p class="faint">{inline_markdown(example["summary"])}</p>\n'
        yield f"<pre><code>{escape(json.dumps(example['payload'], indent=2, ensure_ascii=False))}</code></pre>\n"


def _types(tables: SchemaTables) -> Iterator[str]:
    done: set[str] = set()
    while missing := [name for name in tables.linked if name not in done]:  # a table may link to more
        for name in missing:
            done.add(name)
            schema = tables.linked[name]
            table = tables.tables(Schema(schema.node, schema.home))
            yield f'<h3 id="type-{escape(name)}"><code>{escape(name)}</code></h3>\n{table}\n'


def _connecting(server: Mapping[str, Json]) -> str:
    url = ("https" if server["protocol"] == "wss" else "http") + f"://{server['host']}"
    path = server["pathname"]
    plain = path == "/socket.io"
    javascript = _JAVASCRIPT.replace("URL", json.dumps(url)).replace("PATH", "" if plain else f"path: {json.dumps(path)}, ")
    python = _PYTHON.replace("URL", json.dumps(url)).replace("PATH", "" if plain else f", socketio_path={json.dumps(path)}")
    return (
        "<p>Both programs print a job's log to its end, also across lost connections.</p>\n"
        f"<h4>JavaScript</h4>\n<pre><code>{escape(javascript)}</code></pre>\n<h4>Python</h4>\n<pre><code>{escape(python)}</code></pre>\n"
    )


_JAVASCRIPT = """import { io } from 'socket.io-client'

const [token, job_id] = process.argv.slice(2)
const socket = io(URL, { PATHauth: { token } })
let seen = 0

socket.on('connect', async () => {
  if (!socket.connected) return // lost again while the events of the last connection were told
  const answer = await socket.emitWithAck('subscribe', { job_id, after_seq: seen }).catch(() => null)
  if (answer && !answer.ok) throw new Error(answer.problem.detail)
})
socket.on('log', ({ first_seq, lines }) => {
  seen = first_seq + lines.length - 1
  for (const line of lines) console.log(line)
})
socket.on('complete', ({ status }) => {
  console.log(status)
  socket.close()
})
socket.on('connect_error', error => console.error(error.data?.detail ?? error.message))"""

_PYTHON = """import asyncio
import sys

import socketio

token, job_id = sys.argv[1:]
client = socketio.AsyncClient()  # in order, unlike the threads of socketio.Client
seen = 0


@client.event
async def connect():
    await client.emit("subscribe", {"job_id": job_id, "after_seq": seen}, callback=subscribed)


async def subscribed(answer):
    if not answer["ok"]:
        print(answer["problem"]["detail"])
        await client.disconnect()


@client.event
def log(event):
    global seen
    seen = event["first_seq"] + len(event["lines"]) - 1
    print(*event["lines"], sep="\\n")


@client.event
async def complete(event):
    print(event["status"])
    await client.disconnect()


async def main():
    await client.connect(URL, auth={"token": token}PATH)
    await client.wait()


asyncio.run(main())"""
