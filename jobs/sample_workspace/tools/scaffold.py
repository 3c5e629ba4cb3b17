"""Makes projects from templates. A project appears whole or not at all, and never in place of another."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layout import NAME, Refused, Workspace, module_name, report, say

_VARIABLE = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")


@dataclass(frozen=True)
class Template:
    """An entry of a templates file; `files` is the file or folder that it renders."""

    name: str
    title: str
    kind: str
    layer: str
    files: Path
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """One file or folder to render, and where it goes."""

    template: Template
    target: Path
    variables: Mapping[str, str]


def show(workspace: Workspace) -> int:
    """Prints the templates."""
    for template in catalog(workspace).values():
        say(f"{template.name:24} {template.kind:28} {template.title}")
    return 0


def replay(workspace: Workspace, *, file: Path) -> int:
    """Makes what a playback file describes: a table for each template, with its variables."""
    try:
        document = workspace.read(file.absolute())
        templates = catalog(workspace)
        parts = [part for name, table in document.items() for part in _parts(workspace, templates, name=name, table=table)]
    except (AttributeError, TypeError) as error:
        raise Refused(f"{file} is not a playback file: {error}") from None
    if not parts:
        raise Refused(f"{file} describes nothing to make")
    _make(workspace, parts)
    made = [workspace.shown(part.target) for part in parts]
    report(json.dumps({"created": made}))
    say(f"created {', '.join(made)}; build it with ./repo.sh build")
    return 0


def catalog(workspace: Workspace) -> dict[str, Template]:
    """All templates by name."""
    return dict(_read(workspace, workspace.root / "templates" / "templates.toml"))


def _read(workspace: Workspace, source: Path) -> Iterator[tuple[str, Template]]:
    for name, entry in workspace.read(source).get("templates", {}).items():
        if entry["class"] == "LocalTemplateCollection":
            yield from _read(workspace, Path(entry["url"].removeprefix("file://").replace("${root}", str(workspace.root))))
            continue
        files = source.parent / entry.get("url", ".") / entry["subpath"]
        yield name, Template(name, entry.get("name", name), entry["class"], entry.get("type", ""), files, entry.get("variables", {}))


def _parts(workspace: Workspace, templates: Mapping[str, Template], *, name: str, table: Mapping[str, Any]) -> Iterator[Part]:
    """What one table makes: the extensions that it needs first, the application itself last."""
    template = _find(templates, name)
    variables = {**template.variables, **{key: value for key, value in table.items() if isinstance(value, str)}}
    if template.kind.endswith("ExtensionTemplate"):
        yield _extension(workspace, template, variables)
        return
    app = _checked(variables.get("application_name", ""))
    for needed, own in table.get("extensions", {}).items():
        part = _extension(workspace, _find(templates, needed), {**_find(templates, needed).variables, **own})
        if part.template.kind == "SetupExtensionTemplate":
            variables["setup_extension_name"] = part.variables["extension_name"]
        yield part
    for needed, own in table.get("applications", {}).items():
        layer = _find(templates, needed)
        yield Part(layer, workspace.apps / f"{app}_{layer.layer or needed}.kit", {**variables, **layer.variables, **own})
    yield Part(template, workspace.apps / f"{app}.kit", variables)


def _extension(workspace: Workspace, template: Template, variables: Mapping[str, str]) -> Part:
    name = _checked(variables.get("extension_name", ""))
    return Part(template, workspace.extensions / name, {**variables, "python_module": module_name(name)})


def _find(templates: Mapping[str, Template], name: str) -> Template:
    if name not in templates:
        raise Refused(f"there is no template {name!r}")
    return templates[name]


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise Refused(f"{name!r} cannot be a name: letters, digits, '_', '-' and '.', the first not '-' or '.'")
    return name


def _make(workspace: Workspace, parts: list[Part]) -> None:
    for part in parts:
        if part.target.exists():
            raise Refused(f"{workspace.shown(part.target)} exists already")
    workspace.apps.mkdir(parents=True, exist_ok=True)
    workspace.extensions.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    signal.signal(signal.SIGTERM, _give_up)
    with _scratch(workspace) as scratch:
        try:
            for number, part in enumerate(parts, 1):
                say(f"[{number}/{len(parts)}] Render {workspace.shown(part.target)}")
                _render(part, scratch / str(number))
            # From here on it is all or nothing, and quick: a cancel waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            for number, part in enumerate(parts, 1):
                _place(scratch / str(number), part.target)
                made.append(part.target)
        except FileExistsError as error:
            _remove(made)
            raise Refused(f"{workspace.shown(Path(error.filename2 or error.filename))} exists already") from None
        except BaseException:
            _remove(made)
            raise


def _give_up(signum: int, _frame: object) -> None:
    """A cancel takes away what was half made."""
    raise SystemExit(128 + signum)


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """A folder for what is not whole yet. What was left by those that were killed is removed by the next one that makes something alone."""
    makers = os.open(workspace.apps, os.O_RDONLY)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(makers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in workspace.apps.parent.glob(".new-*"):
                shutil.rmtree(left)
        fcntl.flock(makers, fcntl.LOCK_SH)  # before there is anything of ours that somebody could take for left
        with tempfile.TemporaryDirectory(prefix=".new-", dir=workspace.apps.parent) as scratch:
            yield Path(scratch)
    finally:
        os.close(makers)


def _render(part: Part, target: Path) -> None:
    source = part.template.files
    if source.is_file():
        _render_file(source, target, part.variables)
        return
    for file in sorted(source.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            _render_file(file, place, part.variables)


def _render_file(source: Path, target: Path, variables: Mapping[str, str]) -> None:
    """Fills in the variables. But for prose they stand within double quotes, where TOML, JSON and Python escape alike."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise Refused(f"{source.name} needs {match[1]!r}, which the playback file does not give")
        text = variables[match[1]]
        return text if source.suffix == ".md" else json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")

    target.write_text(_VARIABLE.sub(value, source.read_text(encoding="utf-8")), encoding="utf-8")


def _place(fresh: Path, target: Path) -> None:
    """Moves what was rendered into place. Raises FileExistsError when somebody was faster."""
    if fresh.is_file():
        os.link(fresh, target)
        return
    try:
        fresh.rename(target)
    except OSError as error:
        if target.exists():
            raise FileExistsError(error.errno, error.strerror, str(target)) from None
        raise


def _remove(made: list[Path]) -> None:
    for path in made:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
