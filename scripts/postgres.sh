#!/bin/sh
# Prints the folder of another major version of PostgreSQL for the tests, fetched from npm where it is not there yet.
# Usage: postgres.sh 14|15|16|17
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in
  14) version=14.23.0-beta.17 ;;
  15) version=15.18.0-beta.17 ;;
  16) version=16.14.0-beta.17 ;;
  17) version=17.10.0-beta.17 ;;
  *)
    echo "usage: postgres.sh 14|15|16|17" >&2
    exit 2
    ;;
esac
home=$root/.toolchain/postgres-$1
package=@embedded-postgres/$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
if [ "$(cat "$home/done" 2>/dev/null)" != "$version" ]; then
  rm -rf "$home"
  mkdir -p "$home"
  npm install --prefix "$home" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
    "$package@$version" >&2
  # The symbolic links that npm tarballs cannot hold.
  (cd "$home/node_modules/$package" &&
    "$root/.toolchain/deno" run --no-config --quiet --unstable-bare-node-builtins -A scripts/hydrate-symlinks.js) >&2
  echo "$version" >"$home/done"
fi
echo "$home/node_modules/$package/native"
