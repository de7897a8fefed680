#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# alone.sh REPOSITORY COMPILER FOUND HOW [FLAGS…]: every header compiles without a warning, HOW alone, or together with
# its folder, which takes an eighth of the time and finds what is not about missing includes. FOUND lists the components
# whose dependency this machine has; headers that need another one are listed as skipped. A *.inc.hpp is the inside of
# another header, compiled once per instruction set, and is checked there.
# Clang has read the standard library beforehand, which is most of the time of a header alone: that a header includes
# what it uses of it is a rule of the house (std_includes.awk), also for a *.inc.hpp with #pragma once. And of the headers
# that include `common`, as most rules do, it has read that one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$1 compiler=$2 found=" $3 " how=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$repository/include"

find dovetail -name '*.hpp' | LC_ALL=C sort | xargs awk -f "$here/needs.awk" > "$work/needs"
: > "$work/headers"
while IFS="$(printf '\t')" read -r header needs; do
  case $header in *.inc.hpp) continue ;; esac
  missing=
  for component in $needs; do
    case $found in *" $component "*) ;; *) missing="$missing $component" ;; esac
  done
  if [ -n "$missing" ]; then
    echo "skipped  $header: needs$missing, not found or not for this compiler"
  else
    echo "$header" >> "$work/headers"
  fi
done < "$work/needs"

cat > "$work/one.sh" <<'END'
unit=$1 compiler=$2 work=$3 common=$4
shift 4
log=$work/$(echo "$unit" | tr / _).log
# Twice: a header that is included again says nothing more.
{ cat "$work/units/$unit"; cat "$work/units/$unit"; } | sed 's/.*/#include <&>/' > "$log.cpp"
# What other projects compile with. Headers without SYSTEM must be clean for them as well.
strict="-Wshadow -Wdouble-promotion -Wold-style-cast"
case $compiler in *clang*) ;; *) strict="$strict -Wuseless-cast" ;; esac
case $unit in
  *comm_mpi*) ;;  # Boost.MPI asks for typeid
  *)
    strict="$strict -fno-rtti"
    if [ -e "$work/standard.pch" ]; then
      read_before=standard
      grep -qxF "#include <$common>" "$(cat "$work/units/$unit")" && read_before=common
      strict="$strict -include-pch $work/$read_before.pch"
    fi
    ;;
esac
"$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Werror $strict -I. "$@" "$log.cpp" > "$log" 2>&1 ||
  { echo "FAILED   $unit: $(tr '\n' ' ' < "$work/units/$unit")"; sed 's/^/    /' "$log" | head -n 20; } > "$log.report"
END
common=dovetail/optim/named_optimizer.hpp
case $how:$compiler in
  alone:*clang*)
    find dovetail -name '*.hpp' -print0 | xargs -0 grep -hE '^#include <[a-z_]+>' | LC_ALL=C sort -u > "$work/standard.hpp"
    { cat "$work/standard.hpp"; echo "#include <$common>"; } > "$work/common.hpp"
    for read_before in standard common; do
      "$compiler" -std=c++20 -fno-rtti -I. "$@" -x c++-header "$work/$read_before.hpp" -o "$work/$read_before.pch"
    done
    ;;
esac
mkdir "$work/units"
while read -r header; do
  unit=$(echo "$header" | tr / _)
  if [ "$how" = together ]; then
    case $header in dovetail/comm/mpi*) unit=comm_mpi ;; dovetail/*/*) unit=${header#dovetail/} unit=${unit%%/*} ;; *) unit=all ;; esac
  fi
  echo "$header" >> "$work/units/$unit"
done < "$work/headers"
find "$work/units" -type f | sed 's|.*/||' | LC_ALL=C sort |
  xargs -P "$(nproc 2>/dev/null || echo 2)" -I{} sh "$work/one.sh" {} "$compiler" "$work" "$common" "$@"
for report in "$work"/*.report; do
  [ ! -e "$report" ] || cat "$report"
done
count=$(wc -l < "$work/headers")
failed=$(find "$work" -name '*.report' | wc -l)
echo "$count headers with $compiler, $how, $failed failed"
[ "$failed" = 0 ] && [ "$count" -gt 0 ]
