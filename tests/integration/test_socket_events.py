"""What a subscriber sees of a job: everything once, in order."""

from __future__ import annotations

import pytest

from support.server import RunningServer


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_subscriber_sees_the_whole_job_in_order(server: RunningServer, transport: str) -> None:
    with server.connect(transport=transport) as events:
        job_id = server.shell("echo one; echo '::progress 50 half'; echo two; exit 3")
        answer = events.subscribe(job_id)
        assert answer["job"]["id"] == job_id
        assert answer["next_seq"] == 1
        complete = events.wait("complete", job_id)
        assert events.lines(job_id) == ["one", "two"]
        assert (complete["status"], complete["reason"], complete["exit_code"], complete["log_lines"]) == ("failed", "exit_code", 3, 2)
        assert events.of("progress", job_id)[-1]["percent"] == 50
        assert events.of("error", job_id)[0]["problem"]["type"] == "urn:runcast:problem:job-failed"
        assert [name for name, _ in events.events][-2:] == ["error", "complete"]
