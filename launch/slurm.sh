#!/usr/bin/env bash
# Trains on SLURM with one process for each GPU. All nodes must see the code, the data and the work folder.
#   sbatch launch/slurm.sh --config configs/ave.py --data.path /shared/ave --workdir /shared/runs/ave \
#     --init visual=/shared/vgg16-397923af.pth --init sound=/shared/I.pth.tar
# Submit it from the project's folder, with the Python environment activated. Options before the name of this file
# replace those below: `sbatch --nodes=1 --time=02:00:00 launch/slurm.sh …`. A job that is queued again, or submitted
# again, goes on from the last checkpoint, also with another number of nodes.
#SBATCH --job-name=stajax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
# JAX finds the other processes by the variables that srun sets, and gives each process the GPU of its number.
exec srun --kill-on-bad-exit=1 python -m stajax.train --distributed "$@"
