"""What runs a built application: starts its extensions in order, waits for a signal, stops them in reverse.

Is copied into every application as its `__main__.py`, so it must stand alone. An extension is a Python module with any of these functions:
`start(app)`, `ready(app)` once all have started, `stop(app)`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Extension:
    name: str
    title: str
    version: str
    module: str

    def read(self, path: str) -> bytes:
        """A file of the extension's `data` folder, also from within a packed application."""
        content = pkgutil.get_data(f"exts.{self.module}", f"data/{path}")
        if content is None:
            raise FileNotFoundError(path)
        return content


@dataclass
class App:
    """The running application, as its extensions see it."""

    name: str
    title: str
    version: str
    config: str
    extensions: dict[str, Extension]
    settings: dict[str, Any]
    pages: dict[str, Callable[[], tuple[str, bytes]]] = field(default_factory=dict)
    """Paths of the web server, and what makes their content: media type and bytes."""
    panels: dict[str, Callable[[], str]] = field(default_factory=dict)
    """Titles of panels on the first page, and what makes their text."""

    def setting(self, path: str, default: Any) -> Any:
        """The setting at `exts/sample.web/port`, or the default."""
        value: Any = self.settings
        for part in path.split("/"):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def icon(self, size: int) -> bytes:
        """The application's own icon as PNG, `size` pixels wide; release has 16 to 256, debug 16 to 64."""
        return pkgutil.get_data("app", f"icons/{size}.png") or b""


def main(arguments: Sequence[str]) -> int:
    """Runs until SIGINT or SIGTERM, and gives the exit status. `--/exts/sample.web/port=8011` changes a setting."""
    app = _load(json.loads(pkgutil.get_data("app", "app.json") or b"{}"), arguments)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    modules = [importlib.import_module(f"exts.{extension.module}") for extension in app.extensions.values()]
    _call(modules, "start", app)
    _call(modules, "ready", app)
    stopping.wait()
    _call(reversed(modules), "stop", app)
    print(f"{app.title} has stopped", flush=True)
    return 0


def _load(description: dict[str, Any], arguments: Sequence[str]) -> App:
    extensions = {part["name"]: Extension(**part) for part in description.pop("extensions")}
    app = App(**description, extensions=extensions)
    for argument in arguments:
        path, given, value = argument.removeprefix("--/").partition("=")
        if not argument.startswith("--/") or not given or not path:
            sys.exit(f"{app.name}: unknown argument {argument!r}; a setting is changed by --/path/to/it=value")
        *folders, last = path.split("/")
        place = app.settings
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = _value(value)
    return app


def _value(text: str) -> Any:
    """Numbers, truth values and lists as JSON has them; anything else is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _call(modules: Any, function: str, app: App) -> None:
    for module in modules:
        if hasattr(module, function):
            getattr(module, function)(app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
