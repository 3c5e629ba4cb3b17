"""What an operator may decide: one frozen dataclass, read once at the edge.

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
"""All processes open it by its name; what lives in memory each of them would have for itself, and a `file:` URI may say that too."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""The usual names of this machine; `is_loopback` knows all."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant."""
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
    """Durations are in seconds, sizes in bytes. A field typed as a tuple may be given several times (in a variable: commas between)."""

    host: str = _option("127.0.0.1", "Address to listen on.")
    port: int = _option(8000, "Port to listen on; 0 picks a free one.")
    data_dir: Path = _option(default_data_dir, "Folder for the database, the admin token and the default workspace.")
    workspace: Path | None = _option(None, "Folder that jobs may touch; by default a copy of the shipped one, in the data folder.")
    tasks: Path | None = _option(None, "TOML file that declares operator tasks.")
    database_url: str | None = _option(None, "Where jobs are kept; by default SQLite in the data folder.")
    slots: int = _option(lambda: os.cpu_count() or 1, "Jobs that a worker runs at the same time.")
    queue: tuple[str, ...] = _option(("default",), "Queue that the worker serves; may be given several times.")
    no_worker: bool = _option(False, "Serve the API only; workers run elsewhere.")
    keep_jobs: bool = _option(False, "Leave running jobs running when stopped, and find them again at the next start.")
    allow_origin: tuple[str, ...] = _option((), "Origin of a page that may call this server; may be given several times.")
    allow_host: tuple[str, ...] = _option((), "Host name, besides loopback, that this server answers for; may be given several times.")
    token: str | None = _option(None, "Admin token, in place of the one in the data folder.", secret=True)
    max_pending: int = _option(10_000, "Jobs that may be pending; more are refused with 429.")
    token_max_pending: int = _option(0, "Jobs of one token that may be pending; 0 for as many as --max-pending allows.")
    token_max_log_bytes: int = _option(0, "Bytes of logs that may be stored of one token's jobs before more are refused; 0 for no limit.")
    rate_limit: str = _option("60000/minute", "Calls and messages of one token: N/second, /minute, /hour or /day; or off.")
    failure_limit: str = _option("100/minute", "Wrong tokens from one address before it is refused unseen, in the same form.")
    body_seconds: float = _option(30.0, "Time that a client has to send the body of a call.")
    silent_seconds: float = _option(60.0, "A client of events that gives no sign for so long is let go.")
    log_cap: int = _option(64 << 20, "Bytes that are kept of a job's log, half of them from its beginning.")
    retain_days: float = _option(30.0, "Ended jobs are removed after so many days.")
    retain_jobs: int = _option(200_000, "Ended jobs that are kept at most.")
    retain_bytes: int = _option(20 << 30, "Bytes of logs of ended jobs that are kept at most.")
    lease_seconds: float = _option(10.0, "A running job whose supervisor gave no sign for so long is lost.")
    validate_events: bool = _option(False, "Check every event against its contract before it is sent.")
    validate_answers: bool = _option(False, "Check every HTTP answer against the contract before it is sent.")

    def __post_init__(self) -> None:
        # Whoever uses the same folder gives it the same name, wherever it was started and by whatever link it goes there.
        object.__setattr__(self, "data_dir", _resolved(self.data_dir))
        _require("?" not in str(self.data_dir), "--data-dir: a '?' in the folder's name would be taken for options of the database.")
        _require(0 <= self.port <= 65535, "--port must be between 0 and 65535.")
        _require(self.slots >= 1, "--slots must be at least 1.")
        _require(self.max_pending >= 1, "--max-pending must be at least 1.")
        _require(self.token_max_pending >= 0, "--token-max-pending must be at least 0.")
        _require(self.token_max_log_bytes >= 0, "--token-max-log-bytes must be at least 0.")
        for name, rate in (("rate", self.rate_limit), ("failure", self.failure_limit)):
            _require(bool(RATE.fullmatch(rate)), f"--{name}-limit must be such as 100/minute (second, minute, hour, day), or off.")
        _require(0 < self.body_seconds < math.inf, "--body-seconds must be more than 0.")
        _require(1 <= self.silent_seconds < math.inf, "--silent-seconds must be at least 1.")
        _require(self.log_cap >= 1 << 16, "--log-cap must be at least 65536.")
        # The comparisons fail for nan as well, and a lease or a retention that never ends is none.
        _require(0 <= self.retain_days < math.inf, "--retain-days must be at least 0.")
        _require(self.retain_jobs >= 0, "--retain-jobs must be at least 0.")
        _require(self.retain_bytes >= 0, "--retain-bytes must be at least 0.")
        _require(1 <= self.lease_seconds < math.inf, "--lease-seconds must be at least 1.")
        _require(bool(self.queue), "--queue needs a name.")
        for name in self.queue:
            _require(bool(_NAME.fullmatch(name)), f"--queue: {name!r} is not letters, digits, '_', '-' and '.', at most 100 of them.")
        _require(bool(_DATABASE.fullmatch(self.url)), "--database-url: this version keeps jobs in a file of SQLite only (sqlite:///PATH).")
        _require(
            self.token is None or bool(HEADER_WORD.fullmatch(self.token)),
            "RUNCAST_TOKEN must be ASCII letters, digits and signs without spaces, or nobody could send it.",
        )
        _require(
            is_loopback(self.host) or bool(self.allow_host),
            f"Listening on {self.host} makes the server reachable from elsewhere: say with --allow-host under "
            "which names it may be called.",
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
        """Stable across restarts, so that a restarted worker finds its jobs again: one worker a data folder and set of queues on a host."""
        database = _DATABASE.sub(lambda url: f"sqlite:///{Path(url['file']).absolute()}{url['query'] or ''}", self.url)
        place = hashlib.sha256(f"{self.data_dir}|{database}|{sorted(self.queue)}".encode()).hexdigest()
        return f"{socket.gethostname()}-{place[:8]}"

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
    except (OSError, RuntimeError) as error:  # where we are is gone, or links go in a circle
        raise OperatorError(f"The data folder {folder} cannot be found: {error}.") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise OperatorError(message)
