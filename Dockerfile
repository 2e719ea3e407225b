# docker build .                           for processors with AVX2 or ARM64, no GPU
# docker build --build-arg DEVICE=cuda .   for NVIDIA cards
# Both take PIP_INDEX_URL and PIP_EXTRA_INDEX_URL as build arguments, e.g. to get torch without CUDA.
ARG DEVICE=cpu

FROM python:3.11.14-slim-bookworm AS base-cpu
ENV SLUICE_PORTABLE=1

FROM nvidia/cuda:12.8.1-devel-ubuntu22.04 AS toolkit

FROM base-cpu AS build-cuda
COPY --from=toolkit /usr/local/cuda-12.8 /usr/local/cuda
# The driver's library is the host's, so it is not there to link against.
ENV SLUICE_CUDA=1 PATH=/usr/local/cuda/bin:$PATH LDFLAGS=-Wl,--allow-shlib-undefined

FROM nvidia/cuda:12.8.1-runtime-ubuntu22.04 AS libraries

FROM base-cpu AS base-cuda
COPY --from=libraries /usr/local/cuda-12.8/lib64 /usr/local/cuda/lib64
ENV SLUICE_CUDA=1 LD_LIBRARY_PATH=/usr/local/cuda/lib64

FROM base-cpu AS build-cpu

# hadolint ignore=DL3006
FROM build-${DEVICE} AS builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 SLUICE_CACHE=/opt/cache
WORKDIR /opt/sluice
# Three layers, the slow ones first: libraries, llama.cpp, ourselves.
COPY Makefile requirements.lock ./
RUN make .venv/.libraries-are-complete
COPY config/__init__.py config/digests.py config/errors.py config/
COPY engines/__init__.py engines/patches.py engines/toolchain.py engines/
RUN .venv/bin/python -m engines.toolchain install
COPY . .
RUN make setup

# hadolint ignore=DL3006
FROM base-${DEVICE} AS runtime
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/sluice sluice
COPY --from=builder /opt /opt
ENV PATH=/opt/sluice/.venv/bin:$PATH \
    SLUICE_CACHE=/opt/cache \
    SLUICE_HOME=/var/lib/sluice \
    SLUICE_API_HOST=0.0.0.0 \
    SLUICE_API_PORT=8080
USER 10001
# sluice.yaml is read from here when it is mounted.
WORKDIR /etc/sluice
VOLUME /var/lib/sluice
EXPOSE 8080
# Whether a part is stuck: a recipe that is broken fails /health, and is no reason to start the service again.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/api/v1/live', timeout=4)"]
ENTRYPOINT ["sluice"]
CMD ["serve"]
