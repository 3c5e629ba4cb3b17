"""Builds projects into `_build/PLATFORM/CONFIG/`: a plan of steps, each of which makes one file, then the steps in turn.

An application becomes a folder with everything that it needs, so that projects share no output. In release it is packed into one file of
optimised bytecode; in debug it stays a folder of sources that run in Python's development mode.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from layout import Refused, Workspace, report, say
from projects import Application, Extension, find, read_application, read_extension
from steps import Step, Steps

TOOLS = Path(__file__).resolve().parent
RELEASE_ICONS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
DEBUG_ICONS = (16, 32, 64)


def build(workspace: Workspace, *, configs: Sequence[str], target: str | None, clean: bool, rebuild: bool) -> int:
    """Builds everything, or the application and the extension named `target`; gives the exit status."""
    places = find(workspace, target)
    with ExitStack() as locks:
        for place in places if target else (None,):
            locks.enter_context(workspace.alone(place))
        if clean or rebuild:
            _clean(workspace, configs=configs, target=target)
        if clean and not rebuild:
            return 0
        return max(_build(workspace, config=config, places=places) for config in configs)


def _clean(workspace: Workspace, *, configs: Sequence[str], target: str | None) -> None:
    for config in configs:
        output = workspace.output(config)
        for path in _outputs(output, target) if target else (output,):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        say(f"cleaned {workspace.shown(output)}" + (f" of {target}" if target else ""))


def _outputs(output: Path, project: str) -> Iterator[Path]:
    for kind in ("apps", "exts", "tests"):
        yield output / kind / project
    for suffix in (".pyz", ".zip"):
        yield output / "packages" / f"{project}{suffix}"
    yield output / f"{project}.kit.sh"


def _build(workspace: Workspace, *, config: str, places: Sequence[Path]) -> int:
    started = time.monotonic()
    output = workspace.output(config)
    steps = Steps(root=workspace.root, release=config == "release", toolchain=_toolchain(output))
    plan = [step for place in places for step in _plan(workspace, place, output=output, steps=steps)]
    made = 0
    for number, step in enumerate(plan, 1):
        say(f"[{number}/{len(plan)}] {step.label}")
        try:
            made += step.run()
        except Refused as refused:
            say(f"error: {refused}")
            say(_coloured(31, f"build ({config}) failed at step {number} of {len(plan)}"))
            return 1
    _sweep(output, projects={_name(place) for place in places}, keep={step.output for step in plan})
    artifacts = [workspace.shown(step.output) for step in plan if step.output.suffix in (".pyz", ".sh", ".zip")]
    report(json.dumps({"config": config, "steps": len(plan), "made": made, "artifacts": artifacts}))
    say(_coloured(32, f"build ({config}) succeeded: {made} of {len(plan)} steps had work to do, {time.monotonic() - started:.1f} s"))
    return 0


def _plan(workspace: Workspace, place: Path, *, output: Path, steps: Steps) -> Iterator[Step]:
    if place.suffix == ".kit" and place.is_file():
        app = read_application(workspace, place)
        yield from _application(app, output=output, steps=steps)
        return
    extension = read_extension(workspace, place)
    folder = output / "exts" / extension.name
    built = [steps.package(folder / "exts"), *_extension(extension, folder=folder, project=extension.name, steps=steps)]
    yield from built
    if steps.release:
        yield _pack(built, folder=folder, target=output / "packages" / f"{extension.name}.zip", steps=steps)


def _application(app: Application, *, output: Path, steps: Steps) -> Iterator[Step]:
    folder = output / "apps" / app.name
    built = [steps.code(TOOLS / "kernel.py", folder / "__main__.py"), steps.package(folder / "app"), steps.package(folder / "exts")]
    for size in RELEASE_ICONS if steps.release else DEBUG_ICONS:
        built.append(steps.icon(app.name, size=size, target=folder / "app" / "icons" / f"{size}.png"))
    for extension in app.extensions:
        built += _extension(extension, folder=folder, project=app.name, steps=steps)
    built.append(steps.text("Write app.json", _description(app, output=output), folder / "app" / "app.json", inputs=app.files))
    yield from built
    entry = f"packages/{app.name}.pyz" if steps.release else f"apps/{app.name}"
    if steps.release:
        yield _pack(built, folder=folder, target=output / entry, steps=steps)
    options = "" if steps.release else "-X dev "
    script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -X utf8 -B {options}"$(dirname -- "$0")"/{shlex.quote(entry)} "$@"\n'
    yield steps.text(f"Write {app.name}.kit.sh", script, output / f"{app.name}.kit.sh", inputs=(), executable=True)


def _extension(extension: Extension, *, folder: Path, project: str, steps: Steps) -> Iterator[Step]:
    """One extension as a part of `project`: its code and data below `folder`, then its tests against them."""
    target = folder / "exts" / extension.module
    built: list[Step] = []
    for source, kind in _files(extension.folder):
        if kind == "python" and source.suffix == ".py":
            built.append(steps.code(source, target / source.relative_to(extension.folder / "python")))
        elif kind == "data":
            built.append(steps.data(source, target / source.relative_to(extension.folder)))
    yield from built
    tests = extension.folder / "tests"
    if any(tests.rglob("test_*.py")):
        log = folder.parents[1] / "tests" / project / f"{extension.name}.txt"
        yield steps.test(tests, against=folder, target=log, inputs=[step.output for step in built])


def _pack(built: Sequence[Step], *, folder: Path, target: Path, steps: Steps) -> Step:
    """Packs what was built below `folder`; the tests' logs lie elsewhere."""
    return steps.pack(folder, target, inputs=[step.output for step in built if step.output.is_relative_to(folder)])


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    for kind in ("python", "data"):
        for path in sorted((folder / kind).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path, kind


def _description(app: Application, *, output: Path) -> str:
    """What the kernel reads when the application starts."""
    extensions = [{"name": part.name, "title": part.title, "version": part.version, "module": part.module} for part in app.extensions]
    description = {
        "name": app.name,
        "title": app.title,
        "version": app.version,
        "config": output.name,
        "extensions": extensions,
        "settings": app.settings,
    }
    return json.dumps(description, ensure_ascii=False, default=str, indent=2)


def _toolchain(output: Path) -> Path:
    """A file that changes when the interpreter or these tools do, so that everything is then built again."""
    file = output / "toolchain.txt"
    tools = "".join(f"{path.name} {path.stat().st_mtime_ns}\n" for path in sorted(TOOLS.glob("*.py")))
    content = f"{sys.executable}\n{sys.version}\n{tools}"
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        output.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}-{os.getpid()}")
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(file)
    return file


def _sweep(output: Path, *, projects: set[str], keep: set[Path]) -> None:
    """Removes what earlier builds of these projects left and this one would not make."""
    for project in projects:
        for folder in (output / kind / project for kind in ("apps", "exts", "tests")):
            for path in folder.rglob("*") if folder.is_dir() else ():
                if path.is_file() and path not in keep:
                    path.unlink()


def _name(place: Path) -> str:
    return place.stem if place.is_file() else place.name


def _coloured(colour: int, text: str) -> str:
    """In colour where a person looks at a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
