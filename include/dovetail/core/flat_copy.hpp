// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>

// Tensors that may lie anywhere, as one vector over the flat index space of their list.

namespace dovetail {

/// Copies weights or gradients (`&parameter::weight`, `&parameter::gradient`) to their places in `flat`, which is as
/// long as the list's flat index space: of the tensors that begin in `part`. Those that are elsewhere are left out.
template <class T>
void copy_to_flat(basic_parameter_list<T> const& p, std::span<T> basic_parameter<T>::*member,
                  std::type_identity_t<std::span<T>> flat, range part = {0, std::numeric_limits<std::size_t>::max()}) {
  for (std::size_t i = 0; i < p.size(); ++i)
    if (p.offset(i) >= part.begin && p.offset(i) < part.end)
      std::copy((p[i].*member).begin(), (p[i].*member).end(), flat.data() + p.offset(i));
}
/// The other way, all tensors.
template <class T>
void copy_from_flat(std::type_identity_t<std::span<T const>> flat, basic_parameter_list<T> const& p,
                    std::span<T> basic_parameter<T>::*member) {
  for (std::size_t i = 0; i < p.size(); ++i)
    std::copy_n(flat.data() + p.offset(i), (p[i].*member).size(), (p[i].*member).begin());
}

}  // namespace dovetail
