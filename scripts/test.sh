#!/bin/sh
# Every check and every test, on a PostgreSQL of their own. Ends with the line "N passed, N failed".
#
#   test.sh [arguments of deno test…]
#   test.sh --postgres 14|15|16|17 [arguments…]   what depends on the server's version, on that one
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/setup.sh
PATH=$root/.toolchain:$PATH
export NO_COLOR=1
before=$(git status --porcelain 2>/dev/null || true)

PIPEWEAVE_PGBOUNCER=$(./scripts/debian.sh pgbouncer pgbouncer)
export PIPEWEAVE_PGBOUNCER

PIPEWEAVE_PGPOOL=$(./scripts/debian.sh pgpool2 pgpool)
export PIPEWEAVE_PGPOOL

PIPEWEAVE_ZSH=$(./scripts/debian.sh zsh zsh zsh-common)
PIPEWEAVE_FISH=$(./scripts/debian.sh fish fish fish-common)
export PIPEWEAVE_ZSH PIPEWEAVE_FISH

tests="src tests"
if [ "${1:-}" = --postgres ]; then
  PIPEWEAVE_POSTGRES=$(./scripts/postgres.sh "${2:-}")
  export PIPEWEAVE_POSTGRES
  shift 2
  # What is about files, builds and models is the same on each.
  tests=$(ls tests/*_test.ts | grep -v -e /build_ -e /completions_ -e /docs_ -e /library_ -e /lock_ -e /model_ -e /release_ -e /workflows_)
else
  ./scripts/check.sh
fi
./scripts/build.sh

# deno test counts steps and documentation examples too; its own last line says how it went.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# shellcheck disable=SC2086 -- a list of files
deno run -A scripts/postgres_server.ts \
  deno test --quiet --parallel --no-check --doc --allow-all $tests "$@" >"$log" 2>&1 || status=$?
cat "$log"

counts=$(sed -n 's/^\(ok\|FAILED\) | \([0-9]*\) passed.* | \([0-9]*\) failed.*/\2 \3/p' "$log" | tail -n 1)
passed=${counts% *}
failed=${counts#* }
if [ "$before" != "$(git status --porcelain 2>/dev/null || true)" ]; then
  echo "the tests changed the tree:" >&2
  git status --short >&2
  failed=$((${failed:-0} + 1))
  status=1
fi
if [ -z "$counts" ] || [ "$passed" -eq 0 ]; then
  echo "no test ran" >&2
  exit 1
fi
if [ "$failed" -ne 0 ]; then
  # Whoever sees the end of a long log alone is to see what failed.
  echo "what failed, in short:"
  sed -n '/^ ERRORS $/,/^ FAILURES $/p' "$log" | grep -A 12 '^error: ' | cut -c 1-300
fi
echo "$passed passed, $failed failed"
exit "$status"
