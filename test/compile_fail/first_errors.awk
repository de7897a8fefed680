# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# first_errors.awk MISTAKES SAID: SAID is what a compiler says of many mistakes in one source, where each has a `#line`
# with a file name of its own, "CASE.cpp@MISTAKE", and a namespace, CASE_MISTAKE; MISTAKES has a line "…/CASE.cpp:MISTAKE"
# for each. Prints the first error that is about each: "CASE.cpp@MISTAKE<tab>line".
# An error is about the mistake whose file it or its instantiations name: GCC says these before the error, Clang after
# it, as notes. Where none is named, a type of the mistake's namespace is. An error about no mistake is printed with
# "nobody" for its name.
function named(line) { return match(line, /[a-z_0-9]+\.cpp@[0-9]+/) ? substr(line, RSTART, RLENGTH) : "" }
function finish() {
  if (error == "") return
  if (about == "" && match(error, /[a-z_0-9]+_[0-9]+::/)) about = of_namespace[substr(error, RSTART, RLENGTH - 2)]
  if (about == "") about = "nobody"
  if (!(about in seen) || about == "nobody") print about "\t" error
  seen[about] = 1
  error = about = ""
}
FNR == NR {
  name = $0
  sub(/.*\//, "", name)
  sub(/:/, "@", name)
  space = name
  sub(/\.cpp@/, "_", space)
  of_namespace[space] = name
  next
}
/error: / {
  finish()
  error = $0
  about = named($0)
  if (about == "") about = before
  fresh = 0
  next
}
/note: / {
  if (about == "") about = named($0)
  fresh = 0
  next
}
# What GCC says before an error, and before all that follow it from the same instantiation. The last of its lines is the
# place that asked for the instantiation.
{
  if (!fresh) before = ""
  fresh = 1
  if (named($0) != "") before = named($0)
}
END { finish() }
