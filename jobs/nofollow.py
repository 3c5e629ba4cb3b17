"""Opens files and folders below a root one component at a time, without following symbolic links.

So a folder that is swapped for a link after its path was checked leads to an error and not out of the root. This module knows only files;
`jobs/recipes/workspace.py` decides which paths may be opened, and resolves their links first.
"""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


def open_folder(path: Path, *, root: Path) -> int:
    """A descriptor of the folder `path`, which is `root` or below it. Raises OSError, also when a component is a symbolic link."""
    folder = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for name in path.relative_to(root).parts:
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
    except BaseException:
        os.close(folder)
        raise
    return folder


def read_file(path: Path, *, root: Path) -> bytes:
    """The content of the file `path` below `root`. Raises OSError, also when a component is a symbolic link."""
    folder = open_folder(path.parent, root=root)
    try:
        # O_NONBLOCK: if the file has become a named pipe, open() would wait for a writer.
        opened = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(opened, "rb") as file:
        return file.read()
