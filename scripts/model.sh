#!/bin/sh
# Checks the model of the gate's protocol with Spin: that what is claimed holds, and that each defect is found.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
spin=$("$root/scripts/debian.sh" spin spin)
compiler=$(command -v cc || command -v gcc) || {
  echo "model: needs a C compiler" >&2
  exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Prints "holds" or "violated", and how many states were looked at.
check() {
  "$spin" "$@" -a "$root/docs/maintenance_protocol.pml" >spin.log 2>&1 || {
    cat spin.log >&2
    exit 1
  }
  "$compiler" -O2 -DSAFETY -DNOFAIR -DCOLLAPSE -o pan pan.c
  ./pan -m1000000 -n >pan.log 2>&1
  if grep -q 'max search depth too small\|out of memory' pan.log; then
    cat pan.log >&2
    exit 1
  fi
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log)
  if grep -q 'errors: 0' pan.log; then echo "holds ($states states)"; else echo "violated"; fi
}

status=0
result=$(check)
echo "maintenance is idle, and nothing is lost: $result"
case $result in holds*) ;; *) status=1 ;; esac
for defect in NO_WAIT SNAPSHOT NO_RECOUNT NO_HOLD; do
  result=$(check "-D$defect")
  echo "with $defect: $result"
  [ "$result" = violated ] || status=1
done
exit "$status"
