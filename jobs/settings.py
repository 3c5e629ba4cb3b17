"""The operator's settings: one frozen dataclass, read once at start.

Every field is one option (`--data-dir`) and one variable (`RUNCAST_DATA_DIR`); the option wins. Nothing else reads the environment for
settings.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobs.errors import OperatorError
from jobs.model import HEADER_WORD

ENV_PREFIX = "RUNCAST_"
OFF = "off"
RATE = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)|off")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a queue, as in openapi/jobs.yaml
_DATABASE = re.compile(r"sqlite:///(?!:memory:|file:)(?P<file>[^?]+)(?P<query>\?.*)?")
"""Each process opens the database by its URL. One in memory, which a `file:` URI may also name, would be private to the process."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""The usual names of this machine; `is_loopback` recognises all of them."""


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def default_data_dir() -> Path:
    """The user's data folder, where the XDG base directory specification puts it."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "runcast"


def _option(default: Any, help: str, **extra: Any) -> Any:
    metadata = {"help": help, **extra}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds, sizes in bytes. A field typed as a tuple may be given several times (in a variable: with commas)."""

    host: str = _option("127.0.0.1", "Address to listen on.")
    port: int = _option(8000, "Port to listen on; 0 picks a free one.")
    data_dir: Path = _option(default_data_dir, "Folder for the database, the admin token and the default workspace.")
    workspace: Path | None = _option(None, "Folder that jobs may touch; by default a copy of the shipped one, in the data folder.")
    tasks: Path | None = _option(None, "TOML file that declares operator tasks.")
    database_url: str | None = _option(None, "URL of the database; by default SQLite in the data folder.")
    slots: int = _option(lambda: os.cpu_count() or 1, "Maximum number of jobs that a worker runs at the same time.")
    queue: tuple[str, ...] = _option(("default",), "Queue that the worker serves; may be given several times.")
    no_worker: bool = _option(False, "Serve the API only; workers run elsewhere.")
    keep_jobs: bool = _option(False, "Leave running jobs running when this server stops; its next start finds them again.")
    allow_origin: tuple[str, ...] = _option((), "Origin of a web page that may call this server; may be given several times.")
    allow_host: tuple[str, ...] = _option((), "Host name of this server for its clients, besides loopback; may be given several times.")
    token: str | None = _option(None, "Admin token, in place of the one in the data folder.", secret=True)
    max_pending: int = _option(10_000, "Maximum number of pending jobs; further submissions are refused with 429.")
    token_max_pending: int = _option(0, "Maximum number of pending jobs of one token; 0 for no limit besides --max-pending.")
    token_max_log_bytes: int = _option(0, "Maximum bytes of stored logs of one token's jobs before it may submit no more; 0 for no limit.")
    rate_limit: str = _option("60000/minute", "Maximum calls and messages of one token: N/second, N/minute, N/hour or N/day; or off.")
    failure_limit: str = _option(
        "100/minute",
        "Wrong tokens from one address before its tokens are rejected without lookup, in the same form.",
    )
    body_seconds: float = _option(30.0, "Seconds within which a client must send the whole body of a call.")
    silent_seconds: float = _option(60.0, "Disconnect an event client that has sent nothing for this many seconds.")
    log_cap: int = _option(64 << 20, "Maximum bytes kept of one job's log, half of them from its beginning and half from its end.")
    retain_days: float = _option(30.0, "Remove jobs this many days after their end.")
    retain_jobs: int = _option(200_000, "Maximum number of ended jobs to keep; the oldest are removed first.")
    retain_bytes: int = _option(20 << 30, "Maximum bytes of logs of ended jobs to keep; the oldest jobs are removed first.")
    lease_seconds: float = _option(10.0, "Treat a running job as lost when its supervisor has not renewed its lease for this many seconds.")
    validate_events: bool = _option(False, "Check every event against the contract before it is sent.")
    validate_answers: bool = _option(False, "Check every HTTP response against the contract before it is sent.")

    def __post_init__(self) -> None:
        # Processes that use the same folder must have the same name for it, whatever their current folder and through whatever link.
        object.__setattr__(self, "data_dir", _resolved(self.data_dir))
        _require("?" not in str(self.data_dir), "--data-dir: the path must not contain '?', which begins the options in a database URL.")
        _require(0 <= self.port <= 65535, "--port must be between 0 and 65535.")
        _require(self.slots >= 1, "--slots must be at least 1.")
        _require(self.max_pending >= 1, "--max-pending must be at least 1.")
        _require(self.token_max_pending >= 0, "--token-max-pending must be at least 0.")
        _require(self.token_max_log_bytes >= 0, "--token-max-log-bytes must be at least 0.")
        for name, rate in (("rate", self.rate_limit), ("failure", self.failure_limit)):
            _require(bool(RATE.fullmatch(rate)), f"--{name}-limit must be a rate such as 100/minute (second, minute, hour, day), or off.")
        _require(0 < self.body_seconds < math.inf, "--body-seconds must be more than 0.")
        _require(1 <= self.silent_seconds < math.inf, "--silent-seconds must be at least 1.")
        _require(self.log_cap >= 1 << 16, "--log-cap must be at least 65536.")
        # The comparisons also fail for nan. An infinite lease or retention would switch both off.
        _require(0 <= self.retain_days < math.inf, "--retain-days must be at least 0.")
        _require(self.retain_jobs >= 0, "--retain-jobs must be at least 0.")
        _require(self.retain_bytes >= 0, "--retain-bytes must be at least 0.")
        _require(1 <= self.lease_seconds < math.inf, "--lease-seconds must be at least 1.")
        _require(bool(self.queue), "--queue must name a queue.")
        for name in self.queue:
            _require(
                bool(_NAME.fullmatch(name)),
                f"--queue: {name!r} must be at most 100 of A-Z a-z 0-9 _ . - and begin with none of . -",
            )
        _require(bool(_DATABASE.fullmatch(self.url)), "--database-url: this version supports only a SQLite file (sqlite:///PATH).")
        _require(
            self.token is None or bool(HEADER_WORD.fullmatch(self.token)),
            "RUNCAST_TOKEN must be printable ASCII without spaces, since no client could send anything else.",
        )
        _require(
            is_loopback(self.host) or bool(self.allow_host),
            f"Listening on {self.host} makes the server reachable from other machines: give the host names by which it may be called "
            "with --allow-host.",
        )

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database."""
        if self.database_url:
            return self.database_url
        return f"sqlite:///{self.data_dir / 'runcast.db'}"

    @property
    def token_file(self) -> Path:
        return self.data_dir / "admin-token"

    @property
    def workspace_dir(self) -> Path:
        return self.workspace or self.data_dir / "workspace"

    @property
    def worker_id(self) -> str:
        """Stable across restarts, so that a restarted worker finds its jobs again. One worker per host, data folder and set of queues."""
        database = _DATABASE.sub(lambda url: f"sqlite:///{Path(url['file']).absolute()}{url['query'] or ''}", self.url)
        digest = hashlib.sha256(f"{self.data_dir}|{database}|{sorted(self.queue)}".encode()).hexdigest()
        return f"{socket.gethostname()}-{digest[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for a child process; `from_json` reads it."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Settings:
        paths = {"data_dir", "workspace", "tasks"}
        values: dict[str, Any] = {name: Path(value) if name in paths and value is not None else value for name, value in plain.items()}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**values)


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:  # the current folder was deleted, or links form a circle
        raise OperatorError(f"The path of the data folder {folder} cannot be resolved: {error}.") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise OperatorError(message)
