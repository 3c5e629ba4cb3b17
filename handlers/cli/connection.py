"""How a client command gets at a server: URL and token from options, variables or the data folder, and what it says when it is refused."""

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

REFUSED = 1


@dataclass(frozen=True)
class Access:
    """Which server a command calls, and where its token may be."""

    url: str
    token_file: Path | None

    def token(self) -> Token | None:
        """The token: from the option's file, else from the variable, else from the data folder of a server on this machine."""
        from handlers.cli.client import Token, read_token

        if self.token_file:
            found = read_token(self.token_file)
            if not found:
                raise OperatorError(f"There is no token in {self.token_file}.")
            return found
        if value := os.environ.get(variable("token")):
            return Token(value, source=f"the variable {variable('token')}")
        return read_token(self._default_token_file)

    @property
    def _default_token_file(self) -> Path:
        return Path(os.environ.get(variable("data_dir")) or default_data_dir()) / "admin-token"

    def no_token(self) -> str:
        """Where a token was looked for in vain."""
        return f"No token: the variable {variable('token')} is not set, and there is no {self._default_token_file}."

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the server. What the server refuses is told in full and ends the command."""
        from handlers.cli.client import Client, Refused

        token = self.token()
        client = Client(self.url, token=token.value if token else None)
        try:
            yield client
        except Refused as refusal:
            tell(refusal.problem)
            if refusal.status == 401:
                click.echo(f"  The token is from {token.source}." if token else f"  {self.no_token()}", err=True)
            raise click.exceptions.Exit(REFUSED) from refusal
        finally:
            client.close()


def complain(message: str) -> None:
    """One line of error."""
    from handlers.cli.terminal import shown

    click.echo(shown(f"runcast: {message}"), err=True)


def tell(problem: Mapping[str, Json]) -> None:
    """A problem as lines: title, detail, and each faulty place."""
    from handlers.cli.terminal import shown

    title, detail = problem.get("title") or "Refused", problem.get("detail")
    complain(f"{title}: {detail}" if detail else title)
    for violation in problem.get("errors") or []:
        click.echo(shown(f"  {violation['in']} {violation['pointer']}: {violation['detail']}"), err=True)


def client_command(command: Command) -> Command:
    """Gives a command what all client commands accept: where the server is, the token's file, and --json."""

    @click.option(
        "--url", envvar=variable("url"), show_envvar=True, default="http://127.0.0.1:8000", show_default=True, help="Where the server is."
    )
    @click.option(
        "--token-file",
        envvar=variable("token_file"),
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File with the token; else the variable RUNCAST_TOKEN, else the file that a server on this machine made.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON: one document, or one line for each part of a stream.")
    @functools.wraps(command)
    def wrapper(*, url: str, token_file: Path | None, **options: Any) -> Any:
        return command(Access(url, token_file), **options)

    return wrapper  # type: ignore[return-value]  # functools.wraps does not keep the type
