"""What a host's `uv` is in the tests: takes the two commands of the cluster files and makes the environment from what is here."""

import pathlib
import subprocess
import sys

SHARED_PACKAGES = pathlib.Path.home() / ".shared-packages"
SCRIPT = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


def venv(*words):
    assert words[:3] == ("--quiet", "--allow-existing", "--python") and words[4:] == (".venv",), words
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], check=True)


def pip(*words):
    """Install this checkout: its own folders first, then the packages that lie on the machine underneath."""
    start = ("install", "--quiet", "--python", ".venv/bin/python", "--constraint", "constraints.txt", "--editable", ".[cluster]")
    assert words[: len(start)] == start and pathlib.Path("constraints.txt").is_file(), words
    checkout = pathlib.Path.cwd()
    (packages,) = checkout.glob(".venv/lib/python*/site-packages")
    own = [checkout, checkout / "tests" / "integration", checkout / "tests" / "cluster"]
    (packages / "packages.pth").write_text("\n".join([*map(str, own), SHARED_PACKAGES.read_text()]))
    for name, module in (("ray", "ray.scripts.scripts"), ("timbre-ray", "stubbed_cli")):
        script = checkout / ".venv" / "bin" / name
        script.write_text(SCRIPT.format(python=checkout / ".venv/bin/python", module=module))
        script.chmod(0o755)


{"venv": venv, "pip": pip}[sys.argv[1]](*sys.argv[2:])
