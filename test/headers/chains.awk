# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# chains.awk HEADERS…: puts headers in lines (paths below include/, such as dovetail/core/shape.hpp; run from include/)
# so that each includes, itself or through others, all that stand before it in its line. When a source includes such a
# line, each header finds no more than what it would have included itself before its first line of code: all of the line
# are seen alone by one compilation. What is included further down, or inside an #if, does not count.
# A line begins with the kind of its headers and a tab: mpi, those of comm::mpi; common, those that include the header
# `-v common=HEADER`; or standard.
FNR == 1 {
  headers[++count] = FILENAME
  code = 0
}
code { next }
/^ *# *include *<dovetail\// {
  included = $0
  sub(/^[^<]*</, "", included)
  sub(/>.*/, "", included)
  edges[FILENAME] = edges[FILENAME] " " included
  next
}
!/^(\/\/.*|#pragma once|#include .*)?$/ { code = 1 }
# Fills in below[header], all that it includes.
function descend(header,   i, n, m, j, one, two) {
  if (header in size) return
  size[header] = 0
  n = split(edges[header], one, " ")
  for (i = 1; i <= n; ++i) {
    descend(one[i])
    m = split(below[one[i]] " " one[i], two, " ")
    for (j = 1; j <= m; ++j)
      if (!((header, two[j]) in includes)) {
        includes[header, two[j]] = 1
        below[header] = below[header] " " two[j]
        ++size[header]
      }
  }
}
# Of the headers in `list` that are in no line yet, the one that includes most; only `of` a kind, if one is said.
function largest(list, of,   i, n, one, found) {
  n = split(list, one, " ")
  found = ""
  for (i = 1; i <= n; ++i)
    if ((one[i] in known) && !(one[i] in done) && (of == "" || kind[one[i]] == of) &&
        (found == "" || size[one[i]] > size[found]))
      found = one[i]
  return found
}
END {
  for (i = 1; i <= count; ++i) {
    known[headers[i]] = 1
    all = all " " headers[i]
    descend(headers[i])
    kind[headers[i]] = (headers[i], common) in includes ? "common" : "standard"
    if (headers[i] ~ /^dovetail\/comm\/mpi/) kind[headers[i]] = "mpi"
  }
  while ((header = largest(all, "")) != "") {
    line = header
    of = kind[header]
    done[header] = 1
    while ((header = largest(below[header], of)) != "") {
      line = header " " line
      done[header] = 1
    }
    print of "\t" line
  }
}
