// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "codec_cases.hpp"

#include <span>
#include <type_traits>
#include <utility>

#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/sync/bucket_exchange.hpp>

namespace test {
namespace {

template <class F>
void with_case(std::size_t number, F const& f) {
  each_codec([&](std::size_t i, char const*, auto const& codec) {
    if (i == number) f(codec);
  });
}

template <class Codec>
void add(Codec const& codec, std::vector<std::byte> const& payload, std::vector<float>& sum) {
  compress::bucket const b{sum, {}};
  auto const where = codec_context(sum.size());
  auto state = compress::init(codec, b, where);
  compress::decode_add(codec, std::span<std::byte const>(payload), std::span<float>(sum), codec_weight, state, where);
}

}  // namespace

coded code_on_host(std::size_t number, std::vector<float> const& x, std::vector<float> sum) {
  coded c{{}, std::move(sum)};
  with_case(number, [&](auto const& codec) {
    compress::bucket const b{x, {}};
    auto const where = codec_context(x.size());
    auto state = compress::init(codec, b, where);
    c.payload.resize(codec.wire_size(x.size()));
    compress::encode(codec, b, state, c.payload, where);
    add(codec, c.payload, c.sum);
  });
  return c;
}

bool decode_on_host(std::size_t number, std::vector<std::byte> const& payload, std::vector<float>& sum) {
  try {
    with_case(number, [&](auto const& codec) { add(codec, payload, sum); });
  } catch (input_error const&) {
    return false;
  }
  return true;
}

std::vector<coded> feedback_on_host(std::size_t number, std::size_t n) {
  std::vector<coded> all;
  with_case(number, [&](auto const& codec) {
    if constexpr (compress::codec_traits<std::remove_cvref_t<decltype(codec)>>::contraction) {
      compress::error_feedback const feedback{codec};
      auto x = feedback_gradient(0, n);
      auto state = feedback.init({x, {}});
      for (std::size_t t = 0; t < feedback_steps.size(); ++t) {
        x = feedback_gradient(t, n);
        std::vector<std::byte> payload(feedback.wire_size(n));
        compress::encode(feedback, compress::bucket{x, {}}, state, payload, feedback_context(t));
        if (feedback_steps[t].skipped)
          feedback.rollback(state);
        else
          feedback.commit(state);
        all.push_back({payload, {state.residual.begin(), state.residual.end()}});
      }
    }
  });
  return all;
}

std::vector<float> exchange_on_host(std::size_t number, comm::threads::communicator& c, std::vector<float> values) {
  std::vector<float> weights(values.size());
  parameter_list list;
  if (!values.empty()) list.add("w", weights, values);
  with_case(number, [&](auto const& codec) {
    using Codec = std::remove_cvref_t<decltype(codec)>;
    auto const plan = sync::exchange::all_reduce_is_legal<Codec> ? sync::exchange::plan::all_reduce
                                                                 : sync::exchange::plan::all_gather;
    sync::bucket_exchange<Codec> exchange(codec, plan, list, {0, values.size()}, values, c.size(), c.rank());
    exchange.run(c, values, codec_context(values.size()));
  });
  return values;
}

}  // namespace test
