#!/bin/sh
# The whole of it in a minute, on a fresh machine with Deno or npm: sets up, builds, starts a PostgreSQL of its own,
# migrates it, drains a task queue into maintenance and back, and leaves nothing behind.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/setup.sh
./scripts/build.sh
exec .toolchain/deno run -A scripts/postgres_server.ts "$root/.toolchain/deno" run -A scripts/demo.ts
