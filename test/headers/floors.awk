# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# floors.awk -v map=docs/design.md: reads all headers (from include/) and prints each include that runs up a line of the
# maps of folders in that page, or to a folder of the same line. The maps are the indented lines between
# <!-- map --> and <!-- end -->; a folder stands as `name/`. A header belongs to the longest folder of the maps that it
# lies in. X.hpp beside a folder X/ of the maps includes all of it, and is outside, as is concepts.hpp.
function folder(m, path, best, f, part) {
  sub(/^dovetail\//, "", path)
  best = ""
  for (f in floor) {
    split(f, part, SUBSEP)
    if (part[1] == m && index(path, part[2]) == 1 && length(part[2]) > length(best)) best = part[2]
  }
  return best
}
BEGIN {
  while ((getline line < map) > 0) {
    if (line ~ /^<!-- map/) {
      inside = 1
      ++maps
    }
    if (line ~ /^<!-- end/) inside = 0
    if (!inside || line !~ /^    [a-z]/) continue
    ++height
    sub(/^    /, "", line)
    while (match(line, /^[a-z_\/]+\/ */)) {
      name = substr(line, 1, RLENGTH)
      sub(/ *$/, "", name)
      floor[maps, name] = -height
      whole[name] = 1
      line = substr(line, RLENGTH + 1)
    }
  }
  if (height < 5) print map ": has no map of the folders"
}
FNR == 1 {
  all = FILENAME
  sub(/^dovetail\//, "", all)
  sub(/\.hpp$/, "/", all)
  outside = all in whole || all == "dovetail/" || all == "concepts/"
  known = 0
  for (m = 1; m <= maps; ++m) {
    from[m] = folder(m, FILENAME)
    if (from[m] != "") seen[m, from[m]] = known = 1
  }
  if (!outside && !known) print FILENAME ": its folder is on no map in " map
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
  included = $0
  sub(/^[^<"]*[<"]/, "", included)
  sub(/[>"].*$/, "", included)
  if ($0 ~ /include[ \t]*"/) print FILENAME ":" FNR ": includes are written <dovetail/…>"
  if (outside || included !~ /^dovetail\//) next
  if (included == "dovetail/dovetail.hpp") print FILENAME ":" FNR ": includes the whole library"
  for (m = 1; m <= maps; ++m) {
    to = folder(m, included)
    if (from[m] != "" && to != "" && to != from[m] && floor[m, to] >= floor[m, from[m]])
      print FILENAME ":" FNR ": " from[m] " includes " included ", which is not below it on the map"
  }
}
END {
  for (f in floor) {
    split(f, part, SUBSEP)
    if (!(f in seen)) print map ": " part[2] " is on a map, and no header lies in it"
  }
}
