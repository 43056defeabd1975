#!/usr/bin/env bash
# Runs on all hosts of a TPU slice. The work folder must be one that all hosts see.
#   TPU=my-v5e-32 ZONE=us-west4-a launch/tpu_vm.sh --config configs/X.py --workdir /mnt/shared/runs/X
# Install stajax once on every host, in the folder stajax: pip install 'stajax[train,tpu]'
set -euo pipefail
gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all \
  --command "cd stajax && python -m stajax.train --distributed $(printf '%q ' "$@")"
