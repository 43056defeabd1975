#!/usr/bin/env bash
# Runs several processes on this machine, as on several hosts: on the CPU, or with one GPU for each process.
#   launch/local_processes.sh 2 --config configs/quickstart.py --workdir runs/two
set -euo pipefail
processes=$1
shift
export JAX_NUM_PROCESSES=$processes JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-127.0.0.1:12355}
children=()
trap 'kill "${children[@]}" 2>/dev/null || true' EXIT
for ((index = 0; index < processes; index++)); do
  JAX_PROCESS_ID=$index python -m stajax.train --distributed "$@" &
  children+=($!)
done
status=0
for child in "${children[@]}"; do wait "$child" || status=$?; done
exit "$status"
