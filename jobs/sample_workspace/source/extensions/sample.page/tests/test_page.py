from __future__ import annotations

import importlib
import unittest
from types import SimpleNamespace
from typing import Any

first_page: Any = importlib.import_module("exts.sample_page")


def an_app(**changes: Any) -> Any:
    part = SimpleNamespace(name="sample.page", title="First page", version="1.0.0")
    facts = {"name": "x.y", "title": "X & Y", "version": "1.2.3", "config": "debug", "extensions": {part.name: part}, "panels": {}}
    return SimpleNamespace(**{**facts, **changes})


class PageTest(unittest.TestCase):
    def test_facts_are_filled_in_and_escaped(self) -> None:
        self.assertEqual(first_page.page(an_app(), "$title|$name|$version|$config|$panels"), "X &amp; Y|x.y|1.2.3|debug|")

    def test_panels_are_shown(self) -> None:
        text = first_page.page(an_app(panels={"Hello": lambda: "<b>"}), "$panels")
        self.assertEqual(text, "<section><h2>Hello</h2><p>&lt;b&gt;</p></section>")

    def test_about_lists_the_extensions(self) -> None:
        self.assertEqual(first_page.about(an_app())["extensions"], [{"name": "sample.page", "title": "First page", "version": "1.0.0"}])
