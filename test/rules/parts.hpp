// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <map>
#include <memory>

#include "known.hpp"

namespace known {
/// By their place in the list.
using parts = std::map<int, std::unique_ptr<rule const>>;
/// In a source file for each part (part.cpp).
template <int Part>
void add_part(parts& to);
template <>
void add_part<0>(parts& to);
template <>
void add_part<1>(parts& to);
template <>
void add_part<2>(parts& to);
template <>
void add_part<3>(parts& to);
}  // namespace known
