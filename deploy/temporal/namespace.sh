#!/bin/sh
# Creates the namespace if it is missing, and waits until it can be used. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say where and which.
set -eu
attempts=60
try() {
    until "$@" >/dev/null; do
        attempts=$((attempts - 1))
        [ "$attempts" -gt 0 ] || { echo "Temporal does not answer: $*" >&2; exit 1; }
        sleep 1
    done
}
try temporal operator cluster health
if ! temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention 720h
fi
# A new namespace is known everywhere only some seconds later.
try temporal workflow list --limit 1
