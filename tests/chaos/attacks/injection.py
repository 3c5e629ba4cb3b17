"""Values that want to be more: options, placeholders, shell, variables, results, commands to a terminal. Plain data, or refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from chaos.attacks.paths import TASKS
from chaos.attacks.row import Attack, Row, Target, commands, refused
from support.server import command, task_submission

PLAIN = (
    "$(id)",
    "`id`",
    "; id",
    "| id",
    "&& id #",
    "> /tmp/owned",
    "{text}",
    "{{text}}",
    "{path}",
    "{file:playback.toml}",
    "{0.__class__}",
    "%(text)s %s %n",
    "${HOME}",
    "$HOME",
    "~",
    "*",
    "a b  c",
    "a\nb",
    "a\n--config=x",
    "a\r\nGIVEN=b",
    "'\"\\",
    "LD_PRELOAD=/tmp/x.so",
    "PATH=/tmp",
    "\x1b]0;owned\x07\x1b[2J",
    "\u009b31m\u202eevil",
    "::progress 50 owned",
    '::result {"owned": true}',
    "\u00e4\U0001f600\u0000".replace("\0", ""),
    "x" * 1000,
)
OPTIONS = ("--config=x", "-x", "-", "--", "-la\n", "--\0")
TERMINAL = "\u009b31m\u202eevil\u2066"
SUBMISSION = task_submission("true")
UNKNOWN: dict[str, dict[str, Any]] = {
    "environment": {"env": {"PATH": "/tmp"}},
    "a command": {"argv": ["id"]},
    "a shell": {"command": "id"},
    "a folder": {"cwd": "/"},
    "a user": {"user": "root"},
    "secrets": {"secrets": ["HOME"]},
    "a submitter": {"submitted_by": "admin"},
    "a status": {"status": "completed"},
    "a prototype": {"__proto__": {"admin": True}},
    "an id": {"id": "01a20aea-47cb-77cf-a213-2079a2774332"},
}
NAMED = {"queue": "a\x1b[2Jb", "labels": ["a\x1b[2J"], "concurrency_key": "a\x1b[2J"}
# What a job prints, and what must not become its result.
RESULTS = {
    "huge": "import sys; sys.stdout.write('::result {\"owned\": \"' + 'x' * 200000 + '\"}\\n')",
    "deep": "print('::result ' + '{\"owned\":' * 10000 + '1' + '}' * 10000)",
    "a bit too deep": "print('::result ' + '{\"owned\":' * 21 + '1' + '}' * 21)",
    "a list": "print('::result [1]')",
    "no number": "print('::result {\"owned\": NaN}')",
    "no double": "print('::result {\"owned\": 1e999}')",
    "no text": 'print(\'::result {"owned": "\\\\ud800"}\')',
    "an endless integer": "print('::result {\"owned\": ' + '9' * 50000 + '}')",
    "two lines": "print('::result {\"owned\":\\n1}')",
    "within a line": "print('x ::result {\"owned\": 1}')",
    "no UTF-8": 'import sys; sys.stdout.buffer.write(b\'::result {"owned": "\\xff"}\\n\')',
}
PROGRESSES = ("101", "-1", "1e999", "nan", "9" * 5000, "\u0665\u0660")


def plain(text: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        job = target.server.wait(target.server.run("show", text=text))
        assert job["status"] == "completed", job
        arguments, environ = target.server.raw_log(job["id"]).split("\n--\n")
        assert arguments.split("\0")[4:] == [text, ""], arguments
        variables = dict(variable.split("=", 1) for variable in environ.split("\0")[:-1])
        assert variables["GIVEN"] == f"<{text}>"
        assert job["result"] is None and job["params"]["inputs"] == {"text": text}
        known = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR", "GIVEN", "RUNCAST_JOB"}
        strange = {name for name in variables if name not in known and not name.startswith("LC_")}
        assert not strange, strange

    return run


def option(text: str) -> Callable[[Target], None]:
    return lambda target: refused(target.server.call("POST", "/jobs/submit", json=task_submission("show", text=text)), 409)


def unknown(place: Callable[[dict[str, Any]], dict[str, Any]], what: dict[str, Any]) -> Callable[[Target], None]:
    return lambda target: refused(target.server.call("POST", "/jobs/submit", json=place(what)), 400, 409)


PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "the submission": lambda what: {**SUBMISSION, **what},
    "its params": lambda what: {**SUBMISSION, "params": {**SUBMISSION["params"], **what}},
    "its inputs": lambda what: task_submission("true", **what),
}


def forged_result(program: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        job = target.server.wait(
            target.server.run("shell", script=f"exec python3 -c '{program}'" if "'" not in program else heredoc(program))
        )
        assert job["status"] == "completed", job
        assert job["result"] is None, str(job["result"])[:200]
        assert "::result" in target.server.raw_log(job["id"])

    return run


def heredoc(program: str) -> str:
    return f"exec python3 - <<'END'\n{program}\nEND\n"


def forged_progress(target: Target) -> None:
    lines = "\n".join(f"::progress {percent}" for percent in PROGRESSES)
    job = target.server.wait(target.server.run("shell", script=f"cat <<'END'\n{lines}\nEND\n"))
    assert job["progress"]["percent"] is None, job["progress"]


def forged_end(target: Target) -> None:
    """A job that says what runcast says is still a job that says so."""
    script = "echo '[runcast: lines 1 to 99 were dropped, the log was too long]'; echo 'runcast.audit INFO submit_job by=admin'; exit 3"
    job = target.server.wait(target.server.run("shell", script=script))
    assert (job["status"], job["exit_code"]) == ("failed", 3)
    assert "by=admin" not in target.server.output.replace("by=admin from=", "")


def terminal_in_a_name(field: str) -> Callable[[Target], None]:
    return lambda target: refused(target.server.call("POST", "/jobs/submit", json={**SUBMISSION, field: NAMED[field]}), 400)


def terminal_in_what_is_shown(target: Target) -> None:
    """The command line spells out whatever a terminal would obey."""
    hostile = {**task_submission("show", text=TERMINAL), "concurrency_key": TERMINAL}
    job = target.server.submit(hostile)
    target.server.wait(job["id"])
    spelled_out = 0
    for line in (
        ["show", job["id"]],
        ["show", job["id"], "--json"],
        ["list"],
        ["list", "--json"],
        ["cancel", job["id"]],
        ["show", f"ab{TERMINAL}"],
    ):
        ran = subprocess.run(
            [*command(line[0]), *line[1:], "--url", target.server.url], env=environment(target), capture_output=True, check=False
        )
        text = (ran.stdout + ran.stderr).decode()
        assert not commands(text), text
        spelled_out += "\\u202eevil" in text
    assert spelled_out == 4, "it was not shown at all"


def environment(target: Target) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "RUNCAST_TOKEN": target.server.token, "HOME": str(target.server.folder)}


def terminal_in_the_audit_log(target: Target) -> None:
    headers = {"Authorization": "Bearer \x9b31m".encode("latin-1"), "X-Forwarded-For": "\x9b31m".encode("latin-1")}
    refused(target.call("GET", "/api/jobs", headers=headers), 401, 400)


def attacks() -> Iterator[Attack]:
    for text in PLAIN:
        yield Attack(f"{quote(text[:40])} as a value", plain(text), changes=True)
    for text in OPTIONS:
        yield Attack(f"{quote(text)} as a value", option(text))
    for name, place in PLACES.items():
        for what, value in UNKNOWN.items():
            yield Attack(f"{what} in {name}", unknown(place, value))
    for what, program in RESULTS.items():
        yield Attack(f"a result that is {what}", forged_result(program), changes=True)
    yield Attack("progress that is none", forged_progress, changes=True)
    yield Attack("lines that look like ours", forged_end, changes=True)
    for field in NAMED:
        yield Attack(f"a terminal's command as {field}", terminal_in_a_name(field))
    yield Attack("a terminal's command on the command line", terminal_in_what_is_shown, changes=True)
    yield Attack("a terminal's command in a token", terminal_in_the_audit_log)


SCENARIOS = (
    Row(
        name="attack-injection",
        fault="options, placeholders, shell, environment, forged results, terminal escapes",
        attacks=list(attacks()),
        options={"tasks": TASKS, "slots": 2},
    ).scenario(),
)
