"""Everything that runcast refuses or fails to do, as one tree.

RuncastError
├─ NotFound
│  ├─ JobNotFound          no such job (or deleted)
│  ├─ ProjectNotFound      no such project in the workspace
│  ├─ TemplateNotFound     no such template in the workspace
│  ├─ AppNotFound          no such application in the project
│  ├─ TaskNotFound         no such operator task on this server
│  └─ TokenNotFound        no such token (or revoked)
├─ Conflict
│  ├─ JobEnded             the job has ended, so it cannot be cancelled
│  ├─ JobActive            the job has not ended, so it cannot be retried
│  ├─ IdempotencyConflict  the key was used with another body
│  ├─ ProjectExists        a project of that name is already there
│  ├─ TemplateNotCreatable the template is a part of others, not a project
│  ├─ InputsRejected       a task's inputs do not match its declared schema
│  ├─ OutsideWorkspace     a path leaves the workspace
│  ├─ TokenExists          a token of that name is already there
│  └─ TokenProtected       the data folder's own token cannot be revoked
├─ TooMuch
│  ├─ QueueFull            too many jobs are pending
│  ├─ QuotaExceeded        the token has used up what it may use
│  └─ RateLimited          too many calls in too short a time
├─ InvalidRequest          the request does not match the contract
│  ├─ AddressNotFound      there is no such address
│  ├─ MethodNotAllowed     the address does not know the method
│  ├─ NotAcceptable        the answer is not to be had in that media type
│  ├─ TooLarge             the body is too large
│  ├─ TooSlow              the body did not come in time
│  └─ UnsupportedMediaType the body is not JSON
├─ Unauthenticated         no token, or one that is not known (any more)
│  └─ TokenExpired         the token has come to its end
├─ Forbidden               the token lacks the scope
├─ OriginRefused           a page or host that is not allowed here
├─ Unavailable             the store, or every worker, is gone
│  ├─ StoreReplaced        the database is another one than at first
│  └─ WorkspaceGone        the workspace was taken away while we serve it
├─ StartFailed             the operating system refused to start the command
├─ LeaseLost               the job was taken from this supervisor
├─ ContractError           (in handlers/contract/document.py) contract and code differ
└─ OperatorError           bad settings, tasks file, workspace or data folder

Which of these a client sees, and as what, is one table in `handlers/problems.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One faulty place in an input.

    `location` is `body`, `query`, `path` or `header`; `pointer` is a JSON pointer from there, as a URI fragment (`#/params/app`).
    """

    location: str
    pointer: str
    detail: str


class RuncastError(Exception):
    """The root: a sentence for a person, and the faulty places where the input has them."""

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
    """The request is well formed, but contradicts how things are."""


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
    """Not now; `retry_after` (seconds) is when to try again."""

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(TooMuch):
    """Too many jobs are pending."""

    def __init__(self, pending: int, *, retry_after: int = 5) -> None:
        super().__init__(f"{pending} jobs are pending already; try again later.", retry_after=retry_after)


class QuotaExceeded(TooMuch):
    """The token has used up what it may use: the message says of what."""


class RateLimited(TooMuch):
    """Too many calls in too short a time."""


class InvalidRequest(RuncastError):
    """The request does not match the contract; `violations` says where."""


class AddressNotFound(InvalidRequest):
    """There is no such address."""


class MethodNotAllowed(InvalidRequest):
    """The address does not know the method, but those that are `allowed`."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"This address does not know {method}, only {', '.join(allowed)}.")
        self.allowed = tuple(allowed)


class NotAcceptable(InvalidRequest):
    """The answer is not to be had in a media type that the client accepts."""


class TooLarge(InvalidRequest):
    """The body is too large."""


class TooSlow(InvalidRequest):
    """The body did not come in time."""


class UnsupportedMediaType(InvalidRequest):
    """The body is not JSON."""


class Unauthenticated(RuncastError):
    """No token, or one that is not known."""


class TokenExpired(Unauthenticated):
    """The token was good until its end came."""


class Forbidden(RuncastError):
    """The token lacks the scope that the call needs."""


class OriginRefused(RuncastError):
    """The request names a host, or comes from a page, that this server does not serve."""


class Unavailable(RuncastError):
    """What the call needs is gone for now: the store, the workspace, or every worker. `retry_after` is in seconds."""

    retry_after = 5


class StoreReplaced(Unavailable):
    """Where the store was there is another one, which knows nothing of what is done for the first."""


class WorkspaceGone(Unavailable):
    """The workspace was there when we started. Where it was is no client's business."""

    def __init__(self) -> None:
        super().__init__("The workspace of this server is gone, or cannot be read.")


class StartFailed(RuncastError):
    """The operating system refused to start the command."""


class LeaseLost(RuncastError):
    """The job was taken from this supervisor; nothing that it writes counts any more."""


class OperatorError(RuncastError):
    """Bad settings, tasks file, workspace or data folder: one clear line for the operator, and exit status 2."""
