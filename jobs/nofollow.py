"""Opening what lies below a folder, step by step and without following a link: whatever is swapped for one after a check, leads nowhere.

Knows files only. What may be opened at all, `fence.py` decides; it gives paths without links.
"""

from __future__ import annotations

import os
from pathlib import Path

_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


def open_folder(path: Path, *, root: Path) -> int:
    """A descriptor of the folder `path`, which is `root` or below it. Raises OSError, also for a link on the way."""
    folder = os.open(root, _STEP & ~os.O_NOFOLLOW)
    try:
        for name in path.relative_to(root).parts:
            below = os.open(name, _STEP, dir_fd=folder)
            os.close(folder)
            folder = below
    except BaseException:
        os.close(folder)
        raise
    return folder


def read_file(path: Path, *, root: Path) -> bytes:
    """The content of the file `path` below `root`. Raises OSError, also for a link on the way or in its place."""
    folder = open_folder(path.parent, root=root)
    try:
        # Not to wait for somebody at the other end, if it is a named pipe by now.
        opened = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(opened, "rb") as file:
        return file.read()
