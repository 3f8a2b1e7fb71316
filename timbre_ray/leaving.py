"""How a process that must go tells the training in it."""

from __future__ import annotations


class Leaving(Exception):
    """This process was told to leave. Raised by a trial's ``on_progress``: the training under way writes its checkpoint at the
    step it has reached, nothing half done is published, and the exception goes on to whoever runs the trial.
    """
