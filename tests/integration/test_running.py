"""What jobs do, seen through the contract: output, progress, results, ends, process trees, and the order in which jobs run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from support.programs import processes_of, program, runs
from support.server import RunningServer, task_submission
from support.waiting import eventually


def raw(server: RunningServer, job_id: str) -> bytes:
    return bytes(server.call("GET", f"/jobs/{job_id}/log", headers={"Accept": "text/plain"}).content)


def lines(server: RunningServer, job_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = server.call("GET", f"/jobs/{job_id}/log", params={"limit": 1000, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["lines"])


def texts(server: RunningServer, job_id: str, **query: Any) -> list[str]:
    return [line["text"] for line in lines(server, job_id, **query)]


def output_of(server: RunningServer, script: str, *, task: str = "shell") -> list[str]:
    job_id = server.run(task, script=script)
    assert server.wait(job_id)["status"] == "completed"
    return texts(server, job_id)


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def cancel(server: RunningServer, job_id: str, *, force: bool = False) -> None:
    answer = server.call("POST", f"/jobs/{job_id}/cancel", json={"force": force})
    assert answer.status_code == 202, answer.text


# -- output ---------------------------------------------------------------------------------------------------------------


def test_a_terminal_is_one_stream_with_a_size(server: RunningServer) -> None:
    job_id = server.run("terminal", script=program("tty"))
    server.wait(job_id)
    assert texts(server, job_id) == [
        "stdin terminal",
        "stdout terminal",
        "stderr terminal",
        "size 120x40",
        "controlling terminal yes",
    ]
    assert {line["stream"] for line in lines(server, job_id)} == {"stdout"}


def test_pipes_keep_the_streams_apart(server: RunningServer) -> None:
    job_id = server.shell(program("two_streams"))
    server.wait(job_id)
    assert texts(server, job_id, stream="stdout") == [f"out {number}" for number in range(1, 11)]
    assert texts(server, job_id, stream="stderr") == [f"err {number}" for number in range(1, 11)]
    assert [line["seq"] for line in lines(server, job_id)] == list(range(1, 21))


def test_there_is_no_terminal_on_pipes(server: RunningServer) -> None:
    assert output_of(server, program("tty")) == ["stdin other", "stdout other", "stderr other", "controlling terminal no"]


@pytest.mark.parametrize("task", ["shell", "terminal"])
def test_a_rewritten_line_is_logged_in_its_last_form(server: RunningServer, task: str) -> None:
    assert output_of(server, r"printf 'one\rtwo\rthree\nfour\r\n\033[31mred\033[0m\n'", task=task) == [
        "three",
        "four",
        "\x1b[31mred\x1b[0m",
    ]


def test_the_raw_log_keeps_line_ends_and_invalid_utf8(server: RunningServer) -> None:
    job_id = server.shell(f"printf 'dos\\r\\n'; {program('invalid_utf8')}")
    server.wait(job_id)
    expected = b"dos\r\nbefore\nlone \x80 byte\ncut \xe2\x82\noverlong \xc0\xaf\nsurrogate \xed\xa0\x80\nnull \x00 byte\nafter \xc3\xbc\n"
    assert raw(server, job_id) == expected
    shown = texts(server, job_id)
    assert shown[:3] == ["dos", "before", "lone � byte"]
    assert shown[-2:] == ["null \x00 byte", "after ü"]


@pytest.mark.parametrize("task", ["shell", "terminal"])
def test_a_long_line_is_split_without_loss(server: RunningServer, task: str) -> None:
    shown = output_of(server, program("long_line", "--bytes", 200_000), task=task)
    assert (shown[0], shown[-1]) == ("before", "after")
    assert [len(piece) for piece in shown[1:-1]] == [65536, 65536, 65536, 200_000 - 3 * 65536]
    assert "".join(shown[1:-1]) == ("0123456789abcdef" * 12_500)


def test_the_last_line_needs_no_line_end(server: RunningServer) -> None:
    job_id = server.shell(program("partial_line", "no ", "line ", "end"))
    assert server.wait(job_id)["log"]["lines"] == 1
    assert raw(server, job_id) == b"no line end"


def test_output_is_stored_while_the_job_runs(server: RunningServer, tmp_path: Path) -> None:
    job_id = server.shell(program("waits_for_file", tmp_path / "go"))
    server.wait_for_log(job_id, "waiting")
    assert server.job(job_id)["status"] == "running"
    (tmp_path / "go").touch()
    assert server.wait(job_id)["status"] == "completed"
    assert texts(server, job_id) == ["waiting", "seen"]


def test_a_job_without_output_has_an_empty_log(server: RunningServer) -> None:
    job = server.wait(server.run("true"))
    assert job["log"] == {"lines": 0, "bytes": 0, "dropped_lines": 0}
    assert raw(server, job["id"]) == b""


@pytest.mark.parametrize("task", ["shell", "terminal"])
def test_many_lines_arrive_whole_and_in_order(server: RunningServer, task: str) -> None:
    job_id = server.run(task, script=program("numbered_lines", 20_000))
    assert server.wait(job_id)["log"]["lines"] == 20_000
    assert raw(server, job_id) == b"".join(b"line %d\n" % number for number in range(1, 20_001))


# -- progress, result, readiness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["before", "ninja", "make", "directive"])
def test_progress_rises_to_its_end(server: RunningServer, style: str) -> None:
    with server.connect() as events:
        job_id = server.run("terminal", script=program("progress", "--style", style, "--delay", 0.06))
        events.subscribe(job_id)
        events.wait("complete", job_id)
        percents = [event["percent"] for event in events.of("progress", job_id)]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 4
    assert server.job(job_id)["progress"]["percent"] == 100
    if style == "directive":
        assert texts(server, job_id) == [], "directives are no output"


def test_progress_is_limited_to_ten_a_second_and_the_last_is_sent(server: RunningServer) -> None:
    with server.connect() as events:
        job_id = server.run("terminal", script=program("progress", "--style", "directive", "--steps", 300, "--delay", 0.003))
        events.subscribe(job_id)
        duration = events.wait("complete", job_id)["duration_seconds"]
        progress = events.of("progress", job_id)
    assert progress[-1]["percent"] == 100
    assert progress[-1]["message"] == "part 300"
    assert 3 <= len(progress) <= duration * 10 + 2


def test_progress_never_goes_back(server: RunningServer) -> None:
    job_id = server.shell("echo '::progress 60 most'; echo '::progress 20 less'; echo '12% done'; echo '::progress 61'")
    assert server.wait(job_id)["progress"]["percent"] == 61


def test_a_job_reports_its_result(server: RunningServer) -> None:
    job_id = server.shell("""echo before; echo '::result {"url": "http://x", "n": [1, 2.5, null]}'; echo after""")
    assert server.wait(job_id)["result"] == {"url": "http://x", "n": [1, 2.5, None]}
    assert texts(server, job_id) == ["before", "after"]


def test_an_invalid_result_line_stays_in_the_log(server: RunningServer) -> None:
    said = ["::result [1]", "::result {", '::result {"n": NaN}', "::progress much", "::progress 101", " ::progress 5"]
    job_id = server.shell("\n".join(f"echo '{line}'" for line in said))
    job = server.wait(job_id)
    assert job["result"] is None
    assert texts(server, job_id) == said


def test_a_service_becomes_ready(server: RunningServer) -> None:
    with server.connect() as events:
        job_id = server.run("service", script=program("server"))
        events.subscribe(job_id)
        assert events.wait("progress", job_id)["message"] == "ready"
        job = server.job(job_id)
        assert (job["status"], job["progress"]["message"]) == ("running", "ready")
        assert job["started_at"] <= job["ready_at"]
        assert requests.get(job["result"]["url"], timeout=5).text.startswith("hello from ")
        cancel(server, job_id)
        complete = events.wait("complete", job_id)
    assert complete["status"] == "cancelled"
    assert complete["result"] == job["result"]
    with pytest.raises(requests.ConnectionError):
        requests.get(job["result"]["url"], timeout=5)


# -- how jobs end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_exit_code_decides_the_status(server: RunningServer, code: int) -> None:
    job = server.wait(server.shell(f"exit {code}"))
    assert (job["exit_code"], job["signal"]) == (code, None)
    if code == 0:
        assert (job["status"], job["reason"], job["error"]) == ("completed", None, None)
    else:
        assert (job["status"], job["reason"]) == ("failed", "exit_code")
        assert str(code) in job["error"]["detail"]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_signal_is_the_reason_of_a_failed_job(server: RunningServer, name: str) -> None:
    job = server.wait(server.shell(program("killed_by", name)))
    assert (job["status"], job["reason"], job["exit_code"], job["signal"]) == ("failed", "signal", None, name)
    assert name in job["error"]["detail"]


def test_a_missing_program_is_a_start_error(server: RunningServer) -> None:
    job = server.wait(server.run("missing"))
    assert (job["status"], job["reason"], job["exit_code"]) == ("failed", "start_error", None)
    assert "no-such-program" in job["error"]["detail"]


def test_a_missing_folder_is_a_start_error(server: RunningServer, tmp_path: Path) -> None:
    folder = server.folder / "data" / "workspace" / "short-lived"
    folder.mkdir()
    holder = server.shell(program("waits_for_file", tmp_path / "go"), concurrency_key="folder")
    job_id = server.submit({**task_submission("in_folder", folder="short-lived", script="pwd"), "concurrency_key": "folder"})["id"]
    folder.rmdir()
    (tmp_path / "go").touch()
    server.wait(holder)
    job = server.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "start_error")
    assert "short-lived" in job["error"]["detail"]


def test_a_job_starts_in_its_folder(server: RunningServer) -> None:
    job_id = server.run("in_folder", folder="source", script="pwd")
    server.wait(job_id)
    assert texts(server, job_id) == [str(server.folder / "data" / "workspace" / "source")]


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["recipe", "submission"])
def test_a_timeout_ends_the_whole_tree(server: RunningServer, whose: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = program("setsid_grandchild", "--pid-file", pid_file, "--ignore-sigterm", "--stay")
    job_id = server.run("limited", script=script) if whose == "recipe" else server.shell(script, timeout_seconds=1)
    job = server.wait(job_id)
    assert processes_of(job_id) == []
    assert not runs(int(pid_file.read_text()))
    assert (job["status"], job["reason"]) == ("failed", "timeout")
    assert "1 second" in job["error"]["detail"]
    assert 1 <= seconds_between(job["started_at"], job["ended_at"]) < 4


# -- cancel ---------------------------------------------------------------------------------------------------------------


def test_a_program_may_clean_up_when_it_is_cancelled(server: RunningServer) -> None:
    job_id = server.shell("trap 'echo cleaning; sleep 0.3; echo cleaned; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    server.wait_for_log(job_id, "ready")
    cancel(server, job_id)
    job = server.wait(job_id)
    assert (job["status"], job["reason"], job["exit_code"], job["error"]) == ("cancelled", "cancelled_by_client", 3, None)
    assert texts(server, job_id, stream="stdout") == ["ready", "cleaning", "cleaned"]
    assert seconds_between(job["cancel_requested_at"], job["ended_at"]) < 1, "it need not wait for the rest of the grace period"


def test_a_job_that_ignores_the_signal_is_killed_after_its_grace(server: RunningServer) -> None:
    job_id = server.shell(program("ignores_sigterm", "--say"))
    server.wait_for_log(job_id, "ready")
    cancel(server, job_id)
    assert server.job(job_id)["status"] == "running", "a cancel request is no state"
    cancel(server, job_id)
    job = server.wait(job_id)
    assert processes_of(job_id) == []
    assert (job["status"], job["reason"], job["signal"]) == ("cancelled", "cancelled_by_client", "SIGKILL")
    assert texts(server, job_id) == ["ready", "ignored SIGTERM"]
    assert 1 <= seconds_between(job["cancel_requested_at"], job["ended_at"]) < 3


@pytest.mark.parametrize("change_of_mind", [False, True])
def test_force_skips_the_grace_period(server: RunningServer, change_of_mind: bool) -> None:
    job_id = server.submit({**task_submission("patient", script=program("ignores_sigterm")), "labels": ["forced"]})["id"]
    server.wait_for_log(job_id, "ready")
    if change_of_mind:
        cancel(server, job_id)
    cancel(server, job_id, force=True)
    job = server.wait(job_id)
    assert (job["status"], job["signal"]) == ("cancelled", "SIGKILL")
    assert seconds_between(job["cancel_requested_at"], job["ended_at"]) < 5


TREES: dict[str, Callable[[Path], str]] = {
    "a grandchild in a session of its own": lambda pid: program("setsid_grandchild", "--pid-file", pid, "--ignore-sigterm", "--stay"),
    "one without the marker": lambda pid: program("setsid_grandchild", "--pid-file", pid, "--clean-env", "--stay"),
    "one that keeps the pipe open": lambda pid: f"{program('holds_pipe', '--own-session').removeprefix('exec ')}; sleep 600",
    "a tree": lambda pid: program("spawns_children"),
    "one that multiplies": lambda pid: program("multiplies"),
    "one that runs away": lambda pid: f"{program('runaway').removeprefix('exec ')}; sleep 600",
}


@pytest.mark.slow
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
@pytest.mark.parametrize("task", ["shell", "terminal"])
def test_a_cancelled_job_leaves_nothing_behind(server: RunningServer, task: str, tree: Callable[[Path], str], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with server.connect() as events:
        job_id = server.run(task, script=tree(pid_file))
        events.subscribe(job_id)
        events.wait("log", job_id)
        said = [int(line) for line in texts(server, job_id) if line.isdigit()]
        cancel(server, job_id)
        eventually(lambda: server.job(job_id)["status"] == "cancelled", "the job is cancelled")
        # At this very moment, not a little later.
        left = processes_of(job_id)
        assert left == []
        assert not any(runs(pid) for pid in said)
        assert not (pid_file.exists() and runs(int(pid_file.read_text())))
        assert events.wait("complete", job_id)["reason"] == "cancelled_by_client"


def test_a_job_can_be_cancelled_at_the_moment_it_starts(server: RunningServer) -> None:
    """Wherever in its start the request meets it: it ends as cancelled, and nothing of it runs."""
    for _ in range(5):
        job_id = server.shell("sleep 600")
        eventually(lambda: server.job(job_id)["status"] == "running", "it runs")  # noqa: B023  # called before the next turn
        cancel(server, job_id)
        job = server.wait(job_id)
        assert (job["status"], job["reason"]) == ("cancelled", "cancelled_by_client")
        assert processes_of(job_id) == []


# -- what outlives the command --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_grandchild_with_the_pipe_delays_the_end_for_a_bounded_time(server: RunningServer) -> None:
    job_id = server.shell(program("holds_pipe", "--own-session"))
    job = server.wait(job_id)
    assert processes_of(job_id) == []
    assert (job["status"], job["exit_code"]) == ("completed", 0)
    assert 1.5 < seconds_between(job["started_at"], job["ended_at"]) < 8
    assert texts(server, job_id) == ["leaving"]


def test_late_output_of_a_grandchild_is_logged_in_time(server: RunningServer) -> None:
    job_id = server.shell(program("holds_pipe", "--seconds", 0.4))
    job = server.wait(job_id)
    assert texts(server, job_id) == ["leaving", "late"]
    assert seconds_between(job["started_at"], job["ended_at"]) < 2, "it need not wait for the rest of the drain"


def test_a_daemon_does_not_outlive_its_job(server: RunningServer, tmp_path: Path) -> None:
    job_id = server.shell(program("setsid_grandchild", "--pid-file", tmp_path / "pid", "--ignore-sigterm"))
    job = server.wait(job_id)
    assert not runs(int((tmp_path / "pid").read_text()))
    assert job["status"] == "completed"


# -- the environment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["shell", "terminal"])
def test_a_job_sees_a_minimal_environment(server: RunningServer, task: str) -> None:
    job_id = server.run(task, script=program("prints_env"))
    server.wait(job_id)
    seen = dict(line.split("=", 1) for line in texts(server, job_id))
    usual = {"HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR", "PATH"}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    own = {"RUNCAST_JOB"} | ({"TERM"} if task == "terminal" else set())
    assert {name for name in seen if not name.startswith("LC_")} <= usual | of_the_shell | own
    assert seen["RUNCAST_JOB"].startswith(f"{job_id}:")
    assert server.token not in raw(server, job_id).decode()
    assert not any(str(server.folder / "data" / "runcast.db") in value for value in seen.values())


def test_no_descriptor_of_the_service_reaches_a_job(server: RunningServer) -> None:
    shown = output_of(server, "ls -l /proc/self/fd")
    assert len([line for line in shown if "->" in line]) == 4, shown  # the three streams, and the listing's own


# -- the order in which jobs run ------------------------------------------------------------------------------------------


@contextmanager
def taken_slots(server: RunningServer, folder: Path, count: int) -> Iterator[Callable[[], None]]:
    """Jobs that hold so many slots of the server; gives what frees one of them."""
    gates = [folder / f"gate-{number}" for number in range(count)]
    holders = [server.shell(program("waits_for_file", gate)) for gate in gates]
    for job_id in holders:
        server.wait_for_log(job_id, "waiting")
    left = iter(gates)
    try:
        yield lambda: next(left).touch()
    finally:
        for gate in gates:
            gate.touch()
        for job_id in holders:
            server.wait(job_id)


def test_jobs_of_one_key_run_one_at_a_time_in_the_order_of_submission(server: RunningServer, tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f"echo begin {{0}} >> {note}; sleep 0.15; echo end {{0}} >> {note}"
    ids = [server.run("keyed", key="one", script=script.format(number)) for number in range(4)]
    last_of_highest = server.submit({**task_submission("keyed", key="one", script=script.format(4)), "priority": 10})["id"]
    for job_id in [*ids, last_of_highest]:
        assert server.wait(job_id)["status"] == "completed"
    assert note.read_text().splitlines() == [f"{word} {number}" for number in range(5) for word in ("begin", "end")]


def test_jobs_of_different_keys_run_side_by_side(server: RunningServer, tmp_path: Path) -> None:
    # Each waits for the other.
    ids = [
        server.run("keyed", key=mine, script=f"touch {tmp_path}/{mine}; while ! [ -e {tmp_path}/{other} ]; do sleep 0.02; done")
        for mine, other in (("left", "right"), ("right", "left"))
    ]
    assert [server.wait(job_id)["status"] for job_id in ids] == ["completed", "completed"]


def test_priority_then_age_decides_and_slots_are_the_limit(server: RunningServer, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with taken_slots(server, tmp_path, 2) as free_one:
        ids = {
            name: server.shell(f"echo {name} >> {note}", priority=priority)
            for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 7))
        }
        jobs = [server.job(job_id) for job_id in ids.values()]
        assert {(job["status"], job["waiting_for"]) for job in jobs} == {("pending", "slot")}
        (worker,) = server.call("GET", "/workers").json()["workers"]
        assert (worker["slots"], worker["busy_slots"]) == (2, 2)
        free_one()
        for job_id in ids.values():
            server.wait(job_id)
    assert note.read_text().split() == ["high", "first", "second", "low"]


def test_a_pending_job_tells_what_it_waits_for(server: RunningServer, tmp_path: Path) -> None:
    with taken_slots(server, tmp_path, 1):
        holder = server.run("keyed", key="k", script=program("waits_for_file", tmp_path / "go"))
        server.wait_for_log(holder, "waiting")
        waiting = {
            "slot": server.shell("exit 0"),
            "concurrency_key": server.run("keyed", key="k", script="exit 0"),
            "worker": server.shell("exit 0", queue="served-by-nobody"),
        }
        for reason, job_id in waiting.items():
            job = server.job(job_id)
            assert (job["status"], job["waiting_for"]) == ("pending", reason)
        assert server.job(holder)["waiting_for"] is None
        cancel(server, waiting["worker"])
        job = server.job(waiting["worker"])
        assert (job["status"], job["reason"], job["started_at"]) == ("cancelled", "cancelled_by_client", None)
        (tmp_path / "go").touch()
        server.wait(holder)
        for reason in ("slot", "concurrency_key"):
            assert server.wait(waiting[reason])["status"] == "completed"


def test_deleting_a_running_job_ends_it(server: RunningServer, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    job_id = server.shell(program("setsid_grandchild", "--pid-file", pid_file, "--stay"))
    server.wait_for_log(job_id, "started")
    assert server.call("DELETE", f"/jobs/{job_id}").status_code == 204
    assert server.call("GET", f"/jobs/{job_id}").status_code == 404
    eventually(lambda: not processes_of(job_id) and not runs(int(pid_file.read_text())), "nothing of it runs")


# -- a log that is too long -----------------------------------------------------------------------------------------------


def test_a_log_over_its_cap_keeps_head_and_tail_and_marks_the_gap(make_server: Callable[..., RunningServer]) -> None:
    cap, count = 65536, 20_000
    server = make_server(log_cap=cap, slots=1)
    with server.connect() as events:
        job_id = server.shell(program("numbered_lines", count, "--bytes", 50))
        events.subscribe(job_id)
        complete = events.wait("complete", job_id, seconds=40)
        live = events.lines(job_id)
    assert complete["log_lines"] == count
    assert [line.split()[1] for line in live] == [str(number) for number in range(1, count + 1)], "who watches gets everything"

    page = server.call("GET", f"/jobs/{job_id}/log", params={"limit": 1000}).json()
    dropped = page["dropped"]
    gone = dropped["last_seq"] - dropped["first_seq"] + 1
    job = server.job(job_id)
    assert job["log"] == {"lines": count, "bytes": count * 50, "dropped_lines": gone}

    kept = raw(server, job_id).decode().splitlines()
    place = dropped["first_seq"] - 1
    assert kept[place] == f"[runcast: lines {dropped['first_seq']} to {dropped['last_seq']} were dropped, the log was too long]"
    numbers = [int(line.split()[1]) for line in kept[:place] + kept[place + 1 :]]
    assert numbers == [*range(1, dropped["first_seq"]), *range(dropped["last_seq"] + 1, count + 1)]
    assert cap // 2 <= place * 50 <= cap, "the head is there"
    assert cap // 4 <= (count - dropped["last_seq"]) * 50 <= cap, "and so is the tail"

    seqs = [line["seq"] for line in page["lines"]]
    assert seqs == [seq for seq in range(1, count + 1) if not dropped["first_seq"] <= seq <= dropped["last_seq"]][: len(seqs)]
    assert json.loads(server.call("GET", f"/jobs/{job_id}/log", params={"tail": 2}).text)["lines"][-1]["seq"] == count


LONG_FIRST = "head -c 70000 /dev/zero | tr '\\0' A; echo; seq 2000; echo the reason"
LONG_LAST = "seq 20000; head -c 65000 /dev/zero | tr '\\0' B; echo; echo the reason"


@pytest.mark.parametrize("script", [LONG_FIRST, LONG_LAST], ids=["first", "last"])
def test_a_line_longer_than_the_cap_does_not_remove_the_end(make_server: Callable[..., RunningServer], script: str) -> None:
    cap = 65536
    server = make_server(log_cap=cap, slots=1)
    job_id = server.shell(script)
    count = server.wait(job_id)["log"]["lines"]
    dropped = server.call("GET", f"/jobs/{job_id}/log").json()["dropped"]
    (last,) = lines(server, job_id, tail=1)
    assert (last["seq"], last["text"]) == (count, "the reason")
    whole = raw(server, job_id)
    notice = f"[runcast: lines {dropped['first_seq']} to {dropped['last_seq']} were dropped, the log was too long]\n".encode()
    assert whole.count(notice) == 1
    assert cap // 2 <= len(whole) - len(notice) <= cap
    with server.connect() as events:
        events.subscribe(job_id)
        assert events.wait("complete", job_id)["log_lines"] == count
        assert events.of("error") == []
        seqs = [payload["first_seq"] + place for payload in events.of("log", job_id) for place in range(len(payload["lines"]))]
    assert seqs == [*range(1, dropped["first_seq"]), *range(dropped["last_seq"] + 1, count + 1)]


def test_force_ends_processes_that_outlive_their_command_in_the_grace(server: RunningServer, tmp_path: Path) -> None:
    script = (
        f"(trap '' TERM; echo ready; sleep 60 & wait; sleep 60) & trap 'touch {tmp_path}/left; exit' TERM; while :; do sleep 0.02; done"
    )
    job_id = server.submit({**task_submission("patient", script=script)})["id"]
    server.wait_for_log(job_id, "ready")
    server.call("POST", f"/jobs/{job_id}/cancel")
    eventually((tmp_path / "left").exists, "the command obeys")
    server.call("POST", f"/jobs/{job_id}/cancel", json={"force": True})
    began = time.monotonic()
    assert server.wait(job_id)["status"] == "cancelled"
    assert time.monotonic() - began < 3
