# Counts rows with a credential for each command (justenough-access, sdk/). Between the commands, the environment contains no credential.
set -euo pipefail

count='import psycopg, sys; print(*psycopg.connect(connect_timeout=10).execute("SELECT count(*) FROM " + sys.argv[1]).fetchone())'

orders=$(justenough-access orders-db read --reason "Count the orders" -- python -c "$count" orders)
refunds=$(justenough-access refunds-db read --reason "Count the refunds" -- python -c "$count" refunds)
echo "$refunds refunds of $orders orders; ${PGUSER:-nobody} is logged in now."
