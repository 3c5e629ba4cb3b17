"""Claims: which jobs a worker gets, in which order, and why the others wait."""

from __future__ import annotations

import threading

from sqlalchemy import update

from jobs.model import WaitingFor
from jobs.store.schema import workers
from support.stores import DONE, SUPERVISOR, StoreHarness


def test_higher_priority_first_then_oldest(harness: StoreHarness) -> None:
    ids = [harness.submit(priority=priority) for priority in (0, 5, -5, 0, 5)]
    assert [lease.job_id for lease in harness.claim()] == [ids[1], ids[4], ids[0], ids[3], ids[2]]


def test_claims_are_limited_to_free_slots(harness: StoreHarness) -> None:
    for _ in range(5):
        harness.submit()
    assert len(harness.claim(slots=2)) == 2
    assert harness.claim(slots=2) == []
    assert len(harness.claim(slots=3)) == 1
    assert len(harness.claim(slots=1, worker="another")) == 1, "each worker has slots of its own"
    assert harness.leases.running(harness.leases_of_worker()) == 3


def test_jobs_of_one_key_run_one_at_a_time_in_order(harness: StoreHarness) -> None:
    first, second = harness.submit(key="k"), harness.submit(key="k", priority=10)
    free = harness.submit()
    leases = harness.claim()
    assert {lease.job_id for lease in leases} == {first, free}
    assert harness.store.get(second).waiting_for is WaitingFor.CONCURRENCY_KEY
    assert harness.claim() == []
    (held,) = [lease for lease in leases if lease.job_id == first]
    harness.leases.end(held, DONE)
    assert [lease.job_id for lease in harness.claim()] == [second]


def test_a_worker_serves_its_queues_only(harness: StoreHarness) -> None:
    gpu, default = harness.submit(queue="gpu"), harness.submit()
    assert harness.store.get(gpu).waiting_for is WaitingFor.WORKER
    harness.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert harness.store.get(default).waiting_for is WaitingFor.SLOT
    assert harness.store.get(gpu).waiting_for is WaitingFor.WORKER
    assert [lease.job_id for lease in harness.claim()] == [default]
    assert [lease.job_id for lease in harness.claim(queues=("other", "gpu"), worker="v")] == [gpu]


def test_a_silent_worker_serves_no_queue(harness: StoreHarness) -> None:
    job_id = harness.submit()
    harness.leases.register_worker(worker_id="w", host="h", pid=1, slots=1, queues=["default"])
    assert [worker.alive for worker in harness.store.workers()] == [True]
    earlier = update(workers).values(heartbeat_at=workers.c.heartbeat_at - 60_000)
    harness.database.write(lambda connection: connection.execute(earlier))
    assert [worker.alive for worker in harness.store.workers()] == [False]
    assert harness.store.get(job_id).waiting_for is WaitingFor.WORKER
    harness.leases.worker_alive("w")
    assert harness.store.get(job_id).waiting_for is WaitingFor.SLOT
    harness.leases.worker_gone("w")
    assert harness.store.workers() == []


def test_two_workers_never_claim_the_same_job(harness: StoreHarness) -> None:
    submitted = {harness.submit(key=f"k{number % 10}") for number in range(40)}
    claimed: list[str] = []
    start = threading.Barrier(2)

    def work(name: str) -> None:
        own = StoreHarness(harness.database.url)
        start.wait()
        while leases := own.claim(worker=name):
            for lease in leases:
                own.leases.take(lease, supervisor=SUPERVISOR)
                claimed.append(lease.job_id)
                own.leases.end(lease, DONE)
        own.database.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while leases := harness.claim():  # what a key still held back when the last of the two looked
        claimed += [lease.job_id for lease in leases]
        for lease in leases:
            harness.leases.end(lease, DONE)
    assert sorted(claimed) == sorted(submitted)
