// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "known.hpp"

#include "parts.hpp"

namespace test {

std::vector<std::unique_ptr<known_codec>> const& known_codecs() {
  static auto const all = [] {
    static_assert(codec_parts == 4);
    codec_list list;
    add_codecs<0>(list);
    add_codecs<1>(list);
    add_codecs<2>(list);
    add_codecs<3>(list);
    return list;
  }();
  return all;
}

}  // namespace test
