// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// How the exchanges of a codec's type become a test::known_exchange and a test::known_session.
#include <utility>

#include <dovetail/sync/all_reduce.hpp>
#include <dovetail/sync/bucket_exchange.hpp>

#include "known.hpp"

namespace test {

template <class Codec>
class exchange_of final : public known_exchange {
 public:
  template <class... Arguments>
  explicit exchange_of(Arguments&&... arguments) : exchange_(std::forward<Arguments>(arguments)...) {}
  comm::traffic predicted(std::int64_t step) const override { return exchange_.predicted(step); }
  void run(thread_rank& c, std::span<float> values, compress::context const& when) override {
    exchange_.run(c, values, when);
  }
  void commit() override { exchange_.commit(); }
  void rollback() override { exchange_.rollback(); }
  std::vector<named_tensor> tensors(std::string const& prefix) override { return exchange_.tensors(prefix); }

 private:
  sync::bucket_exchange<Codec> exchange_;
};

/// w -= g, which compiles quickly.
struct plain_descent {
  struct state_type {
    std::int64_t steps = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) { return {make_named_count(prefix + "steps", steps)}; }
  };
  static state_type init(parameter_list const&) { return {}; }
  static optim::step_result step(parameter_list const& p, state_type& s) {
    for (auto& t : p)
      for (std::size_t i = 0; i < t.size(); ++i) t.weight[i] -= t.gradient[i];
    return {.step = ++s.steps};
  }
};
static_assert(optimizer<plain_descent>);

template <class Codec>
sync::all_reduce<Codec> all_reduce_of(Codec const& c, std::size_t bucket_bytes) {
  return {.codec = c, .plan = {}, .bucket_bytes = bucket_bytes, .seed = 11};
}

template <class Codec>
class session_of final : public known_session {
 public:
  session_of(Codec const& c, parameter_list& parameters, std::size_t bucket_bytes, thread_rank& comm)
      : session_(all_reduce_of(c, bucket_bytes).join(parameters, plain_descent{}, comm)) {}
  void begin() override { session_.begin(); }
  bool step() override { return !session_.step().skipped; }
  std::vector<named_tensor> own() override { return session_.own(""); }

 private:
  sync::all_reduce_session<plain_descent, thread_rank, Codec, sync::exchange::automatic> session_;
};

}  // namespace test
