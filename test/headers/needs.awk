# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Reads all headers of the library (paths below include/, such as dovetail/core/shape.hpp; run from include/) and
# prints for each: the header, a tab, and the components that it needs, itself or through what it includes. What is
# included inside an #if is used where it exists, and not needed.
FNR == 1 {
  headers[++count] = FILENAME
  conditions = 0
  if (FILENAME ~ /\.cuh$/) needs[FILENAME, "nvcc"] = 1
}
/^[ \t]*#[ \t]*if/ { ++conditions }
/^[ \t]*#[ \t]*endif/ { --conditions }
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
  if (conditions) next
  included = $0
  sub(/^[^<"]*[<"]/, "", included)
  sub(/[>"].*$/, "", included)
  if (included ~ /^dovetail\//) edges[FILENAME] = edges[FILENAME] " " included
  else if (included ~ /^(mpi\.h|boost\/)/) needs[FILENAME, "mpi"] = 1
  else if (included ~ /^(oneapi\/|dnnl)/) needs[FILENAME, "onednn"] = 1
  else if (included ~ /^nlohmann\//) needs[FILENAME, "io"] = 1
  else if (included ~ /^zlib/) needs[FILENAME, "gzip"] = 1
  else if (included ~ /^zstd/) needs[FILENAME, "zstd"] = 1
  else if (included ~ /^nccl/) needs[FILENAME, "nccl"] = 1
  else if (included ~ /^(cuda|cub\/|thrust\/|cublas|cudnn|cooperative_groups)/) needs[FILENAME, "cuda"] = 1
}
END {
  components = split("mpi onednn io gzip zstd cuda nccl nvcc", component, " ")
  do {  # until nothing is inherited any more
    changed = 0
    for (i = 1; i <= count; ++i) {
      n = split(edges[headers[i]], below, " ")
      for (j = 1; j <= n; ++j)
        for (k = 1; k <= components; ++k)
          if ((below[j], component[k]) in needs && !((headers[i], component[k]) in needs)) {
            needs[headers[i], component[k]] = 1
            changed = 1
          }
    }
  } while (changed)
  for (i = 1; i <= count; ++i) {
    line = headers[i] "\t"
    for (k = 1; k <= components; ++k)
      if ((headers[i], component[k]) in needs) line = line component[k] " "
    print line
  }
}
