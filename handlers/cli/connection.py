"""How a client command reaches a server: URL and token from options, variables or the data folder; and how it reports a refusal."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handlers.cli.options import Command, variable
from jobs.errors import OperatorError
from jobs.model import Json
from jobs.settings import default_data_dir

if TYPE_CHECKING:
    from handlers.cli.client import Client, Token

REFUSED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes of failures. Those of a job that was followed are in `live.py`."""


@dataclass(frozen=True)
class Access:
    """Which server a command calls, and the file that holds its token, if one was given."""

    url: str
    token_file: Path | None

    def token(self) -> Token | None:
        """The token from the option's file, else from the variable, else from the data folder of a server on this machine."""
        from handlers.cli.client import Token, read_token

        if self.token_file:
            found = read_token(self.token_file)
            if not found:
                raise OperatorError(f"The token file {self.token_file} is missing or empty.")
            return found
        if value := os.environ.get(variable("token")):
            return Token(value, source=f"the variable {variable('token')}")
        return read_token(self._default_token_file)

    @property
    def _default_token_file(self) -> Path:
        return Path(os.environ.get(variable("data_dir")) or default_data_dir()) / "admin-token"

    def no_token(self) -> str:
        """The message that no token was found, and where it was looked for."""
        return f"No token: the variable {variable('token')} is not set, and there is no {self._default_token_file}."

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the server. When the server refuses a call, the problem is printed and the command ends."""
        from handlers.cli.client import Client, Refused

        token = self.token()
        client = Client(self.url, token=token.value if token else None)
        try:
            yield client
        except Refused as refusal:
            print_problem(refusal.problem)
            if refusal.status == 401:
                click.echo(f"  The token comes from {token.source}." if token else f"  {self.no_token()}", err=True)
            raise click.exceptions.Exit(REFUSED) from refusal
        finally:
            client.close()


def print_error(message: str) -> None:
    """One line on standard error."""
    from handlers.cli.terminal import escape_controls

    click.echo(escape_controls(f"runcast: {message}"), err=True)


def print_problem(problem: Mapping[str, Json]) -> None:
    """A problem on standard error: a line with title and detail, then a line for each invalid place of the input."""
    from handlers.cli.terminal import escape_controls

    title, detail = problem.get("title") or "Refused", problem.get("detail")
    print_error(f"{title}: {detail}" if detail else title)
    for violation in problem.get("errors") or []:
        click.echo(escape_controls(f"  {violation['in']} {violation['pointer']}: {violation['detail']}"), err=True)


def client_command(command: Command) -> Command:
    """Adds the options of all client commands: the server's URL, the token's file, and --json."""

    @click.option(
        "--url", envvar=variable("url"), show_envvar=True, default="http://127.0.0.1:8000", show_default=True, help="URL of the server."
    )
    @click.option(
        "--token-file",
        envvar=variable("token_file"),
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File that holds the token. Without it: the variable RUNCAST_TOKEN, or the file that a server on this machine wrote.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: one document, or one line per event or log line.")
    @functools.wraps(command)
    def wrapper(*, url: str, token_file: Path | None, **options: Any) -> Any:
        return command(Access(url, token_file), **options)

    return wrapper  # type: ignore[return-value]  # functools.wraps does not keep the type
