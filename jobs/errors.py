"""Everything that the core refuses or fails to do, as one tree.

RuncastError
├─ NotFound
│  ├─ JobNotFound          there is no such job, or it was deleted
│  ├─ ProjectNotFound      the workspace has no such project
│  ├─ TemplateNotFound     the workspace has no such template
│  ├─ AppNotFound          the project has no such application
│  ├─ TaskNotFound         this server has no such task
│  └─ TokenNotFound        there is no such token, or it was revoked
├─ Conflict
│  ├─ JobEnded             the job has ended, so it cannot be cancelled
│  ├─ JobActive            the job has not ended, so it cannot be retried
│  ├─ IdempotencyConflict  the key was used with another body
│  ├─ ProjectExists        the workspace already has a project of that name
│  ├─ TemplateNotCreatable the template is a part of others, not a project
│  ├─ InputsRejected       a task's inputs do not match its declared schema
│  ├─ OutsideWorkspace     a path leaves the workspace
│  ├─ TokenExists          there already is a token of that name
│  └─ TokenProtected       the server's own admin token cannot be revoked
├─ TooMuch
│  ├─ QueueFull            too many jobs are pending
│  └─ QuotaExceeded        the token has used up its quota
├─ Unauthenticated         the token is missing or unknown
│  └─ TokenExpired         the token has expired
├─ Unavailable             the store, the workspace or every worker is gone
│  ├─ StoreReplaced        the database was replaced by another one
│  └─ WorkspaceGone        the workspace was removed while the server runs
├─ StartFailed             the operating system refused to start the command
├─ LeaseLost               the job was taken from this supervisor
└─ OperatorError           bad settings, tasks file, workspace or data folder

`handlers/errors.py` continues the tree with the errors of requests and of access. `handlers/problems.py` has one table that says which
errors a client sees, and as what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One place where an input breaks its schema.

    `location` is `body`, `query`, `path` or `header`; `pointer` is a JSON pointer from there, as a URI fragment (`#/params/app`).
    """

    location: str
    pointer: str
    detail: str


class RuncastError(Exception):
    """The root: a sentence for a person, and the places where the input breaks its schema, if it does."""

    def __init__(self, message: str, *, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


def _at(pointer: str, detail: str) -> tuple[Violation, ...]:
    return (Violation("body", pointer, detail),)


class NotFound(RuncastError):
    """Something that the request names does not exist."""


class JobNotFound(NotFound):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id}.")
        self.job_id = job_id


class ProjectNotFound(NotFound):
    def __init__(self, project: str, *, pointer: str = "#/params/project") -> None:
        super().__init__(f"There is no project {project!r} in the workspace.", violations=_at(pointer, "no such project"))
        self.project = project


class TemplateNotFound(NotFound):
    def __init__(self, template: str, *, pointer: str | None = "#/params/template") -> None:
        violations = _at(pointer, "no such template") if pointer else ()
        super().__init__(f"There is no template {template!r} in the workspace.", violations=violations)
        self.template = template


class AppNotFound(NotFound):
    def __init__(self, app: str, *, pointer: str = "#/params/app") -> None:
        super().__init__(f"There is no application {app!r} in the project.", violations=_at(pointer, "no such application"))
        self.app = app


class TaskNotFound(NotFound):
    def __init__(self, task: str, *, pointer: str = "#/params/task") -> None:
        super().__init__(f"This server has no task {task!r}.", violations=_at(pointer, "no such task"))
        self.task = task


class TokenNotFound(NotFound):
    def __init__(self, token_id: str) -> None:
        super().__init__(f"There is no token {token_id}.")
        self.token_id = token_id


class Conflict(RuncastError):
    """The request is well formed, but conflicts with the present state."""


class JobEnded(Conflict):
    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} has already ended as {status}.")
        self.job_id = job_id
        self.status = status


class JobActive(Conflict):
    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} is still {status}; only a job that has ended can be retried.")
        self.job_id = job_id
        self.status = status


class IdempotencyConflict(Conflict):
    def __init__(self, key: str) -> None:
        super().__init__("This Idempotency-Key was used before with another body.")
        self.key = key


class ProjectExists(Conflict):
    def __init__(self, project: str, *, pointer: str = "#/params/name") -> None:
        super().__init__(f"The workspace already has a project {project!r}.", violations=_at(pointer, "already exists"))
        self.project = project


class TemplateNotCreatable(Conflict):
    def __init__(self, template: str, *, pointer: str = "#/params/template") -> None:
        super().__init__(
            f"Template {template!r} is a part of other templates and cannot be created on its own.",
            violations=_at(pointer, "not creatable on its own"),
        )
        self.template = template


class InputsRejected(Conflict):
    """A task's inputs do not match the JSON Schema that its operator declared."""


class OutsideWorkspace(Conflict):
    def __init__(self, path: str, *, pointer: str | None = None) -> None:
        violations = _at(pointer, "leaves the workspace") if pointer else ()
        super().__init__(f"The path {path!r} leaves the workspace.", violations=violations)
        self.path = path


class TokenExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is a token {name!r} already.", violations=_at("#/name", "already exists"))
        self.name = name


class TokenProtected(Conflict):
    def __init__(self, name: str) -> None:
        detail = "is the one in the data folder (or in RUNCAST_TOKEN); it cannot be revoked here, only replaced there"
        super().__init__(f"The token {name!r} {detail}.")
        self.name = name


class TooMuch(RuncastError):
    """A limit is reached. `retry_after` says in how many seconds to try again."""

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(TooMuch):
    """Too many jobs are pending."""

    def __init__(self, pending: int, *, retry_after: int = 5) -> None:
        super().__init__(f"{pending} jobs are pending already; try again later.", retry_after=retry_after)


class QuotaExceeded(TooMuch):
    """The token has used up its quota; the message says which one."""


class Unauthenticated(RuncastError):
    """The token is missing or unknown."""


class TokenExpired(Unauthenticated):
    """The token was valid, but has expired."""


class Unavailable(RuncastError):
    """The store, the workspace or every worker is gone for now. `retry_after` is in seconds."""

    retry_after = 5


class StoreReplaced(Unavailable):
    """The database was replaced by another one, which does not have the jobs of the first."""


class WorkspaceGone(Unavailable):
    """The workspace was removed after the start. The message does not tell clients its path."""

    def __init__(self) -> None:
        super().__init__("The workspace of this server is gone, or cannot be read.")


class StartFailed(RuncastError):
    """The operating system refused to start the command."""


class LeaseLost(RuncastError):
    """The job was taken from this supervisor; the store refuses whatever it writes."""


class OperatorError(RuncastError):
    """Bad settings, tasks file, workspace or data folder. The message is one line for the operator; the exit status is 2."""
