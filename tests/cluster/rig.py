"""Machines on one machine: a laptop and hosts, each with its own network, processes, temporary folder and home, reached by ssh.

They are namespaces of Linux without names: when their first process ends, the kernel removes network, mounts and all else, so
nothing stays behind, not even where the tests are killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = {"sshd": "openssh-server", "ssh-keygen": "openssh-client", "ip": "iproute2", "rsync": "rsync", "unshare": "util-linux"}
SHARED = Path("/mnt/timbre-ray")
"""The disk that all hosts see, under the path of the cluster files."""
HOME = Path("/home/ubuntu")
"""On every machine; each has its own. ``ubuntu`` is another name of root there, since the environment may lie in root's home."""
NETWORK = "10.42.0"
START_TIMEOUT_S = 60
ASIDES = ("VINFO ", "node_provider.py:", "Shared connection to", "Permanently added", "cannot set terminal", "no job control")
"""Parts of lines that are left out of the log."""

_SSHD = """\
HostKey {rig}/etc/host_key
AuthorizedKeysFile {rig}/etc/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
"""
_PASSWD = """\
ubuntu:x:0:0::/home/ubuntu:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
"""


def why_not() -> str | None:
    """What this machine lacks for the rig, or None."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if absent := [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]:
        return f"not installed: {' '.join(absent)} (apt-get install -y --no-install-recommends {' '.join(absent)})"
    words = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"no namespaces of one's own here (root may make them): {tried.stderr.strip()}" if tried.returncode else None


class Machine:
    """One machine: a process that the kernel takes for process 1 of a machine of its own."""

    def __init__(self, name: str, *, address: str, folder: Path, kept: Sequence[Path]) -> None:
        self.name, self.address, self._pid_file = name, address, folder / f"{name}.pid"
        # Without its parent a machine ends: setpriv sees to it where the tests themselves are killed.
        own = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        words = ["setpriv", "--pdeathsig", "KILL", *own, "bash", str(HERE / "machine.sh"), name, str(folder), *map(str, kept)]
        self._log = (folder / f"{name}.log").open("w")
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    @property
    def pid(self) -> int:
        """Of its process 1, as the machine underneath counts. Waits until the machine is up."""
        end = time.monotonic() + START_TIMEOUT_S
        while not self._pid_file.is_file():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start: {Path(self._log.name).read_text()}")
            time.sleep(0.05)
        return int(self._pid_file.read_text())

    def words(self, command: str, *, environment: Mapping[str, str], cwd: Path, timeout_s: float) -> list[str]:
        """The words that run a shell command on this machine, ended there after ``timeout_s``."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts", "--ipc"]
        settings = [f"{name}={value}" for name, value in environment.items()]
        limit = ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=10", str(timeout_s)]  # ends with nsenter
        return [*enter, "env", "--ignore-environment", f"--chdir={cwd}", *settings, *limit, "bash", "-c", command]

    def kill(self) -> None:
        """SIGKILL to every process of the machine; returns when the last of them is gone."""
        if self._process.poll() is None and self._pid_file.is_file():
            os.kill(self.pid, signal.SIGKILL)  # the kernel ends a machine with its process 1, and unshare ends after it
        else:
            self._process.kill()
        self._process.wait()
        self._log.close()


class Rig:
    """The laptop and the hosts. ``run`` and ``start`` are commands on the laptop; their output goes to the log."""

    def __init__(self, laptop: Machine, hosts: Mapping[str, Machine], *, folder: Path, log: Path) -> None:
        self.laptop, self.hosts, self.folder, self.log = laptop, hosts, folder, log
        self.key = folder / "etc" / "key"
        self.shared = folder / "shared"
        """What the hosts see as SHARED."""

    def run(
        self, command: str, *, timeout_s: float = 300, check: bool = True, logged: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command line on the laptop, in the checkout; variables are added to its environment."""
        words = self.laptop.words(command, environment=environment() | variables, cwd=ROOT, timeout_s=timeout_s)
        began = time.monotonic()
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        ended = f"(exit code {done.returncode}, {time.monotonic() - began:.0f} s)"
        if logged:
            self.note(f"$ {command}\n{done.stdout}{done.stderr}{ended}\n")
        if check and done.returncode:
            raise AssertionError(f"{command} {ended}\n{done.stdout}\n{done.stderr}")
        return done

    @contextlib.contextmanager
    def start(self, command: str, *, timeout_s: float = 900) -> Iterator[subprocess.Popen[bytes]]:
        """A command on the laptop beside others, ended at the latest with the block."""
        words = self.laptop.words(f"exec {command}", environment=environment(), cwd=ROOT, timeout_s=timeout_s)
        self.note(f"$ {command} &\n")
        with self.log.open("a") as log, subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.kill()

    def ssh(self, host: str, command: str, *, check: bool = True, logged: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a login shell of a host, over ssh from the laptop."""
        options = f"-i {self.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        login = shlex.quote(f"bash --login -i -c {shlex.quote(command)}")
        where = f"-o ConnectTimeout=10 ubuntu@{self.hosts[host].address}"
        return self.run(f"ssh {options} {where} {login}", check=check, logged=logged)

    def cut_off(self, host: str) -> None:
        """The power goes: no packet leaves the host any more, not even of its dying processes; then all of them end."""
        _enter_network(self.laptop, f"ip link set {host} down")
        self.hosts[host].kill()
        self.note(f"-- {host} is gone\n")

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text)


def environment() -> dict[str, str]:
    """Of a person who works on the laptop."""
    return {
        "HOME": str(HOME), "USER": "ubuntu", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin", "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0",
    }  # fmt: skip


@contextlib.contextmanager
def rig(folder: Path, *, names: Sequence[str], log: Path) -> Iterator[Rig]:
    """A laptop and a host for each name, on one bridge; removed at the end in any case."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    addresses = {"laptop": f"{NETWORK}.1"} | {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=11)}
    packages = [Path(path) for path in sys.path if path.endswith("-packages")]
    _write_files(folder, addresses, packages)
    kept = [Path(sys.prefix), Path(sys.base_prefix), *packages]
    machines: dict[str, Machine] = {}
    try:
        for name, address in addresses.items():
            extra = [ROOT] if name == "laptop" else []
            machines[name] = Machine(name, address=address, folder=folder, kept=[*kept, *extra])
        laptop = machines["laptop"]
        _enter_network(laptop, f"ip link add lan type bridge && ip address add {laptop.address}/24 dev lan && ip link set lan up")
        for name in names:
            _connect(laptop, machines[name])
        hosts = {name: machines[name] for name in names}
        yield Rig(laptop, hosts, folder=folder, log=log)
    finally:
        for machine in machines.values():
            machine.kill()
        named = {folder: "RIG", ROOT: "CHECKOUT", Path(sys.prefix): "ENVIRONMENT", Path(sys.base_prefix): "PYTHON"}
        _scrub(log, dict.fromkeys(packages, "PACKAGES") | named)


def _write_files(folder: Path, addresses: Mapping[str, str], packages: Sequence[Path]) -> None:
    """What machine.sh puts into place: accounts, names, keys, and the homes' first files."""
    etc = folder / "etc"
    etc.mkdir()
    (folder / "shared").mkdir()
    (etc / "passwd").write_text(_PASSWD)
    names = {"localhost": "127.0.0.1", **addresses}
    (etc / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    (etc / "resolv.conf").write_text("")  # no name is asked for outside
    (etc / "sshd_config").write_text(_SSHD.format(rig=folder))
    for key in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / key)], check=True)
    for name in addresses:
        (folder / "home" / name).mkdir(parents=True)
        if name != "laptop":
            _put_uv(folder / "home" / name, packages)


def _put_uv(home: Path, packages: Sequence[Path]) -> None:
    """A stand-in for uv on a host: the environment is made of the packages that are here, so that nothing is downloaded."""
    (home / ".shared-packages").write_text("\n".join(map(str, packages)))
    path = home / ".local" / "bin" / "uv"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys._base_executable}\n" + (HERE / "uv_stand_in.py").read_text())  # the Python outside any environment
    path.chmod(0o755)


def _connect(laptop: Machine, host: Machine) -> None:
    """A cable from the bridge to the host. Ray finds a host's address by the way to the outside: hence the default route."""
    _check(f"ip link add {host.name} netns {laptop.pid} type veth peer name eth0 netns {host.pid}")
    _enter_network(laptop, f"ip link set {host.name} master lan up")
    _enter_network(
        host, f"ip address add {host.address}/24 dev eth0 && ip link set eth0 up && ip route add default via {laptop.address}"
    )


def _enter_network(machine: Machine, command: str) -> None:
    _check(f"nsenter --target {machine.pid} --net bash -c '{command}'")


def _check(command: str) -> None:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{command}: {done.stderr}"


def _scrub(log: Path, hidden: Mapping[Path, str]) -> None:
    """The log is kept: no colours, no lists of copied files, none of ssh's asides, and no path of the machine underneath."""
    text = re.sub(r"\x1b\[[0-9;]*m|\r", "", log.read_text())
    text = re.sub(r"(ing incremental file list)\n.*?\n(?=\nsent )", r"\1", text, flags=re.DOTALL)
    text = "".join(line for line in text.splitlines(keepends=True) if not any(aside in line for aside in ASIDES))
    for path, word in sorted(hidden.items(), key=lambda item: -len(str(item[0]))):  # the inner ones first
        text = text.replace(str(path), word)
    log.write_text(text)
