# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Reads all headers (from include/); prints each include that runs up a floor or to a sibling.
function room(path) {
  sub(/^dovetail\//, "", path)
  sub(/(\/.*|\.hpp)$/, "", path)
  return path
}
BEGIN {
  floor["core"] = 0
  floor["optim"] = floor["compress"] = floor["comm"] = floor["io"] = 1
  floor["sync"] = floor["nn"] = floor["data"] = 2
  floor["train"] = 3
  floor["scaling"] = 4
}
FNR == 1 {
  from = room(FILENAME)
  outside = from == "dovetail" || from == "concepts"
  if (!outside && !(from in floor)) print FILENAME ": the house has no room '" from "'"
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
  included = $0
  sub(/^[^<"]*[<"]/, "", included)
  sub(/[>"].*$/, "", included)
  if ($0 ~ /include[ \t]*"/) print FILENAME ":" FNR ": includes are written <dovetail/…>"
  if (outside || included !~ /^dovetail\//) next
  to = room(included)
  if (to == "dovetail") print FILENAME ":" FNR ": includes the whole library"
  else if (to in floor && to != from && floor[to] >= floor[from])
    print FILENAME ":" FNR ": " from " (floor " floor[from] ") includes " included " (floor " floor[to] ")"
}
