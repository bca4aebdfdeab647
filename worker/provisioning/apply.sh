#!/bin/sh
# Writes what JustEnough needs into the Vault at VAULT_ADDR (and VAULT_NAMESPACE), with bao or vault. It may be run again.
# VAULT_TOKEN: of an administrator; the policy in je-admin.hcl is enough. Made by `justenough vault export`.
# ./apply.sh --change-shared also writes what everybody in the Vault shares.
set -eu
cd "$(dirname "$0")"
change_shared=no
[ "${1-}" != --change-shared ] || change_shared=yes
vault=$(command -v bao || command -v vault) || { echo "apply.sh: neither bao nor vault is installed" >&2; exit 1; }
for name in @VARIABLES@; do
    eval "[ -n \"\${$name-}\" ]" || { echo "apply.sh: set and export $name: the catalog's provision writes it" >&2; exit 1; }
done

# Prints a file with each ${NAME} replaced by the environment's value.
fill() {
    awk '
        function escaped(text,   at, one, out) {
            out = ""
            for (at = 1; at <= length(text); at++) {
                one = substr(text, at, 1)
                out = out (one == "\\" || one == "\"" ? "\\" one : one == "\n" ? "\\n" : one == "\r" ? "\\r" : one == "\t" ? "\\t" : one)
            }
            return out
        }
        {
            rest = $0
            while (match(rest, /[$][{][A-Za-z_][A-Za-z0-9_]*[}]/)) {
                printf "%s%s", substr(rest, 1, RSTART - 1), escaped(ENVIRON[substr(rest, RSTART + 2, RLENGTH - 3)])
                rest = substr(rest, RSTART + RLENGTH)
            }
            print rest
        }' "$1"
}

# put PATH FILE: an engine that was mounted just now may not take writes yet.
put() {
    tries=0
    until fill "$2" | "$vault" write "$1" - > /dev/null 2> .error; do
        tries=$((tries + 1))
        if [ $tries -ge 10 ] || ! grep -q -e "Upgrading from non-versioned" -e "Waiting for the primary" .error; then
            cat .error >&2
            echo "apply.sh: $1 could not be written; what stands before it has been" >&2
            exit 1
        fi
        sleep 1
    done
    rm -f .error
    echo "written $1"
}

# is_absent VERB PATH: a path that cannot be seen, for want of a right or of an answer, is not one that is absent.
is_absent() {
    if "$vault" "$1" "$2" > /dev/null 2> .error; then
        rm -f .error
        return 1
    fi
    if ! grep -q -e "No value found" -e "Code: 400" -e "Code: 404" .error; then
        cat .error >&2
        echo "apply.sh: whether $2 exists cannot be seen; what stands before it has been written" >&2
        exit 1
    fi
}

put_once() {
    if ! is_absent read "$1"; then
        echo "kept    $1"
    else
        random=$(head -c 96 /dev/urandom | base64 | tr -d '+/=\n' | cut -c 1-44)
        export random
        put "$1" "$2"
    fi
}

put_unless() {
    if ! is_absent list "$1"; then
        echo "kept    $2"
    else
        put "$2" "$3"
    fi
}

put_shared() {
    if [ "$change_shared" = yes ]; then
        put "$1" "$2"
    else
        echo "LEFT    $1: everybody in this Vault shares it; compare it with $2, and write it with ./apply.sh --change-shared"
    fi
}

# raise_shared PATH FIELD SECONDS FILE: a longer time stays as it is.
raise_shared() {
    if [ "$(field "$1" "$2")" -ge "$3" ]; then
        echo "kept    $1"
    else
        put_shared "$1" "$4"
    fi
}

put_policy() {
    fill "$2" | "$vault" policy write "$1" - > /dev/null
    echo "written sys/policies/acl/$1"
}

field() {
    "$vault" read -field="$2" "$1"
}

# login_file ROLE FILE: unless the file exists. Only its owner can read it.
login_file() {
    if [ ! -e "$2" ]; then
        role_id=$(field "auth/approle/role/$1/role-id" role_id)
        secret_id=$("$vault" write -force -field=secret_id "auth/approle/role/$1/secret-id")
        (umask 077 && printf '{"role_id": "%s", "secret_id": "%s"}\n' "$role_id" "$secret_id" > "$2")
        echo "written $2"
    fi
}

