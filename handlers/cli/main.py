"""The command `runcast`: its subcommands in the order of `--help`, and what the user sees when one fails.

`serve` and `worker` start the service. All other commands are clients: they know a server's URL and a token, and nothing else of it.
The client, rich and the server are imported only by the commands that need them, so that `runcast --help` and shell completion are fast.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click
from click.core import ParameterSource

from handlers.cli import jobs, service, tokens
from handlers.cli.connection import INTERRUPTED, MISUSED, REFUSED, print_error
from jobs.errors import OperatorError, RuncastError

OUTPUT_ERRORS = frozenset({errno.EPIPE, errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of writing to standard output. Nothing else raises one of these to `main`."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="runcast")
def runcast() -> None:
    """Run long operations as jobs, and watch them live."""


for _command in (
    *(service.serve, service.worker),
    *(jobs.submit, jobs.list_jobs, jobs.show, jobs.logs, jobs.cancel, jobs.retry, jobs.delete),
    *(tokens.token, service.demo),
):
    runcast.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Every failure that a user can cause is a line or two on standard error and an exit status."""
    _prepare_streams()
    try:
        status = int(runcast.main(arguments, prog_name="runcast", standalone_mode=False) or 0)
        sys.stdout.flush()  # a failure to write must be reported here, not by the interpreter when it exits
        return status
    except click.BadParameter as error:
        print_error(_bad_value(error))
        return MISUSED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OperatorError as error:
        print_error(str(error))
        return MISUSED
    except RuncastError as error:
        print_error(str(error))
        return REFUSED
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        # Otherwise the interpreter would fail once more when it flushes the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that closed the pipe, such as `head`, is no failure to report
            print_error(f"The output cannot be written: {error.strerror}.")
        return REFUSED


def _prepare_streams() -> None:
    """Opens standard streams that were closed, since the next file to be opened would take their descriptor.

    Writing to such a standard output fails; such a standard error discards what is written.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a log may hold what the terminal cannot show


def _bad_value(error: click.BadParameter) -> str:
    """One line. It names the variable that the value comes from: a variable that was set long ago is easily overlooked."""
    message = " ".join(error.format_message().split())
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx and error.param and error.param.name else None
    # click has set no source yet when it fails to split the value of a variable.
    from_variable = source is ParameterSource.ENVIRONMENT or (source is None and error.ctx is not None)
    return f"{error.param.envvar}: {message}" if error.param and error.param.envvar and from_variable else message


if __name__ == "__main__":
    sys.exit(main())
