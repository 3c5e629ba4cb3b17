"""Expands a submission of a job type, or of an operator's task, to a command. Runs nothing and stores nothing.

A submission is expanded twice: when it is accepted and when it starts. So everything that it names is checked both times.

The built-in recipes drive a Kit checkout (https://github.com/NVIDIA-Omniverse/kit-app-template) or the shipped workspace, which has
the same commands. `workspace.py` defines what a *project* is. The recipes:

* `create` writes a playback file and runs `./repo.sh template replay FILE`; the new project is `name`.
* `build` runs `./repo.sh build -r` (or `-d`) for the workspace, with `-t PROJECT` for one application or extension of it, and in the
  project's own folder for a checkout of its own. `clean` is `-c`, which removes the output of earlier builds and stops; `rebuild` is
  `-x`, which then builds, and takes precedence over `clean`.
* `launch` runs `./repo.sh launch --name APP [-- ARGS]` in the checkout that has the application.

Jobs with one concurrency key run one after another. `create` and `build` have `project:NAME`, a build of everything `workspace`:
jobs for different projects of the shipped workspace write different files (its `repo.sh` holds locks, so that a build of everything waits
for builds of single projects). In a real Kit checkout every build writes the same `_build` folder and every creation the same
`premake5.lua`, so that there all of them have one key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import OperatorError, OutsideWorkspace, ProjectExists, StartFailed, TaskNotFound, TemplateNotCreatable
from jobs.model import MARKER, JobType, Json, Submission
from jobs.recipes.inputs import Inputs, refuse_unusable_text
from jobs.recipes.tasks import Task, fill, placeholders
from jobs.recipes.tasks_file import load_tasks
from jobs.recipes.templates import TemplateCatalog, load_templates, part_name, playback
from jobs.recipes.workspace import ENTRY_POINT, Workspace

PLAYBACK = "playback.toml"
CREATE_TIMEOUT = 600.0
BUILD_TIMEOUT = 4 * 3600.0
STOP_GRACE = 5.0
LAUNCH_STOP_GRACE = 10.0  # Kit writes its settings and caches when it ends

BUILD_PROGRESS = (r"\[\s*(?P<done>\d+)/(?P<total>\d+)\]\s*(?P<message>[^\r\n]*)", r"\[\s*(?P<percent>\d{1,3})%\]\s*(?P<message>[^\r\n]*)")
LAUNCH_READY = r"(?:listening|running) on (?P<url>https?://[^\s\x1b]+)|\bapp ready\b"
"""Matches the shipped workspace, services that use Uvicorn, and Kit itself (`app ready`). An escape sequence may follow the URL."""

DISPLAY_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR")

_FILE = "{file:%s}"
_KEPT = ("HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True)
class Recipe:
    """What to run. Times are in seconds; without a `timeout` the command may run for any time.

    `files` are small texts that the command needs. An element `{file:NAME}` of `argv` stands for the path of a file, see `command`.
    `keep` names variables of the worker's environment that the job gets in addition to the usual ones.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    stop_signal: str = "SIGTERM"
    stop_grace: float = STOP_GRACE
    pty: bool = True
    progress: tuple[str, ...] = ()
    ready: str | None = None
    concurrency_key: str | None = None
    queue: str = "default"
    secrets: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None

    def command(self, folder: Path) -> tuple[str, ...]:
        """Writes `files` into `folder`, which must belong to this job alone. Returns the command with their paths filled in."""
        paths = {_FILE % name: folder / name for name in self.files}
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return tuple(str(paths[element]) if element in paths else element for element in self.argv)


@dataclass(frozen=True)
class JobTypeInfo:
    """A job type or, with `task`, an operator's task. `schema` is the declared one of the task's inputs; the contract has the others."""

    type: JobType
    task: str | None
    title: str
    description: str | None
    queue: str = "default"
    schema: Mapping[str, Json] | None = None


class Recipes:
    """The recipes of one workspace: the built-in ones and the operator's tasks."""

    def __init__(self, *, workspace: Workspace, tasks: Mapping[str, Task]) -> None:
        self.workspace = workspace
        self.tasks = dict(tasks)
        self._builtin: Mapping[JobType, Callable[[Mapping[str, Json]], Recipe]] = {
            JobType.BUILD: self._build,
            JobType.CREATE: self._create,
            JobType.LAUNCH: self._launch,
            JobType.TASK: self._task,
        }

    @classmethod
    def load(cls, *, workspace: Path, tasks_file: Path | None) -> Recipes:
        """Raises OperatorError for a folder that cannot be a workspace and for an invalid tasks file."""
        root = Workspace(workspace)
        tasks = load_tasks(tasks_file) if tasks_file else {}
        for task in tasks.values():
            if not any(placeholders(task.cwd)):
                _check_cwd(task, workspace=root)
        return cls(workspace=root, tasks=tasks)

    def expand(self, submission: Submission) -> Recipe:
        """What to run for a submission. Its own timeout, queue and concurrency key replace those of the recipe.

        Raises ProjectNotFound, TemplateNotFound, AppNotFound, TaskNotFound, ProjectExists, TemplateNotCreatable, InputsRejected and
        OutsideWorkspace, each with a pointer to the invalid place; and WorkspaceGone.
        """
        self.workspace.check()
        refuse_unusable_text(submission.params)
        recipe = self._builtin[submission.type](submission.params)
        own: dict[str, Any] = {
            "timeout": submission.timeout_seconds,
            "queue": submission.queue,
            "concurrency_key": submission.concurrency_key,
        }
        return _replaced(recipe, {name: value for name, value in own.items() if value is not None})

    def templates(self) -> TemplateCatalog:
        """The templates of the workspace as they are now. Raises WorkspaceGone."""
        self.workspace.check()
        return load_templates(self.workspace.root)

    def job_types(self) -> list[JobTypeInfo]:
        """What clients can submit: the built-in job types, then the tasks in order of their names."""
        tasks = sorted(self.tasks.values(), key=lambda task: task.name)
        return [
            JobTypeInfo(JobType.BUILD, None, "Build", "Builds the workspace, or one project in it."),
            JobTypeInfo(
                JobType.LAUNCH, None, "Launch", "Launches a built application. The job runs until the application ends or is cancelled."
            ),
            JobTypeInfo(JobType.CREATE, None, "Create", "Creates a project from a template."),
            *(JobTypeInfo(JobType.TASK, task.name, task.title, task.description, task.queue, task.inputs) for task in tasks),
        ]

    def _create(self, params: Mapping[str, Json]) -> Recipe:
        name: str = params["name"]
        template = self.templates().get(params["template"])
        if not template.creatable:
            raise TemplateNotCreatable(template.name)
        for project in (name, *(part_name(template, part=part, name=name) for part in template.parts)):
            if self.workspace.has_project(project):
                raise ProjectExists(project)
        text = playback(template, name=name, display_name=params.get("display_name"), version=params.get("version"))
        return Recipe(
            argv=(f"./{ENTRY_POINT}", "template", "replay", _FILE % PLAYBACK),
            cwd=self.workspace.root,
            timeout=CREATE_TIMEOUT,
            progress=BUILD_PROGRESS,
            concurrency_key=self._key(self.workspace.root, project=name),
            files={PLAYBACK: text},
            project=name,
        )

    def _build(self, params: Mapping[str, Json]) -> Recipe:
        project: str | None = params.get("project")
        checkout = self.workspace.checkout(project)
        options = ["-d" if params.get("config") == "debug" else "-r"]
        if params.get("rebuild"):
            options.append("-x")
        elif params.get("clean"):
            options.append("-c")
        if project is not None and checkout == self.workspace.root:
            options += ["-t", project]
        return Recipe(
            argv=(f"./{ENTRY_POINT}", "build", *options),
            cwd=checkout,
            timeout=BUILD_TIMEOUT,
            progress=BUILD_PROGRESS,
            concurrency_key=self._key(checkout, project=project),
            project=project,
        )

    def _launch(self, params: Mapping[str, Json]) -> Recipe:
        project: str | None = params.get("project")
        app = self.workspace.app(params["app"], project=project)
        args = params.get("args") or ()
        return Recipe(
            argv=(f"./{ENTRY_POINT}", "launch", "--name", app.name, *(("--", *args) if args else ())),
            cwd=self.workspace.checkout(project),
            stop_grace=LAUNCH_STOP_GRACE,
            ready=LAUNCH_READY,
            keep=DISPLAY_VARIABLES,
            project=project or (app.stem if self.workspace.has_project(app.stem) else None),
        )

    def _task(self, params: Mapping[str, Json]) -> Recipe:
        task = self.tasks.get(params["task"])
        if task is None:
            raise TaskNotFound(params["task"])
        inputs = Inputs(task, params.get("inputs") or {}, workspace=self.workspace)
        return Recipe(
            argv=tuple(inputs.argv()),
            cwd=inputs.cwd,
            env={name: inputs.fill(text) for name, text in task.env.items()},
            timeout=task.timeout,
            stop_signal=task.stop_signal,
            stop_grace=task.stop_grace,
            pty=task.pty,
            progress=task.progress,
            ready=task.ready,
            concurrency_key=inputs.concurrency_key(),
            queue=task.queue,
            secrets=task.secrets,
        )

    def _key(self, checkout: Path, *, project: str | None) -> str:
        if project is None or (checkout == self.workspace.root and _is_kit(checkout)):
            return "workspace"
        return f"project:{project}"


def job_environment(base: Mapping[str, str], *, recipe: Recipe, marker: str, home: Path | None = None) -> dict[str, str]:
    """The environment of a job: a few variables of the worker's (`base`), the recipe's own, its secrets, and the job's marker.

    `home` replaces the worker's home folder. Raises StartFailed when a secret is not set.
    """
    kept = {name: value for name, value in base.items() if name in _KEPT or name in recipe.keep or name.startswith("LC_")}
    # The folder of our own interpreter comes last, as a `python3` for recipes on a machine that has no other.
    kept["PATH"] = f"{base.get('PATH') or os.defpath}{os.pathsep}{Path(sys.executable).parent}"
    if home is not None:
        kept["HOME"] = str(home)
    if recipe.pty:
        kept["TERM"] = "xterm-256color"
    missing = [name for name in recipe.secrets if name not in base]
    if missing:
        raise StartFailed(f"The secret {missing[0]} is not set in the worker's environment.")
    return {**kept, **recipe.env, **{name: base[name] for name in recipe.secrets}, MARKER: marker}


def _is_kit(checkout: Path) -> bool:
    """Whether a checkout is one of the real Kit, whose tools packman installs."""
    return (checkout / "tools" / "packman").is_dir()


def _check_cwd(task: Task, *, workspace: Workspace) -> None:
    try:
        workspace.path(fill(task.cwd, {}))
    except OutsideWorkspace:
        raise OperatorError(f"task {task.name!r}: cwd {task.cwd!r} is not a path inside the workspace {workspace.root}") from None


def _replaced(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    return Recipe(**{**recipe.__dict__, **values}) if values else recipe
