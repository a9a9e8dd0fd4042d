#!/usr/bin/env bash
# Start-up: `pipeweave --version` against an empty program compiled by the same Deno (wall time), and `db:status`
# against both (CPU time), interleaved in one run. Prints medians and ratios; exits 1 when a bound is broken.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
runs=${1:-41}
if [ -z "${PIPEWEAVE_TEST_SERVER:-}" ]; then
  ./scripts/build.sh
  exec .toolchain/deno run -A scripts/postgres_server.ts "$0" "$runs"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "" >"$work/empty.ts"
if [ "$(cat .toolchain/way)" = npm ]; then
  DENORT_BIN=$(.toolchain/deno run --no-config -A scripts/vendor_npm.ts denort "$(.toolchain/deno eval --no-config 'console.log(Deno.build.target)')")
  export DENORT_BIN
fi
.toolchain/deno compile --quiet --no-config --output "$work/empty" "$work/empty.ts"
export DATABASE_URL=$PIPEWEAVE_TEST_SERVER
./dist/pipeweave db:migrate --quiet

# Milliseconds of wall and CPU time of one command.
TIMEFORMAT='%R %U %S'
measure() {
  local file=$1
  shift
  { time "$@" >/dev/null; } 2>&1 | awk '{ printf "%.0f %.0f\n", $1 * 1000, ($2 + $3) * 1000 }' >>"$work/$file.times"
}
for ((i = 0; i < runs; i++)); do
  measure empty "$work/empty"
  measure version ./dist/pipeweave --version
  measure status ./dist/pipeweave db:status
done

median() { cut -d ' ' -f "$2" "$work/$1.times" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
empty=$(median empty 1) version=$(median version 1)
cpu_empty=$(median empty 2) cpu_version=$(median version 2) cpu_status=$(median status 2)
printf '%-22s %10s %10s\n' "median of $runs runs" "wall ms" "CPU ms"
printf '%-22s %10s %10s\n' "empty program" "$empty" "$cpu_empty"
printf '%-22s %10s %10s\n' "pipeweave --version" "$version" "$cpu_version"
printf '%-22s %10s %10s\n' "pipeweave db:status" "$(median status 1)" "$cpu_status"
awk -v e="$empty" -v v="$version" -v ce="$cpu_empty" -v cs="$cpu_status" 'BEGIN {
  printf "--version / empty: %.2f (bound 1.50)\ndb:status - empty: %d ms CPU (bound 60)\n", v / e, cs - ce
  exit !(v <= 1.5 * e && cs - ce <= 60)
}'
