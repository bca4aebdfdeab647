#!/bin/bash
# What the official image does at its first start, in short: initdb, then the init scripts on a server that listens on its socket only.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    # shellcheck disable=SC2086 # these are several arguments
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" -D "$PGDATA" --encoding=UTF8 --locale=C ${POSTGRES_INITDB_ARGS:-}
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" start
    export POSTGRES_USER=postgres PGHOST=/var/run/postgresql
    for script in /docker-entrypoint-initdb.d/*.sh; do bash "$script"; done
    unset PGHOST
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
