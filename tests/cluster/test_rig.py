"""The machines of the rig: apart from one another and from this one, and gone without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import ROOT, SHARED, rig, why_not

reason = why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


def test_machines_share_the_disk_alone_and_end_with_the_rig(tmp_path):
    log = tmp_path / "log"
    with rig(tmp_path, names=("node1", "node2"), log=log) as machines:
        pids = [machine.pid for machine in (machines.laptop, *machines.hosts.values())]
        machines.ssh("node1", f"for file in {SHARED}/file /tmp/file ~/file /dev/shm/file; do echo 1 > $file; done")
        machines.ssh("node1", "sleep 600 > /dev/null 2>&1 &")
        seen = machines.ssh("node2", f"cat {SHARED}/file; ls /tmp/file ~/file /dev/shm/file; hostname; pgrep sleep", check=False)
        assert seen.stdout.splitlines()[0] == "1" and seen.stdout.splitlines()[-1] == "node2"
        assert seen.stderr.count("No such file") == 3
        assert not Path(SHARED).exists() and machines.run(f"ls {SHARED}", check=False).returncode

        machines.cut_off("node1")
        assert machines.ssh("node1", "true", check=False).returncode
        assert "node2" in machines.ssh("node2", "hostname").stdout
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert str(tmp_path) not in log.read_text() and str(ROOT) not in log.read_text()
