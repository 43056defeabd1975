#!/usr/bin/env bash
# Runs one task for each GPU. The work folder must be on a file system that all nodes see. A job that is queued again
# goes on where it was.
#   sbatch launch/slurm.sh --config configs/X.py --workdir /shared/runs/X
#SBATCH --job-name=stajax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
srun --kill-on-bad-exit=1 python -m stajax.train --distributed "$@"
