#!/bin/sh
# Creates Temporal's tables, or brings them up to this version's. Existing data stays.
set -eu
SQL_PASSWORD="$(cat /run/secrets/temporal/temporal)"
export SQL_PASSWORD
for database in temporal:temporal temporal_visibility:visibility; do
    tool="temporal-sql-tool --plugin postgres12 --ep postgres -p 5432 -u temporal --db ${database%:*}"
    $tool setup-schema -v 0.0
    $tool update-schema -d "/etc/temporal/schema/postgresql/v12/${database#*:}/versioned"
done
