# syntax=docker/dockerfile:1
# stajax for NVIDIA GPUs, with training. The host needs the driver and the NVIDIA Container Toolkit; CUDA comes with JAX.
#   docker build -f docker/cuda.Dockerfile -t stajax-cuda .
#   docker run --rm --user "$(id -u)" --gpus all -v "$PWD:/data" -v stajax-cache:/cache stajax-cuda predict clip.mp4 --out out
FROM python:3.12-slim-bookworm AS build
RUN python -m venv /opt/stajax
COPY pyproject.toml README.md LICENSE /src/
COPY stajax /src/stajax
# Wheels stay in BuildKit's cache, not in a layer.
RUN --mount=type=cache,target=/pip PIP_CACHE_DIR=/pip /opt/stajax/bin/pip install '/src[gpu,train]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/stajax /opt/stajax
# Compiled programs, models and weights are kept in the volume /cache, so that the second run starts at once.
ENV PATH=/opt/stajax/bin:$PATH HOME=/cache XDG_CACHE_HOME=/cache NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Anybody may write there, because `--user` chooses whose the outputs are.
RUN install -d -m 1777 /cache /data
USER 1000
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["stajax"]
CMD ["--help"]
