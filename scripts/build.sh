#!/bin/sh
# Builds dist/pipeweave for this machine, or one binary for another:
#
#   scripts/build.sh [--target <triple>|all] [--output <file>]
#
# Targets: x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin
#          x86_64-pc-windows-msvc
#
# PIPEWEAVE_SOCKET_DIRS (folders, by commas) names where the binary may use Unix sockets. Deno asks for leave to write
# to a socket before it connects to it, so the binary has that leave for these folders, and for no other place.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
all="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-msvc"
target=
output=
while [ $# -gt 0 ]; do
  case $1 in
    --target) target=${2:?--target needs a value} && shift 2 ;;
    --output) output=${2:?--output needs a value} && shift 2 ;;
    *) echo "build: unknown argument $1" >&2 && exit 2 ;;
  esac
done
if [ "$target" = all ]; then
  for each in $all; do "$0" --target "$each"; done
  exit
fi

./scripts/setup.sh
deno=$root/.toolchain/deno
host=$("$deno" eval --no-config 'console.log(Deno.build.target)')
if [ -z "$output" ]; then
  output=dist/pipeweave
  [ -z "$target" ] || output=dist/pipeweave-$target
fi
target=${target:-$host}

base="denort downloaded by Deno"
if [ "$(cat .toolchain/way)" = npm ]; then
  DENORT_BIN=$("$deno" run --no-config -A scripts/vendor_npm.ts denort "$target")
  export DENORT_BIN DENO_TLS_CA_STORE=system
  base="denort from npm"
fi

commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit, modified"
sockets=${PIPEWEAVE_SOCKET_DIRS:-/run/postgresql,/var/run/postgresql,/cloudsql}
environment=$("$deno" eval 'import { ENVIRONMENT } from "./src/config/environment.ts"; console.log(ENVIRONMENT.join(","))')

# A command runs for a moment: what V8 would optimise of PostgreSQL's parser in the background is never used
# (./scripts/bench_flags.sh measures it).
flags=${PIPEWEAVE_V8_FLAGS:---liftoff-only}
v8=
[ "$flags" = none ] || v8=--v8-flags=$flags

# A few modules start faster than two hundred, and what is bundled is not looked for at run time.
# A place of its own, so that two builds at once do not meet.
bundle=dist/build.$$/bundle
trap 'rm -rf "$root/dist/build.$$"' EXIT
"$deno" bundle --quiet --platform deno --code-splitting --outdir "$bundle" main.ts
printf '{"commit":"%s","base":"%s","socketDirs":"%s"}\n' "$commit" "$base" "$sockets" >"$bundle/build.json"
# PostgreSQL's parser is a CommonJS module that reads its WebAssembly from beside itself. Under another name, since deno
# compile takes a .wasm file for a module.
cp node_modules/libpg-query/wasm/libpg-query.wasm "$bundle/libpg-query.bin"
module=$(grep -l '"libpg-query.wasm"' "$bundle"/*.js)
{ echo "const __dirname = import.meta.dirname;" && sed 's/"libpg-query.wasm"/"libpg-query.bin"/' "$module"; } >"$bundle/module"
mv "$bundle/module" "$module"
cp LICENSE THIRD_PARTY_NOTICES "$bundle"
# The embedded files' times are in the binary: the same commit is to give the same one on any day.
TZ=UTC find "$bundle" -exec touch -t 202001010000 {} +
# Without --no-code-cache the program would write V8's code to the temp folder and run what it finds there at its next
# start, where any local user can plant a file.
# shellcheck disable=SC2086 -- no flag is no argument
case $output in /*) ;; *) output=$root/$output ;; esac
cd "$bundle"
"$deno" compile --quiet --no-config --no-prompt --no-check --no-code-cache $v8 --target "$target" --output "$output" \
  --allow-net --allow-read --allow-env="$environment" --allow-write="$sockets,." --allow-sys=hostname,uid,gid,userInfo,homedir \
  --include build.json --include libpg-query.bin --include LICENSE --include THIRD_PARTY_NOTICES main.js
echo "built ${output#"$root/"}" >&2
