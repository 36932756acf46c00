#!/bin/bash
# Starts the Ray node of this host, in place of one that runs.
#
#   node.sh head|worker [FLAG...]
#
# The flags go to `ray start`. A worker finds its head by RAY_HEAD_IP. Runs are kept in
# PES_RUNS: a folder that all hosts share, since each writes its part of a checkpoint.
#
# The node is a unit of systemd (journalctl -u pes-ray). Where the host shuts down,
# systemd tells it first: blocks then move away, and drivers save. `ray start` without
# --block would leave nobody to be told.
set -euo pipefail

# As on every node, wherever it is started: pes_cluster/ray_backend/environment.py.
export RAY_AUTH_MODE=token
unset RAY_AUTH_TOKEN
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=120
export RAY_JOB_START_TIMEOUT_SECONDS=604800
export RAY_USAGE_STATS_ENABLED=0
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000
export RAY_health_check_failure_threshold=3
export RAY_raylet_liveness_self_check_interval_ms=5000
export RAY_worker_niceness=0
# By file, never by a command line or a log.
export RAY_AUTH_TOKEN_PATH=$HOME/pes/token
export PATH=$HOME/pes/venv/bin:$PATH

role=${1:-}
case "$role" in
  # Neither shards nor drivers on the head: it must outlive what they do to a host. The
  # dashboard, where jobs are submitted, is reached through ssh: `ray dashboard`.
  head) flags=(--head --port=6379 --num-cpus=0 --num-gpus=0
    --dashboard-host=127.0.0.1 --dashboard-port=8265) ;;
  worker) flags=("--address=${RAY_HEAD_IP:?names the host of the head}:6379") ;;
  *) echo "node.sh: name head or worker" >&2; exit 2 ;;
esac
flags+=(--block "${@:2}")
: "${PES_RUNS:?names the folder of the runs}"
[ -s "$RAY_AUTH_TOKEN_PATH" ] || { echo "node.sh: no token in $RAY_AUTH_TOKEN_PATH" >&2; exit 1; }
chmod 600 "$RAY_AUTH_TOKEN_PATH"
mkdir -p "$PES_RUNS"

unit() {
  sudo systemctl stop pes-ray 2>/dev/null || true  # It drains first.
  local pass=() name
  for name in HOME PATH PES_RUNS ${!RAY_*}; do
    pass+=("--setenv=$name=${!name}")
  done
  # To the node alone goes the SIGTERM (mixed), for longer than it drains; and while the
  # network is still there.
  sudo systemd-run --unit=pes-ray --collect --uid="$(id -u)" --gid="$(id -g)" \
    --working-directory="$HOME" --property=KillMode=mixed --property=TimeoutStopSec=150 \
    --property=After=network-online.target --property=LimitNOFILE=65536 \
    "${pass[@]}" "$HOME/pes/venv/bin/ray" start "${flags[@]}"
}

# Whether a process is a node: since a restart of the host its number may be another's.
is_node() {
  tr '\0' ' ' 2>/dev/null < "/proc/$1/cmdline" | grep --quiet '/ray start '
}

process() {
  local file=$HOME/pes/node.pid
  if [ -s "$file" ] && is_node "$(cat "$file")" && kill -TERM "$(cat "$file")"; then
    timeout 150 tail --pid="$(cat "$file")" --follow /dev/null || true
  fi
  cd "$HOME"
  setsid nohup ray start "${flags[@]}" > "$HOME/pes/node.log" 2>&1 < /dev/null &
  echo $! > "$file"
}

if [ -d /run/systemd/system ] && sudo -n true 2>/dev/null; then
  unit
else
  echo "node.sh: no systemd, or no sudo without a password: this host leaves without notice" >&2
  process
fi
[ "$role" = head ] || exit 0
for _ in $(seq 60); do
  ! ray health-check --address 127.0.0.1:6379 2>/dev/null || exit 0
  sleep 1
done
echo "node.sh: the head does not answer within 60 s" >&2
exit 1
