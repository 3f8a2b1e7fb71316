# Sourced by ~/.bashrc of every node of a cluster, so that Ray, `ray exec` and jobs find the same things.
export PATH="$HOME/timbre-ray/.venv/bin:$PATH"
export RAY_AUTH_MODE=token
# Sweeps run here, so store/, results/ and reports/ lie on the disk that all nodes share.
export TIMBRE_RAY_FOLDER="${TIMBRE_RAY_FOLDER:-/mnt/timbre-ray}"
