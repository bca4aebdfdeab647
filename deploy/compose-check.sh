#!/usr/bin/env bash
# Reads docker-compose.yml with Compose itself. Debian's docker-compose needs no Docker daemon for it.
set -euo pipefail
cd "$(dirname "$0")/.."

compose() {
    if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends docker-compose >/dev/null 2>&1 ||
            { apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends docker-compose >/dev/null; }
    else
        echo "compose-check: no Compose here; install docker-compose to have docker-compose.yml read by it (the tests check its structure)" >&2
        exit 0
    fi
fi
compose --env-file deploy/compose.env.example config --quiet
echo "compose-check: docker-compose.yml is valid ($(compose version --short))"
