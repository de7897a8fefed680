# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Reads all headers (from include/) and the output of needs.awk; checks <folder>.hpp and dovetail.hpp: they include what
# needs no dependency, or say in a comment (io/plot.hpp) that it is for those who name it.
function visit(header, n, i, below) {
  if (header in seen) return
  seen[header] = 1
  n = split(edges[header], below, " ")
  for (i = 1; i <= n; ++i) visit(below[i])
}
BEGIN {
  while ((getline line < needs) > 0) {
    split(line, part, "\t")
    dependency[part[1]] = part[2]
  }
}
FNR == 1 { headers[++count] = FILENAME; exists[FILENAME] = 1 }
/^[ \t]*#[ \t]*include[ \t]*<dovetail\// {
  included = $0
  sub(/^[^<]*</, "", included)
  sub(/>.*$/, "", included)
  edges[FILENAME] = edges[FILENAME] " " included
  if (!(included in exists)) wanted[included] = FILENAME ":" FNR
}
/^[ \t]*\/\// { comments[FILENAME] = comments[FILENAME] " " $0 }
END {
  for (included in wanted)
    if (!(included in exists)) print wanted[included] ": includes <" included ">, which does not exist"
  for (i = 1; i <= count; ++i) {
    if (split(headers[i], part, "/") != 2) continue
    if (dependency[headers[i]] != "") print headers[i] ": needs " dependency[headers[i]] "but belongs to those that need nothing"
    folder = headers[i]
    sub(/\.hpp$/, "/", folder)
    all = folder == "dovetail/dovetail/"
    if (folder == "dovetail/concepts/") continue
    split("", seen)
    visit(headers[i])
    for (j = 1; j <= count; ++j) {
      # A folder in a folder (cuda/, onednn/) is for those who name it.
      depth = split(headers[j], part, "/")
      belongs = all ? depth == 2 : depth == 3 && index(headers[j], folder) == 1
      if (belongs && dependency[headers[j]] == "" && headers[j] !~ /\.inc\.hpp$/ && !(headers[j] in seen) &&
          index(comments[headers[i]], substr(headers[j], length("dovetail/") + 1)) == 0)
        print headers[i] ": does not include <" headers[j] ">"
    }
  }
}
