// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/cuda/table.cuh>
#include <dovetail/optim/gradient_source.hpp>

// Gradient sources (optim/gradient_source.hpp) as kernels read them: numbers in a row per tensor, in device memory.

namespace dovetail::cuda {
/// Floats in a device's memory: what is stepped there.
using parameter_list = basic_parameter_list<float, cuda_memory>;
}  // namespace dovetail::cuda

namespace dovetail::optim::cuda {
using dovetail::cuda::parameter_list;
}

namespace dovetail::optim::cuda::detail {

/// Numbers in fp32.
struct plain_numbers {
  using type = float;
  DOVETAIL_INLINE float operator()(float x) const { return x; }
};
/// Gradients in any format, times a factor.
template <class T>
struct scaled_numbers {
  using type = T;
  float factor = 1;
  DOVETAIL_INLINE float operator()(T x) const { return factor * static_cast<float>(x); }
};

inline scaled_numbers<float> reader_for(gradient::dense::cursor const&) { return {}; }
inline scaled_numbers<float> reader_for(gradient::scaled::cursor const& c) { return {c.factor}; }
inline scaled_numbers<fp16> reader_for(gradient::half<fp16>::cursor const& c) { return {c.factor}; }
inline scaled_numbers<bf16> reader_for(gradient::half<bf16>::cursor const& c) { return {c.factor}; }

template <class Source>
using cursor_of = decltype(std::declval<Source const&>().at(std::declval<parameter_list const&>(), std::size_t{}));
template <class Source>
consteval bool is_readable() {
  return requires(cursor_of<Source> const& c) { reader_for(c); };
}

/// How kernels read a source, times `factor`; both factors are the same for all tensors.
template <class Source>
auto reader_of(Source const& source, parameter_list const& parameters, float factor = 1) {
  static_assert(is_readable<Source>(),
                "optim::cuda: kernels read gradient::dense, gradient::scaled and gradient::half: give one of those");
  using reader = decltype(reader_for(std::declval<cursor_of<Source> const&>()));
  if (parameters.empty()) return reader{};
  reader r = reader_for(source.at(parameters, 0));
  r.factor *= factor;
  return r;
}
template <class Source>
using reader_type = decltype(reader_of(std::declval<Source const&>(), std::declval<parameter_list const&>()));

/// Where tensor i's gradient is.
template <class Source>
std::byte const* gradient_address(Source const& source, parameter_list const& parameters, std::size_t i) {
  auto const c = source.at(parameters, i);
  if constexpr (requires { c.from.data; })
    return reinterpret_cast<std::byte const*>(c.from.data);
  else
    return reinterpret_cast<std::byte const*>(c.data);
}
template <class Source>
std::vector<place> places_of(parameter_list const& parameters, Source const& source,
                             std::vector<std::uint32_t> const& group_of) {
  std::vector<place> all;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    all.push_back({parameters[i].weight.data(), gradient_address(source, parameters, i),
                   static_cast<std::size_t>(parameters[i].shape.size()), group_of[i]});
  return all;
}

}  // namespace dovetail::optim::cuda::detail
