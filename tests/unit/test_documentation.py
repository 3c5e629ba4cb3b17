"""The documents are held against the code: tables, commands, links, names. `tests/e2e/test_readme.py` runs the programs in them."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest

from chaos.registry import ATTACKS, SCENARIOS
from handlers.cli.main import runcast
from handlers.cli.options import variable
from handlers.contract.document import Contract
from handlers.events.sockets import EVENTS_IN, EVENTS_OUT
from jobs.model import ENDED, TRANSITIONS, JobType, Reason, WaitingFor
from jobs.recipes.tasks import Task
from jobs.recipes.tasks_file import load_tasks
from jobs.settings import Settings
from support.documents import (
    ALL,
    FOR_DEVELOPERS,
    FOR_USERS,
    ROOT,
    all_names,
    anchors,
    block,
    code_spans,
    document,
    links,
    names_in,
    rows,
    shell_lines,
    tables,
)

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README_WORDS = 1500
OTHER_COMMANDS = {"make", "npx", "npm", "git", "cp", "rm", "python", ".venv/bin/python", ".venv/bin/ruff"}
"""What shell blocks may begin with, besides `runcast` and what the tour runs."""


# -- All documents ----------------------------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    assert len(document("README.md").split()) <= README_WORDS


@pytest.mark.parametrize("name", ALL)
def test_make_targets_exist(name: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", document(name), re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_documents_name_the_make_targets_of_daily_work() -> None:
    assert {"demo", "test", "serve"} <= set(re.findall(r"\bmake ([a-z-]+)", document("README.md")))
    assert {"check", "fix", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", document("CONTRIBUTING.md")))
    assert {"fuzz", "fuzz-events", "client", "console"} <= set(re.findall(r"\bmake ([a-z-]+)", document("docs/clients.md")))


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name: str) -> None:
    for link in links(name):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


def test_readme_links_to_every_document() -> None:
    assert {*ALL, "LICENSE"} - {"README.md"} <= set(links("README.md"))


@pytest.mark.parametrize("name", [*FOR_USERS, *FOR_DEVELOPERS])
def test_shown_commands_are_accepted(name: str) -> None:
    """The tour is run elsewhere; here every command line of runcast is parsed, and the others are known."""
    for line in shell_lines(name):
        for arguments in _runcast_calls(line):
            _parse(arguments)
    for span in code_spans(name):
        if span.startswith("runcast "):
            _parse(span.removeprefix("runcast "))


def _runcast_calls(line: str) -> list[str]:
    return re.findall(r"(?:^|[ (/])runcast ([^&|)]*)", line)


def _parse(arguments: str) -> None:
    """Raises click.UsageError when runcast does not take these arguments."""
    group: click.Group = runcast
    words = shlex.split(arguments)
    while True:
        context = click.Context(group, info_name="runcast")
        _, command, words = group.resolve_command(context, words)
        assert command is not None
        if not (isinstance(command, click.Group) and words and words[0] in command.commands):
            break
        group = command
    try:
        command.make_context("runcast", words)
    except click.exceptions.Exit as error:  # --help
        assert error.exit_code == 0


@pytest.mark.parametrize("name", [*FOR_USERS, *FOR_DEVELOPERS])
def test_shell_blocks_hold_known_commands_only(name: str) -> None:
    tour = "".join(block(name, f"tour: {part}") for part in re.findall(r"^<!-- tour: (\S+) -->$", document(name), re.MULTILINE))
    for line in shell_lines(name):
        if line.split("\n")[0] not in tour.replace("\\\n", " "):
            assert shlex.split(line)[0] in OTHER_COMMANDS | {"runcast", ".venv/bin/runcast"}, line


@pytest.mark.parametrize("name", FOR_USERS)
def test_named_options_exist(name: str) -> None:
    options = {text for command in _commands(runcast) for option in command.params for text in option.opts}
    named = {span.split()[0] for span in code_spans(name) if span.startswith("--")}
    assert named - options == set()


def _commands(command: click.Command) -> list[click.Command]:
    return [command, *(each for child in getattr(command, "commands", {}).values() for each in _commands(child))]


# -- Jobs and tasks ---------------------------------------------------------------------------------------------------------


def test_the_state_diagram_is_the_state_machine() -> None:
    diagram = re.search(r"^```mermaid\nstateDiagram-v2\n(.*?)^```", document("README.md"), re.MULTILINE | re.DOTALL)
    assert diagram
    arrows = re.findall(r"^\s+(\S+) --> ([a-z]+|\[\*\])(?:: .+)?$", diagram[1], re.MULTILINE)
    assert len(arrows) == len(diagram[1].splitlines())
    coded = [(str(source), str(target)) for source, targets in TRANSITIONS.items() for target in targets]
    assert sorted(arrows) == sorted([("[*]", "pending"), *coded, *((str(status), "[*]") for status in ENDED)])


def test_the_table_of_job_types_names_exactly_their_params() -> None:
    contract = Contract.load()
    table = {cells[0].strip("`"): cells[1] for cells in rows("README.md", "type")}
    assert set(table) == set(JobType)
    for job_type, params in table.items():
        schema = contract.params_schema(job_type)
        required = set(schema["required"]) if "required" in schema else set()
        said = set(re.findall(r"`(\w+\??)`", re.sub(r"\([^)]*\)", "", params)))
        assert said == {name if name in required else f"{name}?" for name in schema["properties"]}
        for name, values in re.findall(r"`(\w+)\??` \(([^)]*)\)", params):
            assert re.findall(r"`(\w+)`", values) == schema["properties"][name]["enum"]


def test_every_word_that_a_pending_job_may_wait_for_is_named() -> None:
    (sentence,) = re.findall(r"`waiting_for` says what a pending job waits for: (.*?)\.", document("README.md"), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", sentence))) == set(WaitingFor)


def test_the_table_of_reasons_is_complete() -> None:
    table = {cells[0].strip("`"): cells[1].strip("`") for cells in rows("docs/tasks.md", "reason")}
    assert set(table) == set(Reason)
    assert set(table.values()) == {"failed", "cancelled"} < set(ENDED)


def test_the_tasks_files_load(tmp_path: Path) -> None:
    for name, marker in (("docs/tasks.md", "tasks"), ("README.md", "tasks: short")):
        (tmp_path / "tasks.toml").write_text(block(name, marker))
        assert set(load_tasks(tmp_path / "tasks.toml")) == {"lint"}
    (submission,) = re.findall(r'`(\{"type": "task".*\})`, or `runcast submit task (.*?)`', document("docs/tasks.md"))
    params = json.loads(submission[0])["params"]
    assert Contract.load().body_violations("submit_job", json.loads(submission[0])) == []
    assert submission[1] == f"task={params['task']} " + " ".join(f"{key}={value}" for key, value in params["inputs"].items())
    assert f"`runcast submit task {submission[1]}`" in document("README.md")


def test_the_table_of_task_keys_is_the_task(tmp_path: Path) -> None:
    """Every key, in their order, with its default; and the long example shows each of them."""
    (tmp_path / "least.toml").write_text('[tasks.least]\nargv = ["true"]\n')
    least = load_tasks(tmp_path / "least.toml")["least"]
    table = {cells[0].strip("`"): cells[1] for cells in rows("docs/tasks.md", "key")}
    assert set(table) == {item.name for item in fields(Task)} - {"name", "validator"}
    said_in_words = {"title": "the task's name", "argv": "required", "progress": "built-in patterns", "inputs": "no inputs"}
    for key, default in table.items():
        value = getattr(least, key)
        if key in said_in_words:
            assert default == said_in_words[key]
        elif value in (None, (), {}):
            assert default == "none", key
        else:
            assert json.loads(default.strip("`")) == value, key
    assert least.title == "least" and least.progress == () and least.inputs["properties"] == {}
    assert set(tomllib.loads(block("docs/tasks.md", "tasks"))["tasks"]["lint"]) == set(table)


def test_the_table_of_events_is_the_contract() -> None:
    table = {cells[0].strip("`"): cells[1] for cells in rows("docs/clients.md", "event")}
    assert table == {**dict.fromkeys(EVENTS_IN, "client"), **dict.fromkeys(EVENTS_OUT, "server")}


# -- Settings and commands --------------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_the_settings() -> None:
    table = rows("docs/settings.md", "option")
    assert [cells[1].strip("`") for cells in table] == [variable(item.name) for item in fields(Settings)]
    for (option, _, default, meaning), item in zip(table, fields(Settings), strict=True):
        secret = item.metadata.get("secret")
        assert option == ("" if secret else f"`--{item.name.replace('_', '-')}`")
        assert meaning == item.metadata["help"]
        plain = None if item.default is MISSING else item.default
        if plain is False:
            assert default == "off"
        elif plain in (None, ()):
            assert re.fullmatch(r"[^`]+", default)  # in words: nothing, or what it depends on
        else:
            values = plain if isinstance(plain, tuple) else (plain,)
            assert default == ", ".join(f"`{value:g}`" if isinstance(value, float) else f"`{value}`" for value in values)


def test_the_table_of_commands_is_the_commands() -> None:
    said = {cells[0].strip("`"): cells[1] for cells in rows("docs/settings.md", "command")}
    assert said == {name: (command.help or "").splitlines()[0] for name, command in runcast.commands.items()}


def test_every_option_has_a_meaning() -> None:
    options = [
        (name, option) for name, command in runcast.commands.items() for option in command.params if isinstance(option, click.Option)
    ]
    assert len(options) > 50
    assert [f"{name} {option.opts[0]}" for name, option in options if not re.match(r"[A-Z][^[]*[\w)`]\.", option.help or "")] == []


def test_every_variable_is_documented() -> None:
    options = [option for command in runcast.commands.values() for option in command.params]
    variables = {option.envvar for option in options if isinstance(option.envvar, str)} | {variable(item.name) for item in fields(Settings)}
    assert {name for name in variables if f"`{name}`" not in document("docs/settings.md")} == set()
    # and none that means nothing
    for name in FOR_USERS:
        assert set(re.findall(r"\bRUNCAST_[A-Z_]*[A-Z]\b", document(name))) <= variables


def test_the_exit_codes_that_are_promised_are_those_of_the_code() -> None:
    from handlers.cli.connection import MISUSED, REFUSED
    from handlers.cli.live import EXIT_CODES

    settings = " ".join(document("docs/settings.md").split())
    (promised,) = re.findall(r"exit as the job ended: (.*?)\.", settings)
    assert promised == ", ".join(f"{code} {status}" for status, code in EXIT_CODES.items())
    assert f"The exit status of a command that the server refuses is {REFUSED}, that of a misused command {MISUSED}." in settings


# -- What developers read ---------------------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"[<*…]|\bNNNN\b")


@pytest.mark.parametrize("name", FOR_DEVELOPERS)
def test_named_paths_exist(name: str) -> None:
    paths = [span for span in code_spans(name) if re.fullmatch(r"[\w.*<>…-]+(/[\w.*<>…-]*)+|[\w-]+\.(py|md|toml|yaml|lock)|Makefile", span)]
    assert len(paths) > 20
    plain = [path for path in paths if not PLACEHOLDER.search(path)]
    assert [path for path in plain if not (ROOT / path).exists()] == []
    for path in set(paths) - set(plain):
        assert list(ROOT.glob(re.sub(r"<\w+>|…|NNNN", "*", path))), path


@pytest.mark.parametrize("name", FOR_DEVELOPERS)
def test_named_code_exists(name: str) -> None:
    """Spans such as `Store.submit`, `jobs.transition`, `transition()` and `JobLog`."""
    spans = [
        span.removesuffix("()") for span in code_spans(name) if re.fullmatch(r"\w+\.[A-Za-z]\w*(\(\))?|\w+\(\)|([A-Z][a-z]+){2,}", span)
    ]
    files = ("py", "md", "yaml", "toml", "lock", "ts", "tsx", "json", "mjs", "db")
    assert [span for span in spans if span.rpartition(".")[2] not in files and span not in all_names()] == []


@pytest.mark.parametrize("name", FOR_DEVELOPERS)
def test_named_functions_are_in_the_named_file(name: str) -> None:
    """Where a document says "`transition()` in `jobs/store/transitions.py`"."""
    for function, path in re.findall(r"`([\w.]+)(?:\(\))?`\s+(?:in|from)\s+`([\w/]+\.py)`", document(name)):
        assert function in names_in(ROOT / path), function


def test_the_lives_name_functions_of_their_files() -> None:
    lives = tables("ARCHITECTURE.md", "file | function")
    assert len(lives) == 3
    for path, function, *_ in (row for life in lives for row in life):
        named = re.findall(r"`([\w.]+)`", function)
        assert named
        assert set(named) <= names_in(ROOT / path.strip("`")), path


def test_the_rooms_are_the_packages() -> None:
    named = {path.strip("`") for path, *_ in rows("ARCHITECTURE.md", "room")}
    packages = {f"{path.parent.relative_to(ROOT)}/" for package in ("handlers", "jobs") for path in (ROOT / package).glob("*/__init__.py")}
    assert packages <= named


# -- Decisions, changes, security -------------------------------------------------------------------------------------------


def test_decisions_have_their_fields() -> None:
    text = document("DECISIONS.md")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. \S", text, re.MULTILINE)]
    assert len(numbers) > 50
    assert numbers == list(range(1, len(numbers) + 1))
    for entry in re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]:
        title = entry.partition("\n")[0]
        assert re.search(r"^\d{4}-\d\d-\d\d · (accepted|superseded by \[\d+\]\(#.*\))$", entry, re.MULTILINE), title
        for word in re.findall(r"-k ([\w]+)", entry):
            assert any(word in str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")), word
        for scenario in re.findall(r"make chaos ARGS=\"--only ([\w-]+)\"", entry):
            assert scenario in {known.name for known in SCENARIOS}, scenario
        assert re.findall(r"^\* \*\*(\w+)\.\*\* \S", entry, re.MULTILINE) == ["Context", "Decision", "Consequence", "Measure"], title


def test_one_version_is_told_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    contract = Contract.load()
    assert contract.openapi["info"]["version"] == version
    assert contract.asyncapi["info"]["version"] == version
    released = re.findall(r"^## (\d\S+)", document("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == version


def test_the_changelog_is_kept_as_it_says() -> None:
    changelog = document("CHANGELOG.md")
    assert re.findall(r"^## (.*)", changelog, re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.*)", changelog, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert all(
        re.match(r"## (Unreleased|\d+\.\d+\.\d+( - \d{4}-\d\d-\d\d)?)$", line) for line in re.findall(r"^## .*", changelog, re.MULTILINE)
    )


def test_security_names_only_tests_that_there_are() -> None:
    security = document("SECURITY.md")
    scenarios = {scenario.name for scenario in ATTACKS}
    assert set(re.findall(r"`(attack-[a-z]+)`", security)) | {"attack-browser"} == scenarios | {"attack-browser"}
    named = re.findall(r"`(tests/[\w/.-]+)`", security)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
