from __future__ import annotations

import importlib
import unittest
from types import SimpleNamespace
from typing import Any

panel: Any = importlib.import_module("exts.{{ python_module }}")


class PanelTest(unittest.TestCase):
    def test_the_panel_counts_extensions(self) -> None:
        app = SimpleNamespace(title="An app", extensions={panel.NAME: SimpleNamespace(title="A panel")}, panels={})
        panel.start(app)
        self.assertEqual(app.panels["A panel"](), "An app is made of 1 extensions.")
