"""Operations about the service itself and its caller."""

from __future__ import annotations

from handlers.representations import Answer, caller_json, counts_json, worker_json
from jobs.model import Caller
from jobs.service import Service


def get_stats(service: Service) -> Answer:
    return Answer(counts_json(service.counts()))


def list_workers(service: Service) -> Answer:
    return Answer({"workers": [worker_json(worker) for worker in service.workers()]})


def get_whoami(service: Service, *, caller: Caller) -> Answer:
    return Answer(caller_json(caller))


def get_liveness(service: Service) -> Answer:
    return Answer({"status": "ok"})


def get_readiness(service: Service) -> Answer:
    service.check_ready()
    return Answer({"status": "ok"})
