#!/bin/sh
# Prints the path of a PgBouncer for the tests: the one on PATH, or Debian's, fetched without installing it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
fail() {
  echo "pgbouncer: $1" >&2
  exit 1
}
PATH=$PATH:/usr/sbin command -v pgbouncer && exit

home=$root/.toolchain/pgbouncer
if ! [ -x "$home/run" ]; then
  command -v apt-get >/dev/null || fail "there is none on PATH, and no apt-get to fetch Debian's"
  mkdir -p "$home/lists/partial" "$home/cache/archives/partial" "$home/packages"
  # Lists of its own, so that neither root nor a former update is needed.
  apt() {
    program=$1
    shift
    "$program" -qq -o Dir::State::Lists="$home/lists" -o Dir::Cache="$home/cache" -o Debug::NoLocking=1 "$@"
  }
  apt apt-get update >&2 || fail "Debian's package lists cannot be had"
  libraries=$(apt apt-cache depends --no-recommends --no-suggests pgbouncer | sed -n 's/^ *Depends: \(lib[^ <]*\)$/\1/p')
  (
    cd "$home/packages"
    # shellcheck disable=SC2086 -- a list of words
    apt apt-get download pgbouncer $libraries >&2
    for package in *.deb; do dpkg -x "$package" ..; done
  ) || fail "Debian's package cannot be had"
  libs=$(dirname "$(find "$home/usr/lib" "$home/lib" -name 'libevent*.so.*' 2>/dev/null | head -n 1)")
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libs" "$home/usr/sbin/pgbouncer" >"$home/run"
  chmod +x "$home/run"
fi
"$home/run" --version >/dev/null || fail "the one in $home does not run"
echo "$home/run"
