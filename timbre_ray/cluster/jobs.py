"""Runs as Ray Jobs: a laptop hands the sweep to the cluster's head and may leave."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.exceptions

from timbre_ray.extras import how_to_install

#: What Ray's own client and the dashboard need beside plain Ray.
NEEDED = ("aiohttp", "requests")
#: Ray's client takes these before the address that it is given, without a word.
OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def entrypoint(file_name: str, options: Sequence[str]) -> str:
    """The job's shell command. Ray starts it in a folder that holds the sweep alone; it runs where all nodes share a folder."""
    words = shlex.join(options)
    return (
        ': "${TIMBRE_RAY_FOLDER:?this cluster does not say where its shared folder is; see docs/cluster/README.md}" && '
        f'cd "$TIMBRE_RAY_FOLDER" && exec timbre-ray run "$OLDPWD"/{shlex.quote(file_name)} --address auto {words}'
    ).rstrip()


def submit(sweep_file: Path, *, name: str, address: str, options: Sequence[str]) -> str:
    """Hands the sweep's file to the cluster; returns the job's id.

    options: further words of ``timbre-ray run``; paths among them are looked up on the cluster.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    with connected(address) as client, tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(sweep_file, Path(folder) / sweep_file.name)
        return client.submit_job(
            entrypoint=entrypoint(sweep_file.name, options),
            submission_id=f"{stem}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
            runtime_env={"working_dir": folder},
            metadata={"sweep": name},
        )


def status(job_id: str, *, address: str) -> str:
    """The state in Ray's word, with the reason where there is one."""
    with connected(address) as client:
        info = client.get_job_info(job_id)
    return f"{info.status}: {info.message}" if info.message else str(info.status)


def logs(job_id: str, *, address: str, follow: bool, write: Callable[[str], None]) -> None:
    """What the run has printed; with ``follow`` also what it prints until it ends."""
    with connected(address) as client:
        if follow:
            asyncio.run(_follow(client, job_id, write))
        else:
            write(client.get_job_logs(job_id))


def stop(job_id: str, *, address: str) -> bool:
    """Ends the run; what it finished is kept. False if it had ended already."""
    with connected(address) as client:
        return client.stop_job(job_id)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray's client for the dashboard at ``address``. Raises ValueError, RuntimeError or ConnectionError with the remedy."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"--address={address!r}: jobs go to a dashboard, such as http://127.0.0.1:8265 "
            "(`ray dashboard cluster.yaml` opens it)"
        )
    if absent := [module for module in NEEDED if importlib.util.find_spec(module) is None]:
        raise RuntimeError(f"jobs need {' and '.join(absent)}, which are not installed: {how_to_install('cluster')}")
    for variable in OVERRIDES:
        if os.environ.get(variable, address) != address:
            raise ValueError(
                f"{variable}={os.environ[variable]!r}: Ray would take this instead of --address={address!r}; unset it"
            )
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except ray.exceptions.AuthenticationError as error:
        raise RuntimeError(
            f"{address}: the cluster refuses without its token ({str(error).splitlines()[0]}); export RAY_AUTH_MODE=token, and "
            "have the token with which the cluster was started in ~/.ray/auth_token"
        ) from None
    except ConnectionError as error:
        raise ConnectionError(f"{address}: nothing answers ({error}); is `ray dashboard cluster.yaml` running?") from None


async def _follow(client: Any, job_id: str, write: Callable[[str], None]) -> None:
    async for text in client.tail_job_logs(job_id):
        write(text)
