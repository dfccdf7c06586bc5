# Callshield in a container. The first stage runs the same `./run` that a person runs; the second
# carries the finished virtual environment and the shared libraries that it needs, and no compiler.
#
#   docker build -t callshield .
#   docker run --init --network host --stop-timeout 60 --ulimit rtprio=10 --read-only --cap-drop all \
#       --security-opt no-new-privileges --tmpfs /tmp --tmpfs /run/callshield:mode=1777 \
#       -v /etc/callshield:/etc/callshield:ro -v callshield:/var/lib/callshield callshield
#
# With Kamailio, NATS and PostgreSQL beside it: deploy/compose. ./run test-image builds and runs both.
#
# --network host: SIP and a wide RTP port range, with the addresses that the configuration names.
#
# pjproject's source comes from the Debian archive. To give another: put its tarball beside this
# file as pjproject-….tar.gz and add --build-arg CALLSHIELD_PJPROJECT=pjproject-….tar.gz

# One release for both stages: the libraries that pjsua2 is linked to must be the same.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
SHELL ["/bin/sh", "-eu", "-c"]
WORKDIR /opt/callshield
ENV CALLSHIELD_CACHE=/var/cache/callshield

# pjsua2 first, from the few files that shape it: it is compiled again only when one of them changes.
COPY run pyproject.toml pjproject-*.tar.* ./
COPY callshield/__init__.py callshield/errors.py callshield/
COPY sipbridge/__init__.py sipbridge/
COPY sipbridge/pjsua2_build/ sipbridge/pjsua2_build/
ARG CALLSHIELD_PJPROJECT=
ARG CALLSHIELD_PJPROJECT_SHA256=
RUN ./run pjsua2

COPY . .
# The set-up installs this folder in place; the image takes a copy into the environment instead.
RUN ./run setup \
    && .venv/bin/python -m pip install --disable-pip-version-check --no-cache-dir \
        --no-deps --no-build-isolation --force-reinstall . \
    && .venv/bin/python -I -c 'import callshield, pathlib; \
        assert ".venv" in pathlib.Path(callshield.__file__).parts'


FROM ${BASE}
LABEL org.opencontainers.image.title="Callshield" \
      org.opencontainers.image.description="Protects call-centre agents from abusive callers" \
      org.opencontainers.image.licenses="GPL-3.0-or-later"

# The libraries are those that _pjsua2 names (readelf -d); Debian 13 calls libssl3 libssl3t64.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates fonts-noto-cjk python3 libssl3 libsrtp2-1 libopus0 libsamplerate0 libuuid1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/callshield \
        --shell /usr/sbin/nologin callshield \
    && install -d -o callshield -g callshield -m 700 /run/callshield

COPY --from=build /opt/callshield/.venv/ /opt/callshield/.venv/
ENV PATH=/opt/callshield/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A library missing here must fail the build, not the first call.
RUN python -c 'import pjsua2, pjsip_guard, onnxruntime, ctranslate2, sipbridge.relay_core; print(pjsip_guard.info())'

USER callshield
WORKDIR /var/lib/callshield
VOLUME ["/var/lib/callshield"]
EXPOSE 5060/udp 5060/tcp 8080/tcp
# Alive, not ready: a database that is away must not get a node restarted that carries calls. The
# address is [web]'s; where the file changes it, give it here too (CALLSHIELD_WEB__PORT goes first).
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection(os.environ.get('CALLSHIELD_WEB__BIND', '127.0.0.1'), int(os.environ.get('CALLSHIELD_WEB__PORT', '8080')), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# The supervisor lets running calls end (node.stop_timeout_s): give `docker stop` that time and more.
STOPSIGNAL SIGTERM
CMD ["callshield", "serve", "--config", "/etc/callshield/callshield.toml"]
