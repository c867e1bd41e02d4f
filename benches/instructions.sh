#!/usr/bin/env bash
# Instructions for each reference that the translator makes, counted by valgrind's callgrind: the measure
# of speed that does not depend on what else the host does.
#
#   benches/instructions.sh           prints them
#   benches/instructions.sh --check   fails if one is more than 5 % above benches/instructions.txt
#   benches/instructions.sh --save    writes benches/instructions.txt
set -euo pipefail
cd "$(dirname "$0")/.."

allowed_percent=5
known=benches/instructions.txt
benches=(
  "recorded/skylake-sp-2017 2507527"
  "recorded, oracle on/skylake-sp-2017 2507527"
  "first level/skylake-sp-2017 1048576"
  "second level/skylake-sp-2017 1048576"
  "4 GiB uniform/skylake-sp-2017 4194304"
  "recorded/zen4-2022 2507527"
  "first level/zen4-2022 1048576"
  "second level/zen4-2022 1048576"
)

command -v valgrind >/dev/null || { echo "valgrind is not installed: apt-get install valgrind" >&2; exit 2; }
binary=$(cargo bench -q -p mmusim-benches --bench translate --no-run --message-format=json |
  sed -n 's/.*"executable":"\([^"]*translate-[^"]*\)".*/\1/p' | tail -n 1)
out=$(mktemp)
trap 'rm -f "$out"' EXIT

count() {
  valgrind --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no \
    --toggle-collect='*measured_pass*' "$binary" --bench --test "$1" >/dev/null 2>&1
  sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$out" | tail -n 1
}

status=0
table=$(
  for bench in "${benches[@]}"; do
    name=${bench% *}
    references=${bench##* }
    awk -v name="$name" -v all="$(count "$name")" -v refs="$references" \
      'BEGIN { printf "%-44s %8.1f\n", name, all / refs }'
  done
)
echo "$table"
case "${1:-}" in
  --save) echo "$table" >"$known" ;;
  --check)
    paste <(echo "$table") "$known" | awk -v allowed="$allowed_percent" '
      { now = $(NF / 2); before = $NF
        if (now > before * (1 + allowed / 100)) { print "more than before: " $0; bad = 1 } }
      END { exit bad }' || status=1
    ;;
esac
exit $status
