"""Create, build and launch a project of the shipped workspace, as a newcomer's script does it: the two contracts, and nothing else."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from support.events import OrderedClient
from support.server import RunningServer
from support.waiting import eventually

NAME = "my_company.two_contracts"


class Script:
    """Submits over HTTP, watches over Socket.IO."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._socket = OrderedClient(reconnection=False)
        self._socket.on("*", lambda event, payload: self._events.put((event, payload)))
        self._socket.connect(url, auth={"token": token})  # by long-polling, then a WebSocket: what browsers do

    def close(self) -> None:
        self._socket.disconnect()

    def start(self, type: str, **params: Any) -> str:
        answer = requests.post(f"{self._url}/api/jobs/submit", json={"type": type, "params": params}, headers=self._headers, timeout=20)
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        assert answer.headers["Location"].endswith(f"/api/jobs/{job_id}")
        assert self._socket.call("subscribe", {"job_id": job_id}, timeout=20)["ok"]
        return job_id

    def until(self, event: str, job_id: str) -> dict[str, Any]:
        while True:
            name, payload = self._events.get(timeout=40)
            if name == event and payload["job_id"] == job_id:
                return dict(payload)

    def get(self, path: str) -> Any:
        return requests.get(f"{self._url}/api{path}", headers=self._headers, timeout=20).json()

    def cancel(self, job_id: str) -> int:
        return requests.post(f"{self._url}/api/jobs/{job_id}/cancel", headers=self._headers, timeout=20).status_code

    def log(self, job_id: str) -> str:
        lines = self.get(f"/jobs/{job_id}/log")["lines"]
        return "\n".join(line["text"] for line in lines)


@contextmanager
def script(server: RunningServer) -> Iterator[Script]:
    script = Script(server.url, server.token)
    try:
        yield script
    finally:
        script.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_create_build_launch_open_and_cancel(server: RunningServer) -> None:
    with script(server) as run:
        created = run.start("create", template="small_editor", name=NAME, display_name="Two contracts")
        assert run.until("complete", created)["status"] == "completed", run.log(created)

        built = run.start("build", config="debug")
        percent = 0
        while percent < 100:
            progress = run.until("progress", built)["percent"]
            assert progress >= percent
            percent = progress
        assert run.until("complete", built)["status"] == "completed", run.log(built)

        launched = run.start("launch", app=f"{NAME}.kit")
        job = eventually(lambda: (job := run.get(f"/jobs/{launched}"))["ready_at"] and job, "the application is ready", seconds=30)
        url = job["result"]["url"]
        page = requests.get(url, timeout=10)
        assert page.status_code == 200

        assert run.cancel(launched) == 202
        end = run.until("complete", launched)
        assert (end["status"], end["reason"]) == ("cancelled", "cancelled_by_client")
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=5)
        history = [event["status"] for event in run.get(f"/jobs/{launched}/events")["events"]]
        assert (history[0], history[-1]) == ("pending", "cancelled")
