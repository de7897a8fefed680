// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/compress/traits.hpp>

namespace dovetail::compress {

/// A codec that wants error feedback and is to be used without: what it does not send is lost in every step.
///
/// For comparisons, for sums whose errors average out, and for gradients that are noisier than the codec. Synchronizers
/// refuse such a codec unless it says so. Payloads and errors are the codec's.
///
///     sync::all_reduce{compress::without_feedback{compress::sign{}}}
template <class Codec>
struct without_feedback : Codec {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  static constexpr bool wants_error_feedback = false;
};

template <class Codec>
without_feedback(Codec) -> without_feedback<Codec>;

}  // namespace dovetail::compress
