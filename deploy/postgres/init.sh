#!/bin/sh
# Runs once, on an empty volume: one role and database for the store, one role for Temporal (which makes its two databases itself).
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -v store="$STORE_PASSWORD" -v temporal="$TEMPORAL_DB_PASSWORD" <<'SQL'
CREATE ROLE justenough LOGIN PASSWORD :'store';
CREATE DATABASE justenough OWNER justenough;
REVOKE CONNECT ON DATABASE justenough FROM PUBLIC;
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'temporal';
SQL
