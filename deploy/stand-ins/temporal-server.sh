#!/bin/sh
# Not the server of the real image: Temporal's development server, which keeps nothing over a restart and needs no PostgreSQL.
exec temporal server start-dev --ip 0.0.0.0 --headless --log-level warn
