"""Runs a built application in place of this process, so that signals reach it directly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from layout import NAME, Refused, Workspace, say


def launch(workspace: Workspace, *, name: str, configs: Sequence[str], arguments: Sequence[str]) -> NoReturn:
    """`name` is the application's file name; the first of `configs` that was built is run."""
    app = name.removesuffix(".kit")
    if not NAME.fullmatch(app):
        raise Refused(f"{name!r} is not the name of an application")
    for config in configs:
        entry = workspace.output(config) / f"{app}.kit.sh"
        if entry.is_file():
            say(f"launching {app}.kit ({config})")
            os.execv(entry, [str(entry), *arguments])
    if next(workspace.apps.rglob(f"{app}.kit"), None) is None:
        raise Refused(f"there is no application {app}.kit in {workspace.shown(workspace.apps)}")
    raise Refused(f"{app}.kit is not built: run ./repo.sh build")
