"""Where things are in this workspace, and how its files are read."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Refused(Exception):
    """Something that the user can put right: the message says what and where."""


@dataclass(frozen=True)
class Workspace:
    root: Path

    @property
    def apps(self) -> Path:
        return self.root / "source" / "apps"

    @property
    def extensions(self) -> Path:
        return self.root / "source" / "extensions"

    def output(self, config: str) -> Path:
        """`_build/linux-x86_64/release`, as in a Kit checkout."""
        system = {"darwin": "macos"}.get(sys.platform, sys.platform)
        return self.root / "_build" / f"{system}-{platform.machine().lower()}" / config

    def shown(self, path: Path) -> str:
        """A path as messages show it: from the root."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def read(self, path: Path) -> dict[str, Any]:
        """A TOML file. Raises Refused with the place of an error."""
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"{self.shown(path)} does not exist") from None
        except (OSError, ValueError) as error:
            raise Refused(f"{self.shown(path)}: {error}") from None

    @contextmanager
    def alone(self, project: Path | None) -> Iterator[None]:
        """Keeps other builds of `project` out, or with None those of any; what the system locks, it frees when we die."""
        self.extensions.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.extensions.parent, os.O_RDONLY)
        file = os.open(project or self.extensions, os.O_RDONLY)
        try:
            _lock(folder, fcntl.LOCK_SH if project else fcntl.LOCK_EX)
            _lock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)
            os.close(folder)


def module_name(extension: str) -> str:
    """The Python module of an extension: its name with what a module cannot have replaced."""
    name = re.sub(r"\W", "_", extension, flags=re.ASCII)
    return f"_{name}" if name[0].isdigit() else name


def say(text: str) -> None:
    print(text, flush=True)


def report(result: str) -> None:
    """Hands a JSON object to runcast as the job's result. Run by hand, nobody would read it, so nothing is printed."""
    if "RUNCAST_JOB" in os.environ:
        say(f"::result {result}")


def _lock(file: int, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another build of this workspace")
        fcntl.flock(file, kind)
