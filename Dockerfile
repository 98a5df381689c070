# headstart in a container: a worker's image for docker and Kubernetes work pools, or the command
# line by itself (docs/production.md).
#
#   docker build -t headstart .                                   # CPU
#   docker build -t headstart-gpu --build-arg EXTRAS='[gpu]' .    # CUDA's libraries from PyPI
#
# The GPU build needs no CUDA base image: TensorFlow's packages bring CUDA, the host its driver and
# the NVIDIA container runtime (`docker run --gpus all`).
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim AS build

ARG EXTRAS=""
WORKDIR /src
COPY . .
# Byte-compiled: without bytecode every start of a run imports for seconds longer.
RUN python3 -m venv /opt/headstart \
 && /opt/headstart/bin/pip install --no-cache-dir --compile ".${EXTRAS}"

FROM python:${PYTHON_VERSION}-slim

COPY --from=build /opt/headstart /opt/headstart
ENV PATH=/opt/headstart/bin:$PATH \
    HEADSTART_STORE=/store \
    PREFECT_HOME=/tmp/prefect \
    PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 headstart \
 && mkdir /store \
 && chown headstart /store
USER 1000
WORKDIR /home/headstart
VOLUME /store
CMD ["headstart", "--help"]
