"""`ray up` of the project's cluster file onto three hosts in namespaces, and what a person then does from a laptop.

The shared disk is a folder of one kernel: what locks across a network file system do is not shown here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stub_sweeps
import yaml
from rig import HOME, ROOT, SHARED, Rig, rig, why_not
from stubbed_cli import DOOMED

from timbre_ray.ledger import Ledger

HOSTS = ("node1", "node2", "node3")
HEAD, DOOMED_HOST = HOSTS[0], HOSTS[2]
DASHBOARD = "http://127.0.0.1:8265"
LOG = ROOT / "reports" / "cluster" / "ray-up.log"
UP_TRIES, UP_TIMEOUT_S, WORKERS_TIMEOUT_S, SWEEP_TIMEOUT_S = 3, 900, 180, 900
NUM_TRIALS = 8

reason = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(reason is not None, reason=str(reason))]


class Cluster:
    """The rig, and the cluster file for it on the laptop."""

    def __init__(self, machines: Rig) -> None:
        self.machines, self.file = machines, machines.folder / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(local_variant(machines)))

    def up(self) -> None:
        """`ray up` until all hosts are there: on a busy machine Ray's own processes may miss the 15 s that a raylet gives them,
        and Ray does not try such a worker again by itself.
        """
        for left in reversed(range(UP_TRIES)):
            self.machines.run(f"ray up --yes --log-style pretty --log-color false {self.file}", timeout_s=UP_TIMEOUT_S)
            try:
                wait_until(lambda: self.num_nodes() == len(HOSTS), timeout_s=WORKERS_TIMEOUT_S, what="three nodes")
                return
            except AssertionError:
                if not left:
                    raise

    def ray_status(self) -> str:
        return self.machines.ssh(HEAD, "ray status", check=False, logged=False).stdout

    def num_nodes(self) -> int:
        active = self.ray_status().partition("Active:")[2].partition("Pending:")[0]
        return sum(int(line.split()[0]) for line in active.splitlines() if line.strip()[:1].isdigit())

    def cpus_of_a_host(self) -> float:
        """As Ray counts them."""
        usage = re.search(r"/([0-9.]+) CPU", self.ray_status())
        assert usage
        return float(usage[1]) / len(HOSTS)


def local_variant(machines: Rig) -> dict:
    """cluster.yaml on machines that are there already: another provider, and so no node types; all else as it is."""
    body = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for key in ("metadata", "available_node_types", "head_node_type", "max_workers", "idle_timeout_minutes"):
        del body[key]
    addresses = {name: machine.address for name, machine in machines.hosts.items()}
    body["provider"] = {"type": "local", "head_ip": addresses.pop(HEAD), "worker_ips": list(addresses.values())}
    body["auth"]["ssh_private_key"] = str(machines.key)
    return body


def wait_until(reached: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Up, with its three hosts, and its dashboard open on the laptop."""
    with rig(tmp_path_factory.mktemp("rig"), names=HOSTS, log=LOG) as machines:
        found = Cluster(machines)
        machines.run("ray get-auth-token --generate > /dev/null")
        found.up()
        machines.run(f"ray exec --log-style pretty --log-color false {found.file} 'ray status'")
        with machines.start(f"ray dashboard {found.file}"):
            listening = "ss --no-header --listening --tcp --numeric sport = :8265"
            wait_until(lambda: machines.run(listening, logged=False).stdout != "", timeout_s=60, what="the dashboard's tunnel")
            yield found


def test_every_host_was_set_up_with_this_checkout_and_the_token_of_the_laptop(cluster):
    checksum = "sha256sum < ~/.ray/auth_token"
    of_the_laptop = cluster.machines.run(checksum).stdout
    for host in HOSTS:
        done = cluster.machines.ssh(host, f"{checksum} && cd / && python -c 'import timbre_ray; print(timbre_ray.__file__)'")
        assert done.stdout == f"{of_the_laptop}{HOME}/timbre-ray/timbre_ray/__init__.py\n"


def test_nobody_gets_in_without_the_token(cluster):
    """Neither by the dashboard nor by Ray's own port; with the token both answer."""
    address = f"{cluster.machines.hosts[HEAD].address}:6379"
    jobs = f"timbre-ray job status none --address {DASHBOARD}"
    nodes = f"python -c \"import ray; ray.init('{address}', logging_level='ERROR'); print(len(ray.nodes()), 'nodes')\""
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        refused = cluster.machines.run(jobs, check=False, **variables)
        assert refused.returncode and "the cluster refuses without its token" in refused.stderr
        refused = cluster.machines.run(nodes, check=False, **variables)
        assert refused.returncode and "InvalidAuthToken" in refused.stderr and not refused.stdout
    assert "Job none does not exist" in cluster.machines.run(jobs, check=False).stderr
    assert "3 nodes" in cluster.machines.ssh(HEAD, nodes).stdout  # a driver runs on a node of the cluster


def test_a_host_without_the_shared_disk_is_named_before_a_trial_starts(cluster):
    machines, host = cluster.machines, HOSTS[1]
    machines.ssh(host, f"mount -t tmpfs tmpfs {SHARED}")
    try:
        job = submit(cluster, write_sweep(cluster, name="no-disk"))
        assert wait_for_end(cluster, job).startswith("FAILED")
    finally:
        machines.ssh(host, f"umount {SHARED}")
    printed = machines.run(f"timbre-ray job logs {job} --address {DASHBOARD}").stdout
    assert f"node {machines.hosts[host].address} " in printed and f"node {host} cannot read" in printed
    assert not list(Ledger(machines.shared / "results" / "no-disk").trials())


def test_a_sweep_outlives_a_host(cluster):
    """The trials of a host that goes in the middle end on the others; the laptop makes the report when the cluster is down."""
    machines = cluster.machines
    store, results = machines.shared / "store", machines.shared / "results" / "spread"
    store.mkdir(exist_ok=True)
    (store / DOOMED).write_text(DOOMED_HOST)
    sweep = write_sweep(cluster, name="spread")
    job = submit(cluster, sweep)
    with machines.start(f"timbre-ray job logs {job} --address {DASHBOARD} --follow"):
        wait_until(lambda: set(sum(hosts_of(store), [])) == set(HOSTS), timeout_s=SWEEP_TIMEOUT_S, what="a trial on every host")
        finished = [record for record in Ledger(results).trials() if record["status"] == "finished"]
        assert len(finished) < NUM_TRIALS
        machines.cut_off(DOOMED_HOST)
        assert wait_for_end(cluster, job).startswith("SUCCEEDED")

    records = Ledger(results).trials()
    assert [record["status"] for record in records] == ["finished"] * NUM_TRIALS
    on = hosts_of(store)
    moved = [hosts for hosts in on if DOOMED_HOST in hosts]
    assert moved and all(hosts[-1] != DOOMED_HOST for hosts in moved)
    assert all(len(hosts) == 1 for hosts in on if DOOMED_HOST not in hosts)

    for folder in ("results", "store"):
        machines.run(f"mkdir -p {HOME}/{folder} && ray rsync-down {cluster.file} {SHARED}/{folder}/ {HOME}/{folder}/")
    machines.run(f"ray down --yes {cluster.file}")
    machines.ssh(HOSTS[1], "ray stop")  # docs/cluster/README.md: with the provider `local` Ray stops the head alone
    for host in HOSTS[:2]:
        assert "raylet" not in machines.ssh(host, "ps -eo args", logged=False).stdout
    report = machines.run(f"cd {HOME} && timbre-ray report spread && cat reports/spread/report.md").stdout
    # The stub's distance falls by a tenth a step.
    row = r"\| arm-{number} \| 10.00 ± 0.00 \| – \| 7.50 ± 0.00 \| – \| {seeds} \| 2 \|"
    assert all(re.search(row.format(number=number, seeds=NUM_TRIALS // 2), report) for number in range(2))


def write_sweep(cluster: Cluster, *, name: str) -> Path:
    """One trial a host at a time, so that no sweep fits on fewer hosts than there are."""
    stub_sweeps.write_clips(cluster.machines.shared / "flute")
    sweep = {
        **stub_sweeps.stub_sweep("flute", arms={"arm-0": {"clips": {"token": "a"}}, "arm-1": {"clips": {"token": "b"}}}),
        "grid": {"seed": list(range(NUM_TRIALS // 2))},
    }
    resources = {"train": {"cpu": cluster.cpus_of_a_host()}, "score": {"cpu": 0}}
    file = cluster.machines.folder / f"{name}.yaml"
    return stub_sweeps.write_sweep(file, sweep, name=name, resources=resources, max_failures=3)


def submit(cluster: Cluster, sweep: Path) -> str:
    """Hands the sweep over as README.md says; returns the job's id."""
    return cluster.machines.run(f"timbre-ray run {sweep} --address {DASHBOARD} --detach").stdout.split()[0]


def wait_for_end(cluster: Cluster, job: str) -> str:
    """How the job ended, in Ray's words."""
    found = ""

    def ended() -> bool:
        nonlocal found
        found = cluster.machines.run(f"timbre-ray job status {job} --address {DASHBOARD}", logged=False).stdout
        return found.startswith(("SUCCEEDED", "FAILED", "STOPPED"))

    wait_until(ended, timeout_s=SWEEP_TIMEOUT_S, what=f"the end of {job}")
    cluster.machines.run(f"timbre-ray job status {job} --address {DASHBOARD}")
    return found


def hosts_of(store: Path) -> list[list[str]]:
    """For each trial that started, the hosts that it was on, one after the other."""
    return [path.read_text().split() for path in sorted(store.glob("hosts-*"))]
