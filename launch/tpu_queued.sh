#!/usr/bin/env bash
# Asks for a TPU slice of spot VMs as a queued resource; when it is there, every host installs stajax and trains.
#   NAME=ave ZONE=us-west4-a TYPE=v5litepod-32 RUNTIME=v2-alpha-tpuv5-lite NFS=10.0.0.2:/share \
#     launch/tpu_queued.sh --config configs/ave.py --data.path /mnt/shared/ave \
#     --workdir /mnt/shared/runs/ave --init visual=/mnt/shared/vgg16-397923af.pth \
#     --init sound=/mnt/shared/I.pth.tar
# NFS is a share that all hosts see as /mnt/shared, with the project in /mnt/shared/stajax. Each host's output is in
# /mnt/shared/HOST.log. A slice that was taken back does not return: delete it as below, run this again, and training
# goes on from the last checkpoint, also on a slice of another size. Delete it when training is done, as it costs until
# then: gcloud compute tpus queued-resources delete NAME --zone=ZONE --force
set -euo pipefail
: "${NAME:?a name for the slice}" "${ZONE:?its zone}" "${TYPE:?its type}" "${RUNTIME:?its software}" "${NFS:?the share}"
startup=$(mktemp)
trap 'rm -f "$startup"' EXIT
{
  printf '#!/usr/bin/env bash\nset -euo pipefail\nshare=%q\narguments=(' "$NFS"
  printf '%q ' "$@"
  printf ')\n'
  cat <<'ON_EVERY_HOST'
# This runs as root on every host, also when a host starts again after maintenance.
mkdir -p /mnt/shared
mountpoint -q /mnt/shared || { apt-get install -y nfs-common && mount -t nfs "$share" /mnt/shared; }
exec >>"/mnt/shared/$(hostname).log" 2>&1
if [[ ! -e /opt/stajax/installed ]]; then # on the host's own disk, as hosts that build in one folder disturb each other
  cp -r /mnt/shared/stajax /opt/
  pip install uv # the hosts may have an older Python
  uv venv --clear --python 3.11 /opt/stajax/.venv
  uv pip install --python /opt/stajax/.venv/bin/python '/opt/stajax[train,tpu]'
  touch /opt/stajax/installed
fi
cd /opt/stajax
exec .venv/bin/python -m stajax.train --distributed "${arguments[@]}"
ON_EVERY_HOST
} >"$startup"
gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
  --runtime-version="$RUNTIME" --spot --metadata-from-file=startup-script="$startup"
