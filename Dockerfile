# monai_anomalyclip. Research use only: not a medical device; not for diagnosis or treatment.
# docs/how_to/container.md says how to build it, also without a network and without a registry of images.

# Any Debian or Ubuntu with Python 3.10 or newer and its venv.
ARG BASE=python:3.12-slim-bookworm
# What pip is given wherever it installs, such as "--no-index --find-links /context/wheelhouse".
ARG PIP_ARGUMENTS=""
# And where it takes torch and torchvision from: without PyTorch's index of packages for the CPU, pip takes those for
# GPUs, which are much larger. The two must be of one kind.
ARG TORCH_ARGUMENTS=""

FROM ${BASE} AS base
ENV PATH=/opt/anomalyclip/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
RUN mkdir -p /opt/anomalyclip/bundles && \
    python3 -m venv /opt/anomalyclip/venv && \
    useradd --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin anomalyclip

# MONAI Label's server, which needs pydicom 2, and the app around the bundle.
FROM base AS label
ARG PIP_ARGUMENTS
ARG TORCH_ARGUMENTS
# hadolint ignore=DL3013,SC2086
RUN --mount=type=bind,target=/context \
    set -eu; \
    mkdir /tmp/source; \
    cp -r /context/pyproject.toml /context/setup.py /context/README.md /context/LICENSE /tmp/source; \
    cp -r /context/monai_anomalyclip /context/bundles /context/configs /tmp/source; \
    pip install ${PIP_ARGUMENTS} ${TORCH_ARGUMENTS} torch torchvision; \
    pip install ${PIP_ARGUMENTS} -r /context/requirements/label.txt; \
    pip install ${PIP_ARGUMENTS} --no-deps -r /context/requirements/label-no-deps.txt /tmp/source; \
    python -c "import torchvision, monailabel"; \
    rm -rf /tmp/source; \
    mkdir /data; \
    chown 1000 /data
WORKDIR /opt/anomalyclip
USER 1000
VOLUME /data
ENV MONAI_LABEL_SESSION_PATH=/data/sessions
# Our app is written at the first start. The server's checks admit requests to 127.0.0.1 alone.
CMD ["sh", "-c", "test -d /data/app || monai-anomalyclip label-app /data/app --bundle bundles/anomalyclip; mkdir -p /data/studies; exec python -m monailabel.main start_server --host 0.0.0.0 --port 8000 --app /data/app --studies ${STUDIES:-/data/studies}"]

FROM base AS predict
ARG PIP_ARGUMENTS
ARG TORCH_ARGUMENTS
# A folder of the build's context that `monai-anomalyclip weights bundle` made; empty for an image without weights.
ARG WEIGHTS=""
# hadolint ignore=DL3013,SC2086
RUN --mount=type=bind,target=/context \
    set -eu; \
    mkdir /tmp/source; \
    cp -r /context/pyproject.toml /context/setup.py /context/README.md /context/LICENSE /tmp/source; \
    cp -r /context/monai_anomalyclip /context/bundles /context/configs /tmp/source; \
    pip install ${PIP_ARGUMENTS} ${TORCH_ARGUMENTS} torch torchvision; \
    pip install ${PIP_ARGUMENTS} "/tmp/source[dimse,video]"; \
    python -c "import torchvision, monai_anomalyclip"; \
    if [ -n "${WEIGHTS}" ]; then cp -r "/context/${WEIGHTS}" /opt/anomalyclip/bundles/anomalyclip; fi; \
    rm -rf /tmp/source; \
    install -d -o 1000 /spool
# Where bundles/anomalyclip is the default bundle: built in, or mounted there.
WORKDIR /opt/anomalyclip
USER 1000
ENTRYPOINT ["monai-anomalyclip"]
CMD ["--help"]
