"""Jobs that print the secrets that they were given, in every way that programs do: masked wherever somebody could read them."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from chaos.attacks.paths import TASKS
from chaos.attacks.row import Attack, Row, Target

# The base64 of the first has both characters that are others in URLs.
SECRET = 'hunter2/"+\u00fc-X>q7?Zr9'
RESULT = "drittes-Jk3Wd8Qs5"
"""Can stand in JSON as it is."""
OTHER = "zweites-Tt4Vb6Nn8"
"""Known to a client as well, who says it in its params: those stay as they were submitted."""
SECRETS = (SECRET, RESULT, OTHER)
FRAGMENT = 6
"""So many characters of a secret in a row are in nothing else that is said."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{8,}")


@dataclass(frozen=True)
class Way:
    """How a script prints a secret, and what is to be read of it, to the last character; `…` is whatever the shell adds."""

    script: str
    log: str
    progress: str | None = None
    result: dict[str, Any] | None = None


HALVES = 'first=$(printf %s "$CHAOS_SECRET" | head -c 9); rest=$(printf %s "$CHAOS_SECRET" | tail -c +10)'
BYTEWISE = 'printf %s "$CHAOS_SECRET" | fold -b -w1'
WAYS = {
    "whole": Way('echo "$CHAOS_SECRET"', "***\n"),
    "within a line": Way('echo "token=$CHAOS_SECRET;"', "token=***;\n"),
    "many times": Way('for i in 1 2 3 4 5; do printf "$i%s" "$CHAOS_SECRET"; done; echo', "1***2***3***4***5***\n"),
    "split over two writes": Way(f'{HALVES}; printf %s "$first"; sleep 0.2; printf "%s\\n" "$rest"', "***\n"),
    "split over many writes": Way(f'{BYTEWISE} | while IFS= read -r c || [ "$c" ]; do printf %s "$c"; sleep 0.01; done; echo', "***\n"),
    "without a line end": Way('printf %s "$CHAOS_SECRET"', "***"),
    "at the end of a long line": Way("head -c 70000 /dev/zero | tr '\\0' x; echo \"$CHAOS_SECRET\"", "x" * 70000 + "***\n"),
    "across the cut of a long line": Way(
        "head -c 65530 /dev/zero | tr '\\0' x; echo \"$CHAOS_SECRET$CHAOS_SECRET\"", "x" * 65530 + "******\n"
    ),
    "in an error message": Way('echo "fatal: cannot log in with $CHAOS_SECRET" >&2; exit 1', "fatal: cannot log in with ***\n"),
    "by a command that is not there": Way('exec "/nowhere/$CHAOS_SECRET"', "…/nowhere/***…\n"),
    "by a shell that tells what it does": Way('set -x; : "$CHAOS_SECRET"', "+ : …***…\n"),
    "in its environment": Way("env | grep CHAOS_SECRET", "CHAOS_SECRET=***\n"),
    "as progress": Way('echo "::progress 50 with $CHAOS_SECRET"; echo "[1/2] $CHAOS_SECRET"', "[1/2] ***\n", progress="with ***"),
    "as a result": Way('printf \'::result {"a": "%s", "%s": 1}\\n\' "$CHAOS_RESULT" "$CHAOS_RESULT"', "", result={"a": "***", "***": 1}),
    "in colours": Way('printf "\\033[31m%s\\033[0m\\n" "$CHAOS_SECRET"', "\x1b[31m***\x1b[0m\n"),
    "rewriting a line": Way('printf "%s\\rdone\\n%s\\n" "$CHAOS_SECRET" "$CHAOS_SECRET"', "done\n***\n"),
    "in base64": Way('printf %s "$CHAOS_SECRET" | base64', "***\n"),
    "in base64, behind a user": Way('printf "user:%s" "$CHAOS_SECRET" | base64', "dXNlcjp***k=\n"),
    "in base64, behind a shorter user": Way('printf "usr:%s" "$CHAOS_SECRET" | base64', "dXNyOm***Q==\n"),
    "in base64 for URLs": Way('printf %s "$CHAOS_SECRET" | base64 | tr +/ -_', "***\n"),
    "in a URL": Way(f'echo "https://example.com/?t={quote(SECRET, safe="")}"', "https://example.com/?t=***\n"),
    "in JSON": Way(f"cat <<'END'\n{json.dumps({'token': SECRET})}\nEND\n", '{"token": "***"}\n'),
    "by a descendant": Way('(trap "" HUP; sleep 0.3; echo "$CHAOS_SECRET") & sleep 0.1', "***\n"),
    "echoed by a tool that got it as an input": Way(f"echo '{OTHER}'", "***\n"),
}
SAID_BY_CLIENTS = {OTHER, quote(SECRET, safe="")}
"""What stands in scripts, and so in params."""


def forms_of(secret: str) -> set[str]:
    return {
        secret,
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


FORMS = frozenset().union(*map(forms_of, SECRETS))


def given_away(text: str) -> set[str]:
    """What stands in a text of any secret: in one of its forms, or so much of it as nothing else has, also below base64."""
    plain = {form for form in FORMS if form in text}
    fragments = {secret[at : at + FRAGMENT] for secret in SECRETS for at in range(len(secret) - FRAGMENT + 1)}
    return plain | {fragment for below in (text, *decoded(text)) for fragment in fragments if fragment in below}


def decoded(text: str) -> Iterator[str]:
    """Whatever may be base64 in a text, wherever its first whole group begins."""
    for found in _ENCODED.findall(text):
        for skipped in range(4):
            run = found[skipped:].translate(str.maketrans("-_", "+/"))
            yield base64.b64decode(run[: len(run) // 4 * 4]).decode("utf-8", "replace")


def leak(task: str, way: Way) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        with target.server.connect() as watcher:
            watcher.call("subscribe", {"all": True})
            job_id = target.server.run(task, script=way.script)
            watcher.subscribe(job_id)
            watcher.wait("complete", job_id)
            heard = list(watcher.events)
        job = target.server.job(job_id)
        job["params"] = None
        log = target.server.raw_log(job_id)
        said = {
            "the job": job,
            "its history": target.server.call("GET", f"/jobs/{job_id}/events").json(),
            "its log": target.server.call("GET", f"/jobs/{job_id}/log").json(),
            "its raw log": log,
            "what was cast": heard,
        }
        for place, value in said.items():
            assert not (found := given_away("\n".join(texts(value)))), f"{place} has {found}"
        assert re.fullmatch(re.escape(way.log).replace("…", ".*"), log), log[-300:]
        assert (job["progress"]["message"], job["result"]) == (way.progress, way.result)

    return run


def texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in texts(part))
    elif isinstance(value, list | tuple):
        yield from (text for part in value for text in texts(part))


def check(target: Target) -> None:
    """In no field of the store but what clients said, and in none of its files, whatever was in them meanwhile."""
    stored = "\n".join(fields(target))
    assert stored.count("***") > 2 * len(WAYS), "the logs are not there"
    assert not (found := given_away(stored)), f"the store has {found}"
    for path in target.surroundings.database.parent.glob("runcast.db*"):
        data = path.read_bytes()
        assert not [form for form in FORMS - SAID_BY_CLIENTS if form.encode() in data], f"{path.name} has a secret"


def fields(target: Target) -> Iterator[str]:
    """Everything that is stored, but for what clients submitted."""
    with closing(sqlite3.connect(f"file:{target.surroundings.database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):
                for name in set(row.keys()) - {"submission"}:
                    yield row[name].decode("utf-8", "replace") if isinstance(row[name], bytes) else str(row[name])


def attacks() -> Iterator[Attack]:
    for name, way in WAYS.items():
        yield Attack(f"printed {name}", leak("leak", way), changes=True)
        yield Attack(f"printed {name}, on a terminal", leak("leak_terminal", way), changes=True)


SCENARIOS = (
    Row(
        name="attack-secrets",
        fault="secrets printed whole, in pieces, encoded, as progress, result or error; on pipes and on terminals",
        attacks=list(attacks()),
        prepare=lambda target: target.secrets.extend(FORMS),
        environment={"CHAOS_SECRET": SECRET, "CHAOS_OTHER": OTHER, "CHAOS_RESULT": RESULT},
        options={"tasks": TASKS, "slots": 2},
        check=check,
    ).scenario(),
)
