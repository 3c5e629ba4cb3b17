"""Every setting from an option, from a variable and from both; and which values are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click
import pytest

from handlers.cli.main import main
from handlers.cli.options import settings_from, settings_options, variable
from jobs.errors import OperatorError
from jobs.settings import Settings, default_data_dir

TWO: Mapping[type, tuple[Any, Any]] = {
    int: (70_001, 70_002),
    float: (2.5, 3.5),
    str: ("sqlite:///one.db", "sqlite:///two.db"),
    Path: (Path("one"), Path("two")),
}
OWN: Mapping[str, tuple[Any, Any]] = {
    "host": ("127.0.0.1", "::1"),
    "port": (9001, 9002),
    "queue": (("gpu",), ("cpu", "default")),
    "allow_origin": (("https://one.example",), ("https://two.example", "https://three.example")),
    "allow_host": (("one.example",), ("two.example", "three.example")),
    "token": ("one", "two"),
    "rate_limit": ("10/second", "off"),
    "failure_limit": ("3/hour", "off"),
}
"""Two values of each setting that is bounded, or of a type of its own."""
FLAGS = [item.name for item in fields(Settings) if item.default is False]
OTHERS = [item.name for item in fields(Settings) if item.name not in FLAGS]
FIELDS: Mapping[str, Field[Any]] = {item.name: item for item in fields(Settings)}


@pytest.fixture(autouse=True)
def scrubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RUNCAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def two_values(name: str) -> tuple[Any, Any]:
    if name in OWN:
        return OWN[name]
    default = FIELDS[name].default
    kind = type(default) if default is not MISSING and default is not None else {"slots": int, "database_url": str}.get(name, Path)
    return TWO[kind]


def parsed(*arguments: str) -> Settings:
    """The settings that a command line means."""

    @click.command()
    @settings_options()
    def command(**given: object) -> Settings:
        return settings_from(given)

    settings = command.main(list(arguments), standalone_mode=False)
    assert isinstance(settings, Settings)
    return settings


def having(**values: Any) -> Settings:
    return Settings(**values)


def option(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    return [part for one in values for part in (f"--{name.replace('_', '-')}", str(one))]


def in_variable(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", OTHERS)
def test_a_variable_sets_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in two_values(name):
        monkeypatch.setenv(variable(name), in_variable(value))
        assert parsed() == having(**{name: value})


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "token"])
def test_an_option_takes_precedence_over_the_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two_values(name)
    assert parsed(*option(name, first)) == having(**{name: first})
    monkeypatch.setenv(variable(name), in_variable(first))
    assert parsed(*option(name, second)) == having(**{name: second})


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_an_option_without_a_value_or_a_variable_with_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = f"--{name.replace('_', '-')}"
    assert parsed(flag) == having(**{name: True})
    for text, meant in {"1": True, "true": True, "yes": True, "0": False, "false": False, "": False}.items():
        monkeypatch.setenv(variable(name), text)
        assert parsed() == having(**{name: meant})
        assert parsed(flag) == having(**{name: True})


@pytest.mark.parametrize("name", OTHERS)
def test_an_empty_variable_counts_as_absent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(name), "")
    assert parsed() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_dir", "a?b"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "x"),
        ("slots", "0"),
        ("slots", "1.5"),
        ("max_pending", "0"),
        ("log_cap", "65535"),
        ("lease_seconds", "0.9"),
        ("lease_seconds", "nan"),
        ("lease_seconds", "inf"),
        ("lease_seconds", "soon"),
        ("retain_days", "-1"),
        ("retain_days", "nan"),
        ("retain_days", "inf"),
        ("retain_jobs", "-1"),
        ("retain_bytes", "-1"),
        ("database_url", "mysql://here/jobs"),
        ("database_url", "sqlite://"),
        ("database_url", "sqlite:///:memory:"),
        ("database_url", "sqlite:///file:jobs?mode=memory&cache=shared&uri=true"),
        ("host", "0.0.0.0"),
    ],
)
def test_an_invalid_value_gives_one_line_and_status_2(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("handlers.server.serve.serve", lambda _: 0)  # what is accepted by mistake must not start a server
    flag = f"--{name.replace('_', '-')}"
    assert main(["serve", flag, value]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("runcast: ")
    assert flag in said.err or value in said.err
    monkeypatch.setenv(variable(name), value)
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_value_of_the_wrong_type_names_its_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RUNCAST_NO_WORKER", "maybe")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("runcast: RUNCAST_NO_WORKER: Invalid value for '--no-worker': 'maybe'")


def test_listening_beyond_loopback_requires_host_names() -> None:
    with pytest.raises(OperatorError, match="--allow-host"):
        Settings(host="0.0.0.0")
    assert Settings(host="0.0.0.0", allow_host=("jobs.example.com",)).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.2", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_every_loopback_address_is_recognised(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["::", "128.0.0.1", "127.example.com", "127.0.0.1.example.com"])
def test_names_that_resemble_loopback_are_not_loopback(host: str) -> None:
    with pytest.raises(OperatorError, match="--allow-host"):
        Settings(host=host)


@pytest.mark.parametrize("token", [" ", "two words", "two\nlines", "bell\a", "schlüssel", "one\n"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(OperatorError, match="RUNCAST_TOKEN") as refusal:
        Settings(token=token)
    assert token.strip() == "" or token.strip() not in str(refusal.value)


def test_the_data_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_data_dir() == tmp_path / "runcast"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Settings().data_dir == tmp_path / "home" / ".local" / "share" / "runcast"


def test_a_child_process_gets_the_same_settings() -> None:
    values: dict[str, Any] = {name: True if name in FLAGS else two_values(name)[1] for name in FIELDS}
    given = having(**values)
    assert Settings.from_json(given.to_json()) == given
    assert Settings.from_json(Settings().to_json()) == Settings()


def test_a_worker_id_depends_on_data_folder_and_queues() -> None:
    here = Settings(data_dir=Path("here"), queue=("gpu", "cpu"))
    assert Settings(data_dir=Path("here"), queue=("cpu", "gpu"), slots=7).worker_id == here.worker_id
    others = [Settings(data_dir=Path("there"), queue=here.queue), Settings(data_dir=here.data_dir, queue=("gpu",))]
    assert len({here.worker_id, *(other.worker_id for other in others)}) == 3


def test_a_data_folder_has_one_name_from_any_folder_and_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    ways = [Settings(data_dir=way) for way in (Path("data"), Path("./x/../data"), tmp_path / "data", Path("link"), tmp_path / "link")]
    assert {way.data_dir for way in ways} == {tmp_path.resolve() / "data"}
    assert len({(way.url, way.worker_id, way.token_file) for way in ways}) == 1
    urls = ("sqlite:///jobs.db", f"sqlite:///{tmp_path}/jobs.db", "sqlite:///other.db")
    one, same, other = (Settings(data_dir=Path("data"), database_url=url).worker_id for url in urls)
    assert one == same != other


def test_a_data_folder_that_cannot_be_resolved_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OperatorError, match="data folder"):
        Settings(data_dir=Path("data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OperatorError, match="data folder"):
        Settings(data_dir=tmp_path / "circle")
