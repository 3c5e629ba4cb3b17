"""Serves the application's pages over HTTP, on loopback only.

Setting `exts/sample.web/port`: the port to listen on; 0, the default, picks a free one.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
_running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []


def start(app: Any) -> None:
    port = app.setting("exts/sample.web/port", 0)
    try:
        server = ThreadingHTTPServer((HOST, port), handler(app))
    except OSError as error:
        raise SystemExit(f"{app.name}: cannot listen on {HOST}:{port}: {error.strerror}") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="web")
    _running.append((server, thread))


def ready(app: Any) -> None:
    """Only now: an address that is printed answers with every page."""
    for server, thread in _running:
        thread.start()
        print(f"listening on http://{HOST}:{server.server_port}/", flush=True)


def stop(app: Any) -> None:
    while _running:
        server, thread = _running.pop()
        server.shutdown()
        thread.join()
        server.server_close()


def handler(app: Any) -> type[BaseHTTPRequestHandler]:
    """The request handler class for the pages of `app`."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "sample.web"
        sys_version = ""
        timeout = 30

        def do_GET(self) -> None:
            page = app.pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            media_type, content = page()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            path = "".join(sign if sign.isprintable() else "?" for sign in self.path)
            print(f"{self.command} {path} {int(code)}", flush=True)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing more: each request is one line."""

    return Handler
