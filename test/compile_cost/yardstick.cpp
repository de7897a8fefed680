// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How fast this machine compiles: headers of the standard library alone.
#include <filesystem>
#include <iostream>
#include <regex>

int main() {}
