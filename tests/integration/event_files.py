"""Reads TensorBoard's event files without TensorBoard: records of length, checksum, Event, checksum."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) -> value of the folder's one event file; every number must stand there once."""
    (file,) = folder.glob("events.*")
    data, found, place = file.read_bytes(), {}, 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4
        for value in event.summary.value:
            assert (value.tag, event.step) not in found, f"{value.tag} stands twice at step {event.step}"
            found[value.tag, event.step] = value.simple_value
    return found
