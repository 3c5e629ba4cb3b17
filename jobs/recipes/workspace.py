"""The workspace: resolves names to paths in the folder that jobs may touch, and enforces its boundary for everything that a client names.

Runs nothing, and writes nothing except the copy of the shipped workspace.

A workspace is laid out like a Kit checkout: `repo.sh` at its root, applications in `source/apps/NAME.kit` (with further sources of an
application in `source/apps/NAME/`), extensions in `source/extensions/NAME/`. A *project* is named by its folder or file, so it is one of:

* an application, `source/apps/NAME.kit`;
* an extension, `source/extensions/NAME/`;
* a checkout of its own, a folder `NAME/` at the workspace's root that has a `repo.sh`; its applications belong to it, not to the workspace.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import AppNotFound, OperatorError, OutsideWorkspace, ProjectNotFound, WorkspaceGone

APPS = Path("source") / "apps"
EXTENSIONS = Path("source") / "extensions"
ENTRY_POINT = "repo.sh"
SHIPPED = Path(__file__).parent.parent / "sample_workspace"

_READABLE = os.R_OK | os.X_OK
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # one path component, never an option, never hidden; short enough for any disk


class Workspace:
    """The folder that jobs may touch. Raises OperatorError when it does not exist or cannot be read."""

    def __init__(self, root: Path) -> None:
        try:
            self.root = root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise OperatorError(f"The workspace {root} does not exist") from None
        if not self.root.is_dir():
            raise OperatorError(f"The workspace {root} is not a folder")
        if not os.access(self.root, _READABLE):
            raise OperatorError(f"The workspace {root} cannot be read")

    def check(self) -> None:
        """Raises WorkspaceGone when the folder no longer exists or can no longer be read."""
        if not self.root.is_dir() or not os.access(self.root, _READABLE):
            raise WorkspaceGone

    def path(self, relative: str, *, base: Path | None = None, pointer: str | None = None) -> Path:
        """The resolved path of `relative`, relative to `base` (by default the root). It need not exist.

        Raises OutsideWorkspace for an absolute path, for `..`, for a text that cannot be a path, and for a symbolic link that leads out.
        """
        if relative == "." and base is None:  # a shortcut for the folder in which most jobs run
            return self.root
        if not _is_path(relative) or relative.startswith("/") or ".." in relative.split("/"):
            raise OutsideWorkspace(relative, pointer=pointer)
        try:
            resolved = ((base or self.root) / relative).resolve()
        except (OSError, RuntimeError):  # symbolic links form a loop
            raise OutsideWorkspace(relative, pointer=pointer) from None
        if not resolved.is_relative_to(self.root):
            raise OutsideWorkspace(relative, pointer=pointer)
        return resolved

    def contains(self, path: Path) -> bool:
        """Whether `path`, with symbolic links resolved, lies in the workspace."""
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):
            return False

    def projects(self) -> list[str]:
        """The names of all projects, in order."""
        candidates = [
            *(path.stem for path in _children(self.root / APPS) if path.suffix == ".kit"),
            *(path.name for path in _children(self.root / EXTENSIONS)),
            *(path.name for path in _children(self.root)),
        ]
        return sorted({name for name in candidates if self._find(name)})

    def project(self, name: str, *, pointer: str = "#/params/project") -> Path:
        """The file or folder of a project. Raises ProjectNotFound."""
        found = self._find(name)
        if found is None:
            raise ProjectNotFound(name, pointer=pointer)
        return found

    def has_project(self, name: str) -> bool:
        return self._find(name) is not None

    def checkout(self, project: str | None, *, pointer: str = "#/params/project") -> Path:
        """The folder whose `repo.sh` builds and launches `project`: its own, or the workspace. Raises ProjectNotFound."""
        if project is None:
            return self.root
        found = self.project(project, pointer=pointer)
        return found if (found / ENTRY_POINT).is_file() and found.parent == self.root else self.root

    def app(self, name: str, *, project: str | None = None, pointer: str = "#/params/app") -> Path:
        """The file of an application of `project`, or of the workspace. Raises ProjectNotFound and AppNotFound."""
        folder = self.checkout(project)
        for candidate in self._apps(folder):
            whole = project is None or folder != self.root
            if candidate.name == name and (whole or _belongs(candidate.relative_to(folder / APPS), project=project)):
                return candidate
        raise AppNotFound(name, pointer=pointer)

    def _find(self, name: str) -> Path | None:
        if not _NAME.fullmatch(name):
            return None
        application = self.root / APPS / f"{name}.kit"
        if application.is_file() and self.contains(application):
            return application
        extension = self.root / EXTENSIONS / name
        if extension.is_dir() and self.contains(extension):
            return extension
        checkout = self.root / name
        return checkout if (checkout / ENTRY_POINT).is_file() and self.contains(checkout) else None

    def _apps(self, folder: Path) -> Iterator[Path]:
        """Every `.kit` file at any depth, as `repo.sh launch` finds them."""
        for path in sorted((folder / APPS).rglob("*.kit")):
            if path.is_file() and self.contains(path):
                yield path


def copy_workspace(target: Path) -> bool:
    """Copies the shipped workspace to `target` unless something is there already. Returns whether it did.

    The copy appears atomically: a server that is killed half-way starts again, and two that start together use the same copy.
    """
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        copy = Path(scratch) / target.name
        shutil.copytree(SHIPPED, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "_build"))
        copy.chmod(0o700)  # the data folder may have existed before and be open to other users
        (copy / ENTRY_POINT).chmod(0o755)  # packages do not preserve the executable bit
        try:
            copy.rename(target)
        except OSError:
            if target.exists():  # another server was faster
                return False
            raise
    return True


def _is_path(text: str) -> bool:
    if not text or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate is in no file name
        return False
    return True


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _belongs(app: Path, *, project: str | None) -> bool:
    """To an application project belong its own file, its layers (`NAME_LAYER.kit`), and the files in the folder `NAME/`."""
    return app.stem == project or app.stem.startswith(f"{project}_") or app.parts[0] == project
