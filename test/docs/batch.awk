# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Puts programs that include the same header into one source, each in a namespace of its own, since reading that header
# takes longer than most of them: batch NAME runs the program NAME. Their own #include lines come first.
FNR == 1 {
  finish()
  name = FILENAME
  sub(/.*\//, "", name)
  sub(/\.cpp$/, "", name)
  names[++count] = name
  body = body "namespace " name " {\n"
}
/^#include/ { if (!($0 in seen)) { seen[$0] = 1; print } next }
{ sub(/^int main\(\)/, "int program()"); body = body $0 "\n" }
function finish() { if (count) body = body "}  // namespace\n#line 1 \"batch\"\n" }
END {
  finish()
  print "#include <cstring>\n" body
  print "int main(int, char** argv) {"
  for (i = 1; i <= count; ++i) print "  if (std::strcmp(argv[1], \"" names[i] "\") == 0) return " names[i] "::program();"
  print "  return 125;\n}"
}
