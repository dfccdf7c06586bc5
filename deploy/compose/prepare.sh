#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Writes what compose.yaml mounts, once: passwords into secrets/ and a configuration to be edited.
# What is there already stays as it is.
set -eu
cd -- "$(dirname -- "$0")"
umask 077
mkdir -p secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

for name in store_password cluster_secret; do
    if [ ! -e "secrets/$name" ]; then random >"secrets/$name"; fi
done
if [ ! -e secrets/nats_secret.conf ]; then
    printf 'authorization { token: "%s" }\n' "$(cat secrets/cluster_secret)" >secrets/nats_secret.conf
fi
# The node's user inside its image; root reads them for PostgreSQL and NATS.
if [ "$(id -u)" = 0 ]; then
    chown 10001:10001 secrets/store_password secrets/cluster_secret
    chmod 0755 secrets
    chmod 0400 secrets/*
else
    echo 'prepare.sh: run it as root, or the node cannot read its secrets (user 10001)' >&2
    exit 1
fi
if [ ! -e callshield.toml ]; then
    install -m 0644 callshield.example.toml callshield.toml
    echo 'Edit callshield.toml: addresses, [[peers]], [agents.ID].'
fi
