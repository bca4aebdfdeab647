#!/usr/bin/env bash
# What `make containers` does: runs docker-compose.yml for real, and shows that killing the worker's container leaves no access behind.
#
# It starts a Docker daemon of its own, in network, mount and process namespaces of its own: nothing of it reaches this machine's network, firewall
# or containers, and all of it ends with this script. Images that cannot be pulled are replaced by stand-ins from Debian's packages and the
# locked wheels (deploy/stand-ins), and it says so. Exit codes: 0 shown, 1 something failed, 2 this machine cannot run it.
#
#   KEEP=FOLDER  keep the daemon's images and the build cache in this folder, for the next run
#   TRACE=1      print each command
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'containers: %s\n' "$*" >&2; }
fail() { say "failed: $*"; exit 1; }
cannot() { say "cannot run here: $*"; exit 2; }

root=$PWD
bin=$root/.venv/bin
packages="docker.io docker-cli docker-compose docker-buildx iptables mmdebstrap slirp4netns util-linux procps"
programs="docker dockerd docker-compose iptables mmdebstrap slirp4netns unshare pgrep"

require_machine() {
    [ "$(uname -s)" = Linux ] || cannot "it needs Linux; on another system, start docker-compose.yml with your own Docker"
    [ "$(id -u)" = 0 ] || cannot "it starts a Docker daemon, which needs root"
    local program missing=""
    for program in $programs; do command -v "$program" >/dev/null || missing="$missing $program"; done
    if [ -n "$missing" ]; then
        command -v apt-get >/dev/null || cannot "these programs are missing, and there is no apt-get to install them:$missing"
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # these are several packages
        { apt-get install -y -qq --no-install-recommends $packages || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; }; } \
            >/dev/null 2>&1 || cannot "apt-get cannot install: $packages"
    fi
    unshare --net --mount --pid --fork true 2>/dev/null || cannot "this root may not make namespaces"
    [ -c /dev/net/tun ] || cannot "there is no /dev/net/tun"
}

# Runs this script again inside the namespaces, with a way out to the registries but none to this machine.
enter() {
    local inside
    mkfifo "$work/network"
    unshare --net --mount --pid --fork --kill-child --mount-proc "$root/deploy/containers-check.sh" inside "$work" &
    inside=$!
    until first=$(pgrep --parent "$inside"); do kill -0 "$inside" || fail "the namespaces cannot be made"; done
    slirp4netns --configure --mtu=65520 --disable-host-loopback --ready-fd=3 "$first" tap0 3>"$work/network" >/dev/null 2>&1 &
    slirp=$!
    wait "$inside"
}

leave() {
    local status=$?
    [ -z "${inside:-}" ] || kill "$inside" 2>/dev/null || true
    [ -z "${slirp:-}" ] || kill "$slirp" 2>/dev/null || true
    if [ -z "${KEEP:-}" ]; then rm -rf "$work"; fi
    exit "$status"
}

start_daemon() {
    ip link set lo up
    read -r -n 1 _ <"$work/network"
    mkdir -p "$work/home"
    export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/docker-config DOCKER_BUILDKIT=1
    # Its own home: what the command line of this run logs in to is nobody else's.
    export HOME=$work/home XDG_CONFIG_HOME=$work/home/config
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" -H "$DOCKER_HOST" --exec-opt native.cgroupdriver=cgroupfs \
        --cgroup-parent /justenough-containers >"$work/dockerd.log" 2>&1 &
    local daemon=$!
    until docker info >/dev/null 2>&1; do
        kill -0 "$daemon" 2>/dev/null || cannot "no Docker daemon starts: $(grep -m 1 -E 'failed to start daemon|level=fatal' "$work/dockerd.log" || tail -1 "$work/dockerd.log")"
    done
}

inside() {
    start_daemon
    docker info --format '{{.ServerVersion}} {{.Driver}} {{.CgroupVersion}}'
}

[ -z "${TRACE:-}" ] || set -x
if [ "${1:-}" = inside ]; then
    work=$2
    inside
else
    require_machine
    work=${KEEP:-$(mktemp -d)}
    mkdir -p "$work"
    rm -f "$work/network"
    trap leave EXIT
    enter
fi
