"""Exit codes, and how every command ends where the user made a mistake."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator
from typing import Any

import typer

OK, TRIALS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclasses.dataclass
class Settings:
    debug: bool = False


settings = Settings()


class _Deaf(io.FileIO):
    """A file whose reader may leave: what is written from then on goes nowhere, and who writes is not told."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(BrokenPipeError):
            return super().write(data)
        return len(data)


def outlive_the_reader() -> None:
    """For `timbre-ray run SWEEP | head`: the command goes on to its end and to its own exit code."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        raw = _Deaf(stream.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering
        )


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """The user's mistakes end in one message and exit code 2; --debug shows the traceback as well."""
    try:
        yield
    except (ValueError, OSError, LookupError, RuntimeError) as error:
        if settings.debug or isinstance(error, typer.Exit):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(BAD_INPUT) from None
