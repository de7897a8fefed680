# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Reads Markdown files named relative to the repository and writes each block of C++ to a file of its own in `out`,
# named by page and line and pointing back to them. Prints a complaint for each block that is no program and for each
# command of ./run in a block of shell that `commands` does not list.
function close_block() {
  if (language == "cpp") {
    close(file)
    if (!has_main) print start ": a block of cpp without main()"
  }
  language = ""
}
FNR == 1 { close_block() }
/^[ \t]*```/ {
  if (language != "") { close_block(); next }
  language = $0
  sub(/^[ \t]*```[ \t]*/, "", language)
  sub(/[ \t{].*$/, "", language)
  if (language == "") language = "text"
  start = FILENAME ":" FNR
  if (language == "c++" || language == "C++") print start ": write ```cpp, or the block is not compiled"
  if (language == "cpp") {
    name = FILENAME
    sub(/\.md$/, "", name)
    gsub(/[^A-Za-z0-9]/, "_", name)
    file = out "/" name "_" FNR ".cpp"
    has_main = 0
    lines = 0
    printf "" > file
  }
  next
}
language == "cpp" {
  # The first lines may be directives for the checker, so the pointer to the page comes after them.
  if (!lines && $0 !~ /^\/\/ (needs:|run)/) { print "#line " FNR " \"" FILENAME "\"" > file; lines = 1 }
  if ($0 ~ /(^|[^A-Za-z0-9_])main[ ]*\(/) has_main = 1
  print > file
}
language == "sh" || language == "bash" || language == "console" {
  rest = $0
  while (match(rest, /\.\/run[ ]+[a-z]+/)) {
    command = substr(rest, RSTART, RLENGTH)
    sub(/^\.\/run[ ]+/, "", command)
    if (index(commands, " " command " ") == 0) print FILENAME ":" FNR ": there is no command './run " command "'"
    rest = substr(rest, RSTART + RLENGTH)
  }
}
END { close_block() }
