"""Serves the files of the built pages and of Swagger UI with Flask, compressed where the client accepts it."""

from __future__ import annotations

import gzip
import mimetypes
from functools import cache
from io import BytesIO
from pathlib import Path

import flask

from handlers.web import built_pages

HOUR_SECONDS = 3600


def serve_file(web: flask.Flask, url: str, path: Path) -> None:
    """Serve a file of a package. It has no compressed copy beside it, so one is made."""
    web.add_url_rule(url, f"file_{url}", lambda: send_compressed(path) if accepts_gzip() else send_plain(path, max_age=HOUR_SECONDS))


def send_compressed(path: Path) -> flask.Response:
    response = flask.send_file(
        BytesIO(compressed(path)),
        mimetype=mimetypes.guess_type(path.name)[0],
        conditional=True,
        etag=f"{path.stat().st_mtime_ns:x}-gzip",
        max_age=HOUR_SECONDS,
    )
    response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    return response


@cache
def compressed(path: Path) -> bytes:
    """Made at the first request, and kept."""
    return gzip.compress(path.read_bytes(), mtime=0)


def send_plain(path: Path, *, max_age: int | None) -> flask.Response:
    response = flask.send_file(path, conditional=True, max_age=max_age)
    response.vary.add("Accept-Encoding")
    return response


def accepts_gzip() -> bool:
    return flask.request.accept_encodings.quality("gzip") > 0


def add_pages(web: flask.Flask) -> None:
    """Serve the built page at `/`, and the files of all built pages. Where there is none, `/` redirects to Swagger UI."""
    page = built_pages.page("index")

    def get_page() -> flask.Response:
        if page is None:
            return flask.redirect("api/docs")  # type: ignore[return-value]
        response = send_built(page)
        response.headers["Cache-Control"] = "no-cache"  # it refers to the assets of its own build
        return response

    web.add_url_rule("/", "page", get_page)
    for name, path in built_pages.assets().items():
        web.add_url_rule(f"/console/{name}", f"console_{name}", lambda path=path: send_built(path, max_age=built_pages.FOREVER_SECONDS))


def send_built(path: Path, *, max_age: int | None = None) -> flask.Response:
    """A file of the build, or its compressed copy if there is one and the client accepts it."""
    copy = path.with_name(f"{path.name}.gz")
    if not copy.is_file():
        return flask.send_file(path, conditional=True, max_age=max_age)
    if accepts_gzip():
        # The type is that of the original name: a browser would offer to save a .gz file.
        response = flask.send_file(copy, mimetype=mimetypes.guess_type(path.name)[0], conditional=True, max_age=max_age)
        response.headers["Content-Encoding"] = "gzip"
        response.vary.add("Accept-Encoding")
    else:
        response = send_plain(path, max_age=max_age)
    if max_age is not None:
        response.cache_control.immutable = True
    return response
