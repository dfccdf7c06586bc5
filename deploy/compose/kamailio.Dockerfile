# Kamailio with deploy/kamailio (docs/edge.md), from Debian's packages.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        kamailio kamailio-tls-modules kamailio-websocket-modules kamailio-outbound-modules \
        kamailio-extra-modules kamailio-utils-modules \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o kamailio -g kamailio /run/kamailio

COPY deploy/kamailio/ /etc/kamailio/

USER kamailio
EXPOSE 5060/udp 5060/tcp 5061/tcp
# -DD: stay in the foreground; -E: log to standard error.
CMD ["kamailio", "-DD", "-E", "-f", "/etc/kamailio/kamailio.cfg", "-P", "/run/kamailio/kamailio.pid"]
