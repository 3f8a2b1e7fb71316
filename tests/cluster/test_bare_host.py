"""The cluster files' setup commands on a host that has nothing but Python and the source: they install what a node runs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rig import ROOT, why_not

reason = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(reason is not None, reason=str(reason))]


def test_the_setup_commands_install_the_package_and_may_be_repeated(tmp_path):
    """In the network of this machine, since they download; with a home of its own, so that nothing is there already."""
    home = tmp_path / "home"
    shutil.copytree("/etc/skel", home)
    body = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    excluded = [f"--exclude={pattern}" for pattern in (*body["rsync_exclude"], "/reports")]
    subprocess.run(["rsync", "--archive", *excluded, f"{ROOT}/", f"{home}/timbre-ray/"], check=True)
    for _ in range(2):
        for command in body["setup_commands"]:
            on_the_host(home, command)
    assert (home / ".bashrc").read_text().count("env.sh") == 1
    where = "python -c 'import timbre_ray, ray.dashboard.head; print(timbre_ray.__file__)'"
    printed = on_the_host(home, f"cd / && timbre-ray --version && ray --version && {where}")
    assert printed.splitlines()[-1] == f"{home}/timbre-ray/timbre_ray/__init__.py"


def on_the_host(home: Path, command: str) -> str:
    """Runs a command as Ray does, with the shared disk's folder mounted; returns what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = kept | {"HOME": str(home), "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"}
    disk = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/timbre-ray && mount -t tmpfs tmpfs /mnt/timbre-ray"
    login = f"bash --login -i -c {shlex.quote(f'source ~/.bashrc; {command}')}"
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", f"{disk} && {login}"], env=environment, cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
