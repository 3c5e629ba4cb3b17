from __future__ import annotations

import contextlib
import importlib
import io
import unittest
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

web: Any = importlib.import_module("exts.sample_web")


class ServerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.printed = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.printed))
        app = SimpleNamespace(name="test", pages={"/": lambda: ("text/plain", b"hello")}, setting=lambda path, default: default)
        web.start(app)
        self.addCleanup(web.stop, app)
        web.ready(app)
        self.url = self.printed.getvalue().removeprefix("listening on ").strip()

    def test_a_page_is_served(self) -> None:
        with urllib.request.urlopen(self.url) as answer:
            self.assertEqual((answer.status, answer.read(), answer.headers["Content-Type"]), (200, b"hello", "text/plain"))

    def test_an_unknown_page_is_not_found(self) -> None:
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{self.url}nowhere")
        caught.exception.close()
        self.assertEqual(caught.exception.code, 404)
