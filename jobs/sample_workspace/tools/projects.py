"""Reads what is to be built: `source/apps/NAME.kit` and `source/extensions/NAME/config/extension.toml`, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layout import NAME, Refused, Workspace, module_name


@dataclass(frozen=True)
class Extension:
    name: str
    title: str
    version: str
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "config" / "extension.toml"

    @property
    def module(self) -> str:
        return module_name(self.name)


@dataclass(frozen=True)
class Application:
    """`extensions` are all that it needs, in the order in which they start; `files` say so."""

    name: str
    title: str
    version: str
    extensions: tuple[Extension, ...]
    settings: dict[str, Any]
    files: tuple[Path, ...]


def find(workspace: Workspace, target: str | None) -> list[Path]:
    """The extension folders and `.kit` files to build: all, or those named `target`."""
    extensions = sorted(path.parents[1] for path in workspace.extensions.glob("*/config/extension.toml"))
    apps = sorted(workspace.apps.rglob("*.kit"))
    if target is None:
        return [*extensions, *apps]
    found = [*(path for path in extensions if path.name == target), *(path for path in apps if path.stem == target)]
    if not found:
        raise Refused(f"there is no project {target!r}")
    return found


def read_extension(workspace: Workspace, folder: Path) -> Extension:
    package = _package(workspace, folder / "config" / "extension.toml")
    return Extension(folder.name, package["title"], package["version"], folder)


def read_application(workspace: Workspace, file: Path) -> Application:
    package = _package(workspace, file)
    files: dict[str, Path] = {}
    extensions = dict(_dependencies(workspace, file, trail=(file.stem,), files=files))
    settings: dict[str, Any] = {}
    for path in reversed(files.values()):  # what an application is layered on comes first, so that its own settings win
        _merge(settings, workspace.read(path).get("settings", {}))
    named = [*files.values(), *(extension.file for extension in extensions.values())]
    return Application(file.stem, package["title"], package["version"], tuple(extensions.values()), settings, tuple(named))


def _dependencies(workspace: Workspace, file: Path, *, trail: tuple[str, ...], files: dict[str, Path]) -> Iterator[tuple[str, Extension]]:
    """Each extension after those that it needs itself. `files` gathers the `.kit` files on the way."""
    if file.suffix == ".kit":
        files[file.stem] = file
    for name in _table(workspace, file, "dependencies"):
        if name in trail:
            raise Refused(f"{workspace.shown(file)}: dependencies go in a circle: {' → '.join([*trail, name])}")
        folder = workspace.extensions / name
        app = workspace.apps / f"{name}.kit"
        if not NAME.fullmatch(name) or not (folder.is_dir() or app.is_file()):
            raise Refused(f"{workspace.shown(file)}: dependency {name!r} is neither an extension nor an application of this workspace")
        extension = read_extension(workspace, folder) if folder.is_dir() else None
        yield from _dependencies(workspace, extension.file if extension else app, trail=(*trail, name), files=files)
        if extension:
            yield name, extension


def _package(workspace: Workspace, file: Path) -> dict[str, str]:
    package = _table(workspace, file, "package")
    for key in ("title", "version"):
        if not isinstance(package.get(key), str):
            raise Refused(f"{workspace.shown(file)}: [package] has no {key}")
    return package


def _table(workspace: Workspace, file: Path, key: str) -> dict[str, Any]:
    table = workspace.read(file).get(key, {})
    if not isinstance(table, dict):
        raise Refused(f"{workspace.shown(file)}: {key} must be a table")
    return table


def _merge(into: dict[str, Any], settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
