"""How the command line is parsed, without a server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from handlers.cli.main import main
from handlers.cli.options import read_duration, read_object, read_time, settings_from, settings_options, split_pairs, typed
from handlers.cli.service import NOT_FOR_WORKERS, serve, worker
from jobs.errors import OperatorError
from jobs.settings import Settings

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RUNCAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """The settings that a command line means."""

    @click.command()
    @settings_options()
    def command(**given: object) -> Settings:
        return settings_from(given)

    def parse(*arguments: str) -> Settings:
        parsed = command.main(list(arguments), standalone_mode=False)
        assert isinstance(parsed, Settings)
        return parsed

    return parse


def test_no_options_give_the_default_settings(settings: Callable[..., Settings]) -> None:
    assert settings() == Settings()


def test_every_setting_has_option_and_variable_and_secrets_only_the_latter() -> None:
    options = {option.name: option for option in serve.params if isinstance(option, click.Option)}
    for item in fields(Settings):
        if item.metadata.get("secret"):
            assert item.name not in options
            continue
        option = options[item.name]
        assert option.opts == ["--" + item.name.replace("_", "-")]
        assert option.envvar == "RUNCAST_" + item.name.upper()
        assert option.help and option.help.startswith(item.metadata["help"])


def test_a_worker_has_only_the_options_that_concern_it() -> None:
    names = {item.name for item in fields(Settings)}
    assert set(NOT_FOR_WORKERS) < names
    assert {option.name for option in worker.params} == names - set(NOT_FOR_WORKERS) - {"token"}


def test_every_type_of_setting_is_parsed(settings: Callable[..., Settings]) -> None:
    given = settings("--port", "0", "--lease-seconds", "2.5", "--data-dir", "here", "--queue", "gpu", "--queue", "cpu", "--keep-jobs")
    assert given == Settings(port=0, lease_seconds=2.5, data_dir=Path("here"), queue=("gpu", "cpu"), keep_jobs=True)


def test_variables_apply_and_options_take_precedence(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_PORT", "9001")
    monkeypatch.setenv("RUNCAST_SLOTS", "7")
    monkeypatch.setenv("RUNCAST_QUEUE", "gpu, cpu")
    monkeypatch.setenv("RUNCAST_NO_WORKER", "1")
    monkeypatch.setenv("RUNCAST_TOKEN", "s3cret")
    given = settings("--port", "9002")
    assert given == Settings(port=9002, slots=7, queue=("gpu", "cpu"), no_worker=True, token="s3cret")


def test_invalid_settings_give_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "99999"]) == 2
    assert capsys.readouterr().err == "runcast: --port must be between 0 and 65535.\n"
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--allow-host" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["serve", "--port", "x"], ["submit"], ["submit", "bake"], ["list", "--status", "odd"], ["nonsense"]])
def test_misuse_gives_status_2_and_no_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"^(runcast|Error): ", said.err, re.MULTILINE)
    assert "Traceback" not in said.err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    from handlers.cli.main import runcast

    for name in ["", *runcast.commands]:
        assert main([*name.split(), "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: runcast {name}".rstrip())


def test_pairs_may_hold_anything_after_the_first_equals_sign() -> None:
    assert split_pairs(["app=x.kit", "define=A=1", "empty="]) == {"app": "x.kit", "define": "A=1", "empty": ""}


@pytest.mark.parametrize("pairs", [["config"], ["=debug"], ["a=1", "a=2"]])
def test_arguments_that_are_no_pairs_are_usage_errors(pairs: list[str]) -> None:
    with pytest.raises(click.UsageError):
        split_pairs(pairs)


SCHEMA = {
    "type": "object",
    "properties": {
        "version": {"type": "string"},
        "config": {"enum": ["release", "debug"]},
        "pattern": {"pattern": "^[0-9]+$"},
        "clean": {"type": "boolean"},
        "args": {"type": "array"},
        "count": {"type": ["integer", "null"]},
        "either": {"type": ["integer", "string"]},
    },
}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("version=1.0", "1.0"),
        ("version=true", "true"),
        ("config=debug", "debug"),
        ("pattern=12", "12"),
        ("clean=true", True),
        ("clean=yes", "yes"),
        ('args=["--a", "b c"]', ["--a", "b c"]),
        ("args=--a", "--a"),
        ("count=3", 3),
        ("count=null", None),
        ("either=3", "3"),
        ("unknown=3", 3),
        ("unknown=three", "three"),
        ("unknown=NaN", "NaN"),
    ],
)
def test_the_schema_decides_the_type_of_a_value(pair: str, value: object) -> None:
    key, _, _ = pair.partition("=")
    assert typed(split_pairs([pair]), SCHEMA) == {key: value}


def test_without_a_schema_values_are_read_as_json() -> None:
    assert typed({"a": "1", "b": "x", "c": '{"d": []}'}, None) == {"a": 1, "b": "x", "c": {"d": []}}


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": NaN}'])
def test_params_must_be_an_object(text: str) -> None:
    with pytest.raises(click.UsageError):
        read_object(text)


def test_times_are_read_from_timestamps_and_ages() -> None:
    assert read_time("2026-11-23T10:00:00+01:00") == "2026-11-23T09:00:00.000+00:00"
    read = datetime.fromisoformat(read_time("90m"))
    age = datetime.now(UTC) - read  # after it was read, or it could be a moment less than 90 minutes
    assert 5400 <= age.total_seconds() < 5460
    with pytest.raises(click.UsageError):
        read_time("yesterday")


@pytest.mark.parametrize("text", ["99999999w", f"{'9' * 5000}d", "0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00"])
def test_times_out_of_range_are_usage_errors(text: str) -> None:
    with pytest.raises(click.UsageError, match="out of range"):
        read_time(text)


@pytest.mark.parametrize("text", ["99999999999w", f"{'9' * 5000}s"])
def test_durations_out_of_range_are_usage_errors(text: str) -> None:
    with pytest.raises(click.UsageError, match="out of range"):
        read_duration(text)


@pytest.mark.parametrize("key", ["", " ", "two words", "two\nlines", "schlüssel€"])
def test_an_idempotency_key_that_cannot_be_sent_is_a_usage_error(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "build", "--idempotency-key", key, "--url", NOWHERE]) == 2
    assert capsys.readouterr().err.startswith("runcast: Invalid value for '--idempotency-key'")


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a..b", f"http://{'a' * 64}", "http://127.0.0.1:99999", "http://here:x", "ftp://here", ""]
)
def test_an_invalid_server_url_gives_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--url", url]) == 2
    assert capsys.readouterr().err == f"runcast: {url!r} is not the URL of a server, such as http://127.0.0.1:8000.\n"


@pytest.mark.parametrize("token", ["tökén€", "two\nlines", " "])
def test_a_token_that_cannot_be_sent_gives_one_line_without_the_token(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNCAST_TOKEN", token)
    assert main(["list", "--url", NOWHERE]) == 2
    said = capsys.readouterr().err
    assert said.startswith("runcast: The token from the variable RUNCAST_TOKEN cannot be sent") and said.count("\n") == 1
    assert token == " " or token not in said


def test_an_invalid_proxy_name_gives_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://a..b")
    assert main(["list", "--url", "http://server.invalid"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("runcast: http://server.invalid cannot be called: ") and said.count("\n") == 1


def test_a_worker_ignores_the_admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_TOKEN", "s3cret")
    assert settings_from({}, leave_out=NOT_FOR_WORKERS).token is None


def test_a_secret_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCAST_TOKEN", "s3cret")
    assert settings_from({}).token == "s3cret"
    with pytest.raises(OperatorError):
        settings_from({"slots": 0})
