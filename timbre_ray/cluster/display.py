"""One live display of a sweep on a terminal; plain lines, one an event, where the output is no terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from timbre_ray.cluster.board import Board, Row, duration

REFRESH_HZ = 2
MIN_NAME = 10
"""Characters of a trial's id that the live table keeps."""


class Display:
    """Shows a board while the ``with`` block runs."""

    def __init__(self, board: Board, console: Console, *, title: str) -> None:
        self._board, self._console, self._title = board, console, title
        self._live: Live | None = None
        self._stop, self._printed = threading.Event(), 0
        self._thread = threading.Thread(target=self._print_until_stopped, daemon=True)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=REFRESH_HZ, transient=True)
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            self._print(self._board.notices)
        else:
            self._stop.set()
            self._thread.join()

    def _print_until_stopped(self) -> None:
        while not self._stop.wait(1 / REFRESH_HZ):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        lines = self._board.messages[self._printed :]
        self._printed += len(lines)
        self._print(lines)

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        now, board = time.time(), self._board
        ended, running = board.num_ended, board.count("running")
        states = [f"{board.num_waiting} waiting", f"{running} running", f"{board.count('finished')} finished"]
        states += [f"{n} {word}" for word, n in (("stopped early", board.count("stopped early")), ("kept", board.num_kept)) if n]
        line = Text(f"{self._title}: ") + Text(", ".join(states))
        if failed := board.count("failed"):
            line.append(f", {failed} failed", style="bold red")
        left = board.seconds_left(now)
        line.append(f"; {duration(left)} left" if left is not None else "; time left not known yet", style="dim")
        bar = Table.grid()  # a bar alone would not end its line
        bar.add_row(ProgressBar(total=max(1, board.num_trials), completed=ended, width=60))
        return Group(line, bar, self._table(now))

    def _table(self, now: float) -> Table:
        """On a narrow terminal names give way, in the middle: they end in what tells trials apart."""
        titles = ("trial", "stage", "done", "step", "FAD", f"{self._board.partner} rank", "time")
        cells = [self._cells(row, now) for row in self._board.running()]
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        room = max(MIN_NAME, self._console.width - sum(widths[1:]) - 2 * (len(titles) - 1))
        table = Table(box=None, pad_edge=False)
        for name, width in zip(titles, widths, strict=True):
            fixed = {} if name == "trial" else {"min_width": width}
            table.add_column(name, justify="left" if name in ("trial", "stage") else "right", no_wrap=True, **fixed)
        for name, *rest in cells:
            table.add_row(_shortened(name, room), *rest)
        return table

    def _cells(self, row: Row, now: float) -> list[str]:
        stage, done, total = self._board.stage(row.trial_id)
        shown = [_number(row.metrics.get(name), form) for name, form in
                 (("step", ".0f"), ("fad_held_out", ".2f"), ("duet_partner_rank", ".1f"))]  # fmt: skip
        retried = f" (try {row.retries + 1})" if row.retries else ""
        return [row.trial_id + retried, stage, f"{done}/{total}" if total else "", *shown, duration(now - row.started)]


def _shortened(name: str, room: int) -> str:
    """``large-gpt2-te…v1-s0-4397abcd``."""
    if len(name) <= room:
        return name
    end = min(len(name), (room - 1) * 2 // 3)
    return f"{name[: room - 1 - end]}…{name[len(name) - end :]}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
