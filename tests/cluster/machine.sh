#!/bin/bash
# Process 1 of a machine of rig.py, already in mount, PID, network, host name and IPC namespaces of its own: hides what machines
# do not share, then serves ssh. Usage: machine.sh NAME RIG KEPT...; RIG and KEPT stay visible, all else under these is its own:
set -euo pipefail
private=(/tmp /run /dev/shm /home)
name=$1 rig=$2
shift 2
kept=("$rig" "$@")

read -r outer_pid _ < /proc/self/stat  # before this namespace has a /proc of its own
mount -t proc proc /proc
hostname "$name"

mount -t tmpfs tmpfs /mnt
for i in "${!kept[@]}"; do
  mkdir -p "/mnt/.kept/$i"
  mount --bind "${kept[i]}" "/mnt/.kept/$i"
done
for folder in "${private[@]}"; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
for i in "${!kept[@]}"; do
  mkdir -p "${kept[i]}"
  mount --bind "/mnt/.kept/$i" "${kept[i]}"
done
for file in passwd hosts resolv.conf; do
  target=$(readlink -m "/etc/$file")
  mkdir -p "${target%/*}" && touch "$target"
  mount --bind "$rig/etc/$file" "$target"
done
if [[ $name != laptop ]]; then
  mkdir -p /mnt/timbre-ray
  mount --bind "$rig/shared" /mnt/timbre-ray
fi

mkdir -p /run/sshd /home/ubuntu
cp -r /etc/skel/. "$rig/home/$name/." /home/ubuntu/
# All hosts start on the cores of one machine, which may be busy.
for limit in raylet_start_wait_time_s=60 worker_register_timeout_seconds=300 agent_register_timeout_ms=300000; do
  echo "export RAY_$limit" >> /home/ubuntu/.profile
done
ip link set lo up
/usr/sbin/sshd -D -f "$rig/etc/sshd_config" -E "$rig/$name.sshd.log" &
echo "$outer_pid" > "$rig/$name.pid.tmp" && mv "$rig/$name.pid.tmp" "$rig/$name.pid"
wait
