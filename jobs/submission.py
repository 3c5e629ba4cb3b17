"""The way in for every job: expand the recipe, check the quotas, store. The HTTP service submits through it; so does whatever else will."""

from __future__ import annotations

from jobs.model import Job, Submission
from jobs.recipes.expand import Recipes
from jobs.store.jobs import IdempotencyKey, NewJob, Store, Submitted
from jobs.store.quotas import Quotas


class Submissions:
    """`max_pending` bounds the pending jobs of all submitters together, `quotas` those of each."""

    def __init__(self, store: Store, recipes: Recipes, *, max_pending: int, quotas: Quotas | None = None) -> None:
        self._store = store
        self._recipes = recipes
        self._max_pending = max_pending
        self._quotas = quotas

    def submit(
        self, submission: Submission, *, by: str, idempotency: IdempotencyKey | None = None, retry_of: str | None = None
    ) -> Submitted:
        """Store a job for the submission, or find the one that the key stands for.

        Raises what `Recipes.expand` and `Store.submit` raise; nothing is stored then.
        """
        if idempotency and (earlier := self._store.replay(idempotency)) is not None:
            # Before the recipe is expanded: a `create` that was accepted stays accepted after its project exists.
            return Submitted(earlier, replayed=True)
        recipe = self._recipes.expand(submission)
        new = NewJob(submission, recipe.queue, recipe.concurrency_key, recipe.project, by, retry_of)
        return self._store.submit(new, max_pending=self._max_pending, quotas=self._quotas, idempotency=idempotency)

    def retry(self, job_id: str, *, by: str) -> Job:
        """A new job from the submission of one that has ended. Raises JobNotFound, JobActive, and what `submit` raises."""
        job = self._store.get_ended(job_id)
        return self.submit(Submission.from_json(job.submission), by=by, retry_of=job.id).job
