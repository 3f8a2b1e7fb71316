"""Exit codes, and how every command ends where the user made a mistake."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator

import typer

OK, TRIALS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclasses.dataclass
class Settings:
    debug: bool = False


settings = Settings()


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """The user's mistakes end in one message and exit code 2; --debug shows the traceback as well."""
    try:
        yield
    except BrokenPipeError:  # such as `| head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        raise typer.Exit(OK) from None
    except (ValueError, OSError, LookupError, RuntimeError) as error:
        if settings.debug or isinstance(error, typer.Exit):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(BAD_INPUT) from None
