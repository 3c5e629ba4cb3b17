"""Jobs that print the secrets that they were given, in every way that programs do: masked wherever somebody could read them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

from chaos.attacks.paths import TASKS
from chaos.attacks.row import Attack, Row, Target

SECRET = 'hunter2/"+\u00fc-Xq7Zr9Lw'
OTHER = "second-Tt4Vb6Nn8"
"""Known to a client as well, who says it in its params: those stay as they were submitted."""
FORMS = {
    SECRET,
    base64.b64encode(SECRET.encode()).decode(),
    base64.urlsafe_b64encode(SECRET.encode()).decode(),
    quote(SECRET, safe=""),
    json.dumps(SECRET)[1:-1],
    json.dumps(SECRET, ensure_ascii=False)[1:-1],
}
HALVES = 'first=$(printf %s "$CHAOS_SECRET" | head -c 9); rest=$(printf %s "$CHAOS_SECRET" | tail -c +10)'
BYTEWISE = 'printf %s "$CHAOS_SECRET" | fold -b -w1'
# What prints it; the log must have as many masks as there are prints.
SCRIPTS = {
    "whole": 'echo "$CHAOS_SECRET"',
    "within a line": 'echo "token=$CHAOS_SECRET;"',
    "many times": 'for i in 1 2 3 4 5; do printf "$i%s" "$CHAOS_SECRET"; done; echo',
    "split over two writes": f'{HALVES}; printf %s "$first"; sleep 0.2; printf "%s\\n" "$rest"',
    "split over many writes": f'{BYTEWISE} | while IFS= read -r c || [ "$c" ]; do printf %s "$c"; sleep 0.01; done; echo',
    "without a line end": 'printf %s "$CHAOS_SECRET"',
    "at the end of a long line": "head -c 70000 /dev/zero | tr '\\0' x; echo \"$CHAOS_SECRET\"",
    "across the cut of a long line": "head -c 65530 /dev/zero | tr '\\0' x; echo \"$CHAOS_SECRET$CHAOS_SECRET\"",
    "in an error message": 'echo "fatal: cannot log in with $CHAOS_SECRET" >&2; exit 1',
    "by a command that is not there": 'exec "/nowhere/$CHAOS_SECRET"',
    "by a shell that tells what it does": 'set -x; : "$CHAOS_SECRET"',
    "in its environment": "env | grep CHAOS_SECRET",
    "as progress": 'echo "::progress 50 with $CHAOS_SECRET"; echo "[1/2] $CHAOS_SECRET"',
    "as a result": 'printf \'::result {"a": "%s", "%s": 1}\\n\' "$CHAOS_OTHER" "$CHAOS_OTHER"',
    "in colours": 'printf "\\033[31m%s\\033[0m\\n" "$CHAOS_SECRET"',
    "rewriting a line": 'printf "%s\\rdone\\n%s\\n" "$CHAOS_SECRET" "$CHAOS_SECRET"',
    "in base64": 'printf %s "$CHAOS_SECRET" | base64',
    "in base64, behind a user": 'printf "user:%s" "$CHAOS_SECRET" | base64',
    "in base64 for URLs": 'printf %s "$CHAOS_SECRET" | base64 | tr +/ -_',
    "in a URL": f'echo "https://example.com/?t={quote(SECRET, safe="")}"',
    "by a descendant": '(trap "" HUP; sleep 0.3; echo "$CHAOS_SECRET") & sleep 0.1',
    "echoed by a tool that got it as an input": f"echo '{OTHER}'",
}


def leak(task: str, script: str) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        with target.server.connect() as watcher:
            watcher.call("subscribe", {"all": True})
            job_id = target.server.run(task, script=script)
            watcher.subscribe(job_id)
            watcher.wait("complete", job_id)
            heard = json.dumps(watcher.events, ensure_ascii=False)
        job = target.server.job(job_id)
        job["params"] = None
        said = {
            "the job": json.dumps(job, ensure_ascii=False),
            "its history": target.server.call("GET", f"/jobs/{job_id}/events").text,
            "its log": target.server.call("GET", f"/jobs/{job_id}/log").text,
            "its raw log": target.server.raw_log(job_id),
            "what was cast": heard,
        }
        forms = {OTHER} if OTHER in script else FORMS
        for place, text in said.items():
            plain = text.replace("\\\\", "\\").replace('\\"', '"')
            assert not [form for form in forms if form in text or form in plain], f"{place} has it"
        assert any("***" in text for text in (said["its raw log"], said["the job"])), "nothing was masked"

    return run


def check(target: Target) -> None:
    """In no file of the store, whatever was in them meanwhile."""
    for path in target.surroundings.database.parent.glob("runcast.db*"):
        data = path.read_bytes()
        assert not [form for form in FORMS - {quote(SECRET, safe="")} if form.encode() in data], f"{path.name} has the secret"


def attacks() -> Iterator[Attack]:
    for way, script in SCRIPTS.items():
        yield Attack(f"printed {way}", leak("leak", script), changes=True)
        yield Attack(f"printed {way}, on a terminal", leak("leak_terminal", script), changes=True)


SCENARIOS = (
    Row(
        name="attack-secrets",
        fault="secrets printed whole, in pieces, encoded, as progress, result or error; on pipes and on terminals",
        attacks=list(attacks()),
        prepare=lambda target: target.secrets.extend(FORMS | {OTHER}),
        environment={"CHAOS_SECRET": SECRET, "CHAOS_OTHER": OTHER},
        options={"tasks": TASKS, "slots": 2},
        check=check,
    ).scenario(),
)
