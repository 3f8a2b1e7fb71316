"""On a spot machine: waits for the cloud's notice of its end, and has Ray drain this node, so that its trials leave.

    python -m timbre_ray.cluster.spot      # beside `ray start` on a worker; ends at once where no cloud says whether it is one

Ray itself does not ask. AWS gives the notice two minutes before, GCP 30 seconds.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import filelock

#: Where the clouds' metadata services answer; link-local, so that a machine elsewhere finds nothing there.
AWS, GCP = "http://169.254.169.254", "http://metadata.google.internal"
ASKED_EVERY_S = 3.0
ANSWER_TIMEOUT_S = 2.0

Notice = Callable[[], float | None]
"""Seconds until the machine is taken away; None: nothing is known of it. Raises OSError where nobody answers."""


def aws_notice() -> float | None:
    token = _ask(f"{AWS}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    try:
        _ask(f"{AWS}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return 110.0


def gcp_notice() -> float | None:
    taken = _ask(f"{GCP}/computeMetadata/v1/instance/preempted", headers={"Metadata-Flavor": "Google"})
    return 25.0 if taken.strip() == "TRUE" else None


def watch(notices: tuple[Notice, ...], drain: Callable[[float], None]) -> bool:
    """Asks until one gives notice, and drains; False if none of them answers in the beginning: this is no such machine."""
    answering = [notice for notice in notices if _answers(notice)]
    while answering:
        for notice in answering:
            try:
                seconds = notice()
            except OSError:  # one answer that fails is none
                continue
            if seconds is not None:
                drain(seconds)
                return True
        time.sleep(ASKED_EVERY_S)
    return False


def drain_this_node(seconds: float, address: str = "auto") -> None:
    """After the cloud's notice."""
    import ray

    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    why_not = drain_own_node(seconds, "spot notice")
    print(f"taken away in {seconds:.0f} s: {'draining' if why_not is None else f'not drained ({why_not})'}", flush=True)


def drain_own_node(seconds: float, message: str) -> str | None:
    """Has Ray start nothing more on the node of this process, which is connected to Ray; returns why it refuses, if it does.

    The trials there see it and leave (notice.py), Ray counts what dies there as no failure, and ends the node once nothing runs
    on it. ``PREEMPTION``, as Ray refuses ``IDLE_TERMINATION`` of a node that holds an actor. ``seconds`` is what others are told:
    Ray 2.60 itself does nothing when they are over.
    """
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    context = ray.get_runtime_context()
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    deadline_ms = int((time.time() + seconds) * 1000)
    accepted, why_not = GcsClient(address=context.gcs_address).drain_node(context.get_node_id(), reason, message, deadline_ms)
    return None if accepted else why_not


def main() -> int:
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / "timbre-ray-spot.lock")
    try:
        with lock.acquire(timeout=0):  # one a machine, however often Ray is started on it
            return 0 if watch((aws_notice, gcp_notice), drain_this_node) else 3
    except filelock.Timeout:
        return 0


def _answers(notice: Notice) -> bool:
    try:
        notice()
    except OSError:
        return False
    return True


def _ask(url: str, *, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would answer for another machine
    with opener.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    sys.exit(main())
