#!/bin/sh
# Prints the path of a program for the tests: the one on PATH, or Debian's, fetched without installing it.
# Usage: debian.sh <package> <program> [<package with its data>]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
package=$1
program=$2
data=${3:-}
fail() {
  echo "$package: $1" >&2
  exit 1
}
PATH=$PATH:/usr/sbin command -v "$program" && exit

home=$root/.toolchain/$package
if ! [ -x "$home/run" ]; then
  command -v apt-get >/dev/null || fail "there is none on PATH, and no apt-get to fetch Debian's"
  mkdir -p "$home/lists/partial" "$home/cache/archives/partial" "$home/packages"
  # Lists of its own, so that neither root nor a former update is needed.
  apt() {
    command=$1
    shift
    "$command" -qq -o Dir::State::Lists="$home/lists" -o Dir::Cache="$home/cache" -o Debug::NoLocking=1 "$@"
  }
  apt apt-get update >&2 || fail "Debian's package lists cannot be had"
  libraries=$(apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "$package" | sed -n 's/^\(lib[^ :<]*\)$/\1/p' | sort -u |
    grep -vx 'libc6\|libgcc-s1\|libcrypt1\|libc-bin\|libpam.*' || true)
  (
    cd "$home/packages"
    # shellcheck disable=SC2086 -- a list of words
    apt apt-get -o APT::Sandbox::User=root download "$package" $data $libraries >&2
    for file in *.deb; do dpkg -x "$file" ..; done
  ) || fail "Debian's package cannot be had"
  found=$(find "$home/usr" "$home/bin" -path '*bin/*' -name "$program" 2>/dev/null | head -n 1)
  [ -n "$found" ] || fail "Debian's package has no $program"
  # Without libraries of its own: the system's.
  libs=$(find "$home/usr/lib" "$home/lib" -name 'lib*.so.*' -exec dirname {} \; 2>/dev/null | sort -u | paste -s -d : -)
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libs" "$found" >"$home/run"
  chmod +x "$home/run"
fi
echo "$home/run"
