"""The built page as a browser asks for it: at `/`, under a strict policy, its files kept for ever; and what is there without a build."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import flask
import pytest
import requests

from handlers.web import built_pages, static_files
from handlers.web.gateway import CONTENT_SECURITY_POLICY
from support.server import RunningServer

ADDRESS = re.compile(r'(?:src|href)="(console/[^"]+)"')

needs_build = pytest.mark.skipif(built_pages.page("index") is None, reason="the page is not built; make console builds it")


def plain(url: str, **headers: str) -> requests.Response:
    """As the bytes came, nothing unpacked."""
    answer = requests.get(url, headers={"Accept-Encoding": "identity", **headers}, stream=True, timeout=10, allow_redirects=False)
    answer._content = answer.raw.read(decode_content=False)
    return answer


@needs_build
def test_the_page_comes_without_a_token_under_a_strict_policy(server: RunningServer) -> None:
    answer = plain(f"{server.url}/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Cache-Control"] == "no-cache"
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", answer.text), "nothing inline"


@needs_build
def test_files_of_the_build_are_cached_for_ever_and_compressed(server: RunningServer) -> None:
    addresses = ADDRESS.findall(plain(f"{server.url}/").text)
    assert any(address.endswith(".js") for address in addresses)
    for address in addresses:
        whole = plain(f"{server.url}/{address}")
        packed = plain(f"{server.url}/{address}", **{"Accept-Encoding": "gzip"})
        assert whole.headers["Cache-Control"] == packed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert packed.headers["Content-Type"] == whole.headers["Content-Type"]
        assert gzip.decompress(packed.content) == whole.content
        assert len(packed.content) < len(whole.content)
        assert plain(f"{server.url}/{address}", **{"If-None-Match": whole.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["console/", "console/index.html", "console/assets/none.js", "console/..%2fapp.py", "console/.built"])
def test_only_files_of_the_build_are_served(server: RunningServer, path: str) -> None:
    assert plain(f"{server.url}/{path}").status_code == 404


def test_files_of_swagger_ui_come_compressed_to_clients_that_accept_it(server: RunningServer) -> None:
    address = f"{server.url}/api/docs/assets/swagger-ui-bundle.js"
    whole, packed = plain(address), plain(address, **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in whole.headers
    assert whole.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Content-Type"] == whole.headers["Content-Type"]
    assert gzip.decompress(packed.content) == whole.content
    assert len(packed.content) < len(whole.content) / 2
    assert whole.headers["ETag"] != packed.headers["ETag"]
    assert plain(address, **{"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}).status_code == 304


def test_without_a_build_the_root_redirects_to_swagger_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_pages, "FOLDER", tmp_path / "never-built")
    web = flask.Flask("unbuilt")
    static_files.add_pages(web)
    answer = web.test_client().get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "api/docs")


def test_an_incomplete_build_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_pages, "FOLDER", tmp_path)
    (tmp_path / "index.html").write_text("half")
    assert built_pages.page("index") is None
    assert built_pages.assets() == {}
