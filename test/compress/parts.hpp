// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "known.hpp"

namespace test {
using codec_list = std::vector<std::unique_ptr<known_codec>>;
/// Of the entries of one part, each in its place. In a source file for each part (part.cpp).
template <std::size_t Part>
void add_codecs(codec_list& to);
template <>
void add_codecs<0>(codec_list& to);
template <>
void add_codecs<1>(codec_list& to);
template <>
void add_codecs<2>(codec_list& to);
template <>
void add_codecs<3>(codec_list& to);
}  // namespace test
