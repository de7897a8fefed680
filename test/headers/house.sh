#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# house.sh REPOSITORY: the rules of the house that a compiler does not check. Prints every breach; fails if there is one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1/include"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
find dovetail -name '*.hpp' -o -name '*.cuh' | LC_ALL=C sort > "$work/headers"
xargs awk -f "$here/needs.awk" < "$work/headers" > "$work/needs"

{
  # Arrows run down only, and siblings do not include each other. concepts.hpp, the map, is outside the house.
  xargs awk -v map=../docs/design.md -f "$here/floors.awk" < "$work/headers"

  # shellcheck disable=SC2016
  xargs awk '
    FNR == 1 && $0 !~ /^\/\/ SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception$/ { print FILENAME ": line 1 is not the license" }
    FNR == 2 && $0 !~ /^#pragma once$/ && FILENAME !~ /\.inc\.hpp$/ { print FILENAME ": line 2 is not #pragma once" }
    { code = $0; sub(/\/\/.*/, "", code); gsub(/"([^"\\]|\\.)*"/, "\"\"", code) }
    code ~ /(^|[^_[:alnum:].>])((std::)?(exit|_exit|quick_exit|terminate)[ ]*\(|(std::)?abort[ ]*\([ ]*\))/ { print FILENAME ":" FNR ": a library does not end the process" }
    code ~ /std::(cout|cerr|clog)|(^|[^_[:alnum:]])(std::)?(printf|puts|fprintf|perror)[ ]*\(/ { print FILENAME ":" FNR ": a library does not print" }
    code ~ /^using namespace/ && code !~ /^using namespace simd::(baseline|avx2|avx512);/ { print FILENAME ":" FNR ": using namespace in a header" }
    code ~ /(^|[^_[:alnum:]])(std::)?(rand|srand)[ ]*\(/ { print FILENAME ":" FNR ": a global random generator" }
  ' < "$work/headers"
  # -ffast-math decides these when it compiles: what is NaN or infinite is said and asked by bits, in one header.
  grep -v '^dovetail/core/finite.hpp$' < "$work/headers" | xargs awk '
    { code = $0; sub(/\/\/.*/, "", code); gsub(/"([^"\\]|\\.)*"/, "\"\"", code) }
    code ~ /(^|[^_[:alnum:]])(__builtin_|std::)?(is(finite|nan|inf|normal|unordered)|fpclassify|nanf?|inff?|huge_valf?)[ ]*\(|(^|[^_[:alnum:]])(infinity|quiet_NaN|signaling_NaN)[ ]*\(|(^|[^_[:alnum:]])(NAN|INFINITY|HUGE_VALF?)([^_[:alnum:]]|$)/ {
      print FILENAME ":" FNR ": gone with -ffast-math: core/finite.hpp has is_finite, is_nan, positive_infinity, not_a_number"
    }
    { left = code
      while (match(left, /[_[:alpha:]][_[:alnum:]]* [!=]= [_[:alpha:]][_[:alnum:]]*/)) {
        before = RSTART > 1 ? substr(left, RSTART - 1, 1) : ""
        split(substr(left, RSTART, RLENGTH), side, / [!=]= /)
        left = substr(left, RSTART + RLENGTH)
        if (side[1] == side[2] && before !~ /[.>:[:alnum:]]/ && left !~ /^[.:([]|^->/)
          print FILENAME ":" FNR ": " side[1] " compared with itself: gone with -ffast-math: core/finite.hpp has is_nan"
      }
    }
  '
  # What a header uses of the standard library it includes itself. What is included more than once is a part of another.
  xargs grep -l '^#pragma once' < "$work/headers" | xargs awk -f "$here/std_includes.awk"

  # No text is ever code: programs are started with words, not with a line for a shell.
  (cd .. && find include examples bench -name '*.[ch]pp' -o -name '*.cuh' -o -name '*.cu' | xargs awk '
    { code = $0; sub(/\/\/.*/, "", code); gsub(/"([^"\\]|\\.)*"/, "\"\"", code) }
    code ~ /(^|[^_[:alnum:].>])(std::)?(system|popen|wordexp)[ ]*\(/ { print FILENAME ":" FNR ": a shell: posix_spawn or exec take words" }
  ')

  # <folder>.hpp is all of a folder that needs no dependency, and dovetail.hpp all of these.
  xargs awk -v needs="$work/needs" -f "$here/umbrellas.awk" < "$work/headers"
} > "$work/breaches"
cat "$work/breaches"
echo "$(wc -l < "$work/headers") headers, $(wc -l < "$work/breaches") breaches of the rules"
[ -s "$work/headers" ] && [ ! -s "$work/breaches" ]
