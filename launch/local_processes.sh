#!/usr/bin/env bash
# Runs several processes on this machine, as on several hosts: on the CPU, or with one GPU for each process.
#   launch/local_processes.sh 2 --config configs/ave.py --data.path data/ave --workdir runs/two
# If one of them fails, the others end too, within seconds. A signal goes to all of them; after SIGTERM they save the
# step and end with 75, and a second signal ends them at once. The exit code is that of the process that failed first.
# Needs Bash 5.1.
set -uo pipefail
number=${1-}
if [[ ! $number =~ ^[1-9][0-9]*$ ]]; then
  echo "launch/local_processes.sh: found '$number' as the number of processes, expected 1 or more" >&2
  exit 2
fi
shift

declare -A running=()
notice=$(mktemp) || exit
send() { ((${#running[@]})) && kill -s "$1" "${!running[@]}" 2>/dev/null; }
trap 'send TERM' TERM
trap 'send INT' INT
trap 'send HUP' HUP
trap 'send KILL; [[ -z ${timer-} ]] || kill "$timer" 2>/dev/null; rm -f "$notice"' EXIT  # nothing outlives this script

if [[ -z ${JAX_COORDINATOR_ADDRESS-} ]]; then  # a port that nothing else uses
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit
  export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port
fi
export JAX_NUM_PROCESSES=$number STAJAX_LAUNCHER=local

for ((index = 0; index < number; index++)); do
  JAX_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS-$index} python -m stajax.train --distributed "$@" &
  running[$!]=$index
done

# Most of those that a failed process leaves notice by themselves, and say so; those that do not are ended.
steps=(TERM TERM KILL)
status=0 timer=""
while ((${#running[@]})); do
  code=0 ended=""
  for process in "${!running[@]}"; do  # `wait -n` does not know those that a signal ended before it began
    kill -0 "$process" 2>/dev/null || ended=$process
  done
  if [[ -n $ended ]]; then
    wait "$ended" 2>"$notice" || code=$?
  else
    wait -n -p ended "${!running[@]}" ${timer:+"$timer"} 2>"$notice" || code=$?
  fi
  if [[ -z ${ended-} ]]; then
    continue  # a signal, not the end of a process
  elif [[ $ended == "$timer" ]]; then
    send "${steps[0]-KILL}"
    steps=("${steps[@]:1}")
    sleep 3 & timer=$!
    continue
  fi
  if ((code > 128)) && [[ -s $notice ]]; then  # Bash says so of those that a signal has ended, which could not say it themselves
    echo "launch/local_processes.sh: process ${running[$ended]} was ended by SIG$(kill -l "$code")" >&2
  fi
  unset "running[$ended]"
  if ((code && !status)); then
    status=$code
    sleep 20 & timer=$!
  fi
done
exit "$status"
