#!/bin/sh
# Measures what the gate costs, how fast a drain ends, what a look costs beside much history, and cleanup; writes its
# part of docs/benchmarks.md. Takes some 20 minutes. Usage: ./scripts/bench_maintenance.sh [part…]
# (gate, drain, busy, look, cleanup, partitioned; single parts are printed, not written)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/build.sh
PATH=$root/.toolchain:$PATH
PGBENCH=$(./scripts/debian.sh postgresql-15 pgbench)
export PGBENCH
deno run -A --no-check --config deno.json scripts/bench/maintenance.ts "$@"
