#!/usr/bin/env bash
# Trains on all hosts of a TPU slice that is there. All hosts must see the data and the work folder, for example on NFS.
#   TPU=my-v5e-32 ZONE=us-west4-a launch/tpu_vm.sh --config configs/ave.py --data.path /mnt/shared/ave \
#     --workdir /mnt/shared/runs/ave --init visual=/mnt/shared/vgg16-397923af.pth \
#     --init sound=/mnt/shared/I.pth.tar
# Once before, on every host: clone the project to ~/stajax, and there, as the hosts may have an older Python,
#   pip install uv && uv venv --python 3.11 .venv && uv pip install -e '.[train,tpu]'
# Run it again to go on from the last checkpoint, also on a slice of another size.
set -euo pipefail
: "${TPU:?the name of the slice}" "${ZONE:?the zone of the slice}"
# JAX asks the slice which host is which.
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd stajax && exec .venv/bin/python -m stajax.train --distributed $(printf '%q ' "$@")"
