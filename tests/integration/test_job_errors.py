"""Why a job failed: the store keeps a sentence, and clients get a problem."""

from __future__ import annotations

from sqlalchemy import update

from handlers.representations import job_json
from jobs.bootstrap import make_engine
from jobs.model import Job, JobType, Json, Reason, Status, Submission
from jobs.store.database import Database
from jobs.store.jobs import NewJob, Store
from jobs.store.leases import Leases, Outcome
from jobs.store.schema import jobs
from support.stores import claim


def failed(database: Database, error: str | None) -> Job:
    """A job that has failed with this error."""
    engine = make_engine(database.url)
    submission = Submission(JobType.TASK, {"task": "any"})
    job_id = Store(database, engine).submit(NewJob(submission, "default", None, None, "tests"), max_pending=1).job.id
    leases = Leases(database, engine)
    (lease,) = claim(database, worker_id="worker", host="here", queues=["default"], slots=1)
    leases.take(lease, supervisor={})
    leases.end(lease, Outcome(Status.FAILED, "exited with code 1", Reason.EXIT_CODE, error=error))
    return Store(database, engine).get(job_id)


def problem(detail: str) -> dict[str, Json]:
    return {"type": "urn:runcast:problem:job-failed", "title": "Job failed", "status": 500, "detail": detail}


def test_an_error_is_a_problem_to_clients(database: Database) -> None:
    job = failed(database, "The command exited with code 1.")
    assert job.error == "The command exited with code 1."
    assert job_json(job)["error"] == problem("The command exited with code 1.")


def test_a_job_without_an_error_has_no_problem(database: Database) -> None:
    job = failed(database, None)
    assert job.error is None
    assert job_json(job)["error"] is None


def test_a_long_error_is_cut_to_what_the_contract_allows(database: Database) -> None:
    assert failed(database, "x" * 5000).error == "x" * 4000


def test_a_problem_that_an_earlier_version_stored_is_still_read(database: Database) -> None:
    job = failed(database, None)
    stored = problem("The command exited with code 1.")
    database.write(lambda connection: connection.execute(update(jobs).where(jobs.c.id == job.id).values(error=stored)))
    assert job_json(Store(database, make_engine(database.url)).get(job.id))["error"] == stored
