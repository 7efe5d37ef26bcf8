#!/usr/bin/env bash
# Kills one part of the cluster that start.sh started, such as apiserver, and starts it as it was.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"
export PATH="$BIN:$PATH"

name="${1:-}"
[ -e "$RUN/pid/$name" ] || fail "no part is called '$name'; there are: $(ls "$RUN/pid" 2> /dev/null | xargs)"
pid="$(cat "$RUN/pid/$name")"
mapfile -d '' -t command < "/proc/$pid/cmdline"
kill -9 "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
mv "$RUN/log/$name.log" "$RUN/log/$name.before.log"
launch "$name" "${command[@]}"
await "the API server is ready" apiserver 60 kubectl get --raw /readyz
say "$name was killed and is running again"
