# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# awk -f compare.awk HERE THERE: compares two outputs of bits.cpp item by item. Names what differs, with the largest
# relative difference among the values that are printed, and lists apart what has a function of the C library in it: that
# may differ by a few last digits, of which 20 steps make no more than 1e-4.
function size(x) { return x < 0 ? -x : x }
function furthest(line,    a, b, n, i, most, d, large) {
  n = split(here[line], a, " ")
  far = 1
  if (split($0, b, " ") != n) return "another number of values"
  most = 0
  for (i = 4; i <= n; ++i) {
    if (a[i] == b[i]) continue
    large = size(a[i]) > size(b[i]) ? size(a[i]) : size(b[i])
    d = large > 0 ? size(a[i] - b[i]) / large : 0
    if (d > most) most = d
  }
  far = most > 1e-4
  return most > 0 ? sprintf("%.1e", most) : "none among the values that are printed"
}
NR == FNR { here[$2] = $0; sum[$2] = $3; next }
!($2 in here) { print "DIFFERS  " $2 ": only one of the programs has it"; ++differ; next }
{ seen[$2] }
$1 == "libm" {
  ++near
  if ($3 == sum[$2]) { ++equal; next }
  how = furthest($2)
  list = list "\n         " $2 ": " how
  if (far) { print "DIFFERS  " $2 ", by more than a C library's last digits: " how; ++differ_libm }
  next
}
$3 == sum[$2] { ++same; next }
{ ++differ; print "DIFFERS  " $2 ", largest relative difference: " furthest($2) }
END {
  for (name in here) if (!(name in seen)) { print "DIFFERS  " name ": only one of the programs has it"; ++differ }
  printf "bits     %d items: %d the same, %d differ\n", same + differ, same, differ
  printf "libm     %d items with a function of the C library in them: %d the same", near, equal
  print list == "" ? "" : ", largest relative differences of the others:" list
  exit differ + differ_libm > 0 || same == 0
}
