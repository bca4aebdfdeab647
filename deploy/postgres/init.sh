#!/bin/sh
# Runs once, on an empty volume: the databases of the store and of Temporal, each with a login of its own, and the example database.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" <<'SQL'
\set store `cat /run/secrets/postgres/store`
\set temporal `cat /run/secrets/postgres/temporal`
CREATE ROLE justenough LOGIN PASSWORD :'store';
CREATE DATABASE justenough OWNER justenough;
CREATE ROLE temporal LOGIN PASSWORD :'temporal';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
CREATE DATABASE notes;
-- Nobody connects to a database because nobody forbade it.
REVOKE ALL ON DATABASE postgres, template1, justenough, temporal, temporal_visibility, notes FROM PUBLIC;
SQL
psql -v ON_ERROR_STOP=1 --single-transaction -U "$POSTGRES_USER" -d notes -f /docker-entrypoint-initdb.d/notes.psql
# The superuser logs in through the socket in this container, and from nowhere else: jobs can reach the port.
printf '%s\n' 'host all postgres all reject' | cat - "$PGDATA/pg_hba.conf" >"$PGDATA/pg_hba.new"
cat "$PGDATA/pg_hba.new" >"$PGDATA/pg_hba.conf"
rm "$PGDATA/pg_hba.new"
