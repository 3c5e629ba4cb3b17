from __future__ import annotations

import importlib
import json
import unittest
from types import SimpleNamespace
from typing import Any

setup: Any = importlib.import_module("exts.{{ python_module }}")


class StatusTest(unittest.TestCase):
    def test_the_service_says_what_it_is(self) -> None:
        app = SimpleNamespace(name="a.service", version="1.0.0", pages={})
        setup.start(app)
        media_type, content = app.pages["/status"]()
        self.assertEqual(media_type, "application/json")
        self.assertEqual(json.loads(content)["service"], "a.service")
