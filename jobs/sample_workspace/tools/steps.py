"""What a build does to single files: compile, check and shrink, draw, test, pack. Each step makes one file, whole or not at all."""

from __future__ import annotations

import html.parser
import json
import os
import py_compile
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icons import icon
from layout import Refused

_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})


@dataclass(frozen=True)
class Step:
    """Makes `output` from `inputs`; `make` writes to the path that it is given."""

    label: str
    output: Path
    inputs: tuple[Path, ...]
    make: Callable[[Path], None]

    def run(self) -> bool:
        """Tells whether there was anything to do: an output that is older than none of its inputs is left alone."""
        if self.output.exists() and all(self.output.stat().st_mtime_ns >= path.stat().st_mtime_ns for path in self.inputs):
            return False
        self.output.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.output.with_name(f".new-{self.output.name}")
        try:
            self.make(fresh)
            fresh.replace(self.output)
        finally:
            fresh.unlink(missing_ok=True)
        return True


@dataclass(frozen=True)
class Steps:
    """Makes steps of one configuration. `root` shortens paths in messages; `toolchain` is an input of every step."""

    root: Path
    release: bool
    toolchain: Path

    def code(self, source: Path, target: Path) -> Step:
        """A Python module: optimised bytecode in release, the checked source in debug."""
        shown = self._shown(source)
        if self.release:
            return self._step(f"Compile {shown}", target.with_suffix(".pyc"), (source,), lambda output: _compile(source, output, shown))
        return self._step(f"Check {shown}", target, (source,), lambda output: _check_code(source, output, shown))

    def data(self, source: Path, target: Path) -> Step:
        """Any other file: checked by its kind, and shrunk in release where that is safe."""
        shown = self._shown(source)
        return self._step(f"Copy {shown}", target, (source,), lambda output: _copy(source, output, shown, shrink=self.release))

    def icon(self, name: str, *, size: int, target: Path) -> Step:
        samples = 3 if self.release else 1
        make: Callable[[Path], object] = lambda output: output.write_bytes(icon(name, size=size, samples=samples))  # noqa: E731
        return self._step(f"Draw icon {size}x{size}", target, (), make)

    def text(self, label: str, content: str, target: Path, *, inputs: Sequence[Path], executable: bool = False) -> Step:
        def make(output: Path) -> None:
            output.write_text(content, encoding="utf-8")
            if executable:
                output.chmod(0o755)

        return self._step(label, target, inputs, make)

    def package(self, folder: Path) -> Step:
        """What makes a folder a Python package."""
        return self.text(f"Write {folder.name}/__init__.py", "", folder / "__init__.py", inputs=())

    def test(self, tests: Path, *, against: Path, target: Path, inputs: Sequence[Path]) -> Step:
        """Runs the unit tests of an extension against what was built of it, and keeps what they printed."""
        files = (*inputs, *sorted(tests.rglob("*.py")))
        return self._step(f"Test {self._shown(tests.parent)}", target, files, lambda output: _test(tests, output, against=against))

    def pack(self, folder: Path, target: Path, *, inputs: Sequence[Path]) -> Step:
        return self._step(f"Pack {target.name}", target, inputs, lambda output: _pack(folder, output, inputs))

    def _step(self, label: str, output: Path, inputs: Sequence[Path], make: Callable[[Path], object]) -> Step:
        return Step(label, output, (self.toolchain, *inputs), lambda path: (make(path), None)[1])

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def _compile(source: Path, output: Path, shown: str) -> None:
    try:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(output), dfile=shown, doraise=True, optimize=2, invalidation_mode=mode)
    except py_compile.PyCompileError as error:
        raise _refused(error.exc_value, shown) from None


def _check_code(source: Path, output: Path, shown: str) -> None:
    code = source.read_bytes()
    try:
        compile(code, shown, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise _refused(error, shown) from None
    output.write_bytes(code)


def _refused(error: BaseException, shown: str) -> Refused:
    """A message as compilers write it, with the line and a mark below the place."""
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return Refused(f"{shown}: {error}")
    line = (error.text or "").rstrip("\n")
    mark = " " * max(0, (error.offset or 1) - 1) + "^"
    return Refused(f"{shown}:{error.lineno}: {error.msg}\n    {line}\n    {mark}")


def _copy(source: Path, output: Path, shown: str, *, shrink: bool) -> None:
    content = source.read_bytes()
    prepare = _KINDS.get(source.suffix)
    if prepare:
        try:
            shrunk = prepare(content.decode("utf-8")).encode()
        except (ValueError, SyntaxError) as error:  # what the parsers of JSON, TOML, XML and UTF-8 raise
            raise Refused(f"{shown}: {error}") from None
        content = shrunk if shrink else content
    output.write_bytes(content)


def _json(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


def _toml(text: str) -> str:
    tomllib.loads(text)
    return text


def _svg(text: str) -> str:
    xml.etree.ElementTree.fromstring(text)
    return text


def _css(text: str) -> str:
    if text.count("{") != text.count("}"):
        raise ValueError("braces do not match")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def _html(text: str) -> str:
    checker = _TagChecker()
    checker.feed(text)
    checker.close()
    if checker.open:
        raise ValueError(f"<{checker.open[-1]}> is never closed")
    return re.sub(r">\s+<", "> <", text)


class _TagChecker(html.parser.HTMLParser):
    """Sees to it that every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> at line {self.getpos()[0]} closes nothing")


_KINDS: dict[str, Callable[[str], str]] = {".json": _json, ".toml": _toml, ".svg": _svg, ".css": _css, ".html": _html}


def _test(tests: Path, output: Path, *, against: Path) -> None:
    command = [sys.executable, "-X", "utf8", "-B", "-W", "error", "-m", "unittest", "discover", "-s", str(tests), "-t", str(tests)]
    env = {**os.environ, "PYTHONPATH": str(against)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if run.returncode != 0:
        raise Refused(f"tests failed\n{run.stdout}{run.stderr}".rstrip())
    output.write_text(run.stdout + run.stderr, encoding="utf-8")


def _pack(folder: Path, output: Path, files: Sequence[Path]) -> None:
    """A zip file whose bytes depend on the contents only, so that the same sources give the same file."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(files):
            archive.writestr(zipfile.ZipInfo(str(file.relative_to(folder)), date_time=(1980, 1, 1, 0, 0, 0)), file.read_bytes())
