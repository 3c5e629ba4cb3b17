"""The files of the built pages, and of Swagger UI, as Flask sends them."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

import flask

from handlers import pages


def serve_file(web: flask.Flask, url: str, path: Any) -> None:
    web.add_url_rule(url, f"file_{url}", lambda: flask.send_file(path, conditional=True, max_age=3600))


def add_pages(web: flask.Flask) -> None:
    """The built page at `/` and the files of all built pages; `/` leads to Swagger UI where there is none."""
    page = pages.page("index")

    def get_page() -> flask.Response:
        if page is None:
            return flask.redirect("api/docs")  # type: ignore[return-value]
        response = send_built(page)
        response.headers["Cache-Control"] = "no-cache"  # it names the files of its own build
        return response

    web.add_url_rule("/", "page", get_page)
    for name, path in pages.assets().items():
        web.add_url_rule(f"/console/{name}", f"console_{name}", lambda path=path: send_built(path, max_age=pages.FOREVER_SECONDS))


def send_built(path: Path, *, max_age: int | None = None) -> flask.Response:
    """A file of the build; its compressed copy if there is one and the client takes it."""
    packed = path.with_name(f"{path.name}.gz")
    if not packed.is_file():
        return flask.send_file(path, conditional=True, max_age=max_age)
    if flask.request.accept_encodings.quality("gzip") > 0:
        # Not by its own name: a file that ends in .gz would be one to be saved.
        response = flask.send_file(packed, mimetype=mimetypes.guess_type(path.name)[0], conditional=True, max_age=max_age)
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = flask.send_file(path, conditional=True, max_age=max_age)
    if max_age is not None:
        response.cache_control.immutable = True
    response.vary.add("Accept-Encoding")
    return response
