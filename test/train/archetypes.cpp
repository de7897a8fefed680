// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// For each concept the least type that meets it, through everything that takes such a type: what it cannot do, the
// concept says, and not an error somewhere inside.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/io/run_state.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/training_loop.hpp>

#include <doctest/doctest.h>

using namespace dovetail;

namespace {

// ---- the least types

/// w = 3 x - 0.5 is to be found.
struct least_model {
  std::vector<float> w = std::vector<float>(2), g = std::vector<float>(2);
  parameter_list list;
  least_model() { list.add("line", w, g); }
  least_model(least_model const& o) : w(o.w), g(o.g) { list.add("line", w, g); }
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    loss_sums sums;
    if (!pass.accumulate) g.assign(2, 0.f);
    for (std::size_t i = 0; i < static_cast<std::size_t>(b.size); ++i) {
      float const x = b.values[2 * i], y = b.values[2 * i + 1], error = w[0] * x + w[1] - y;
      g[0] += pass.scale * 2 * error * x;
      g[1] += pass.scale * 2 * error;
      sums.loss += static_cast<double>(error) * static_cast<double>(error);
      ++sums.count;
    }
    return sums;
  }
};
static_assert(model<least_model>);

/// Steps with a rate that falls, so that its state matters.
struct least_optimizer {
  struct state_type {
    std::int64_t steps = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) { return {make_named_count(prefix + "step", steps)}; }
  };
  static state_type init(parameter_list const&) { return {}; }
  static optim::step_result step(parameter_list const& p, state_type& s) {
    for (auto const& x : p)
      for (std::size_t i = 0; i < x.size(); ++i) x.weight[i] -= 10 / static_cast<float>(s.steps + 100) * x.gradient[i];
    return {.step = ++s.steps};
  }
};
static_assert(optimizer<least_optimizer>);

/// Half of each gradient, in fp32.
struct least_codec {
  static constexpr bool summable = false, fixed_size = true, unbiased = false, wants_error_feedback = true;
  struct state_type {
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  static std::size_t wire_size(std::size_t n) { return n * sizeof(float); }
  static state_type init(compress::bucket const&) { return {}; }
  static std::size_t encode(compress::bucket const& b, state_type&, std::span<std::byte> out) {
    for (std::size_t i = 0; i < b.values.size(); ++i) {
      float const half = b.values[i] / 2;
      std::memcpy(out.data() + i * sizeof(float), &half, sizeof(float));
    }
    return wire_size(b.values.size());
  }
  static void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      float x;
      std::memcpy(&x, payload.data() + i * sizeof(float), sizeof(float));
      out[i] += weight * 2 * x;
    }
  }
};
static_assert(codec<least_codec>);

/// Only the operations of the concept, in the types that it names.
template <class C>
struct least_communicator {
  C* c;
  int rank() const { return c->rank(); }
  int size() const { return c->size(); }
  void all_reduce(std::span<float> x, comm::reduction how) { c->all_reduce(x, how); }
  void all_reduce(std::span<double> x, comm::reduction how) { c->all_reduce(x, how); }
  void all_reduce(std::span<fp16> x, comm::reduction how) { c->all_reduce(x, how); }
  void all_reduce(std::span<bf16> x, comm::reduction how) { c->all_reduce(x, how); }
  void reduce_scatter(std::span<float> x) { c->reduce_scatter(x); }
  void all_gather(std::span<float> x) { c->all_gather(x); }
  void all_gather(std::span<float const> in, std::span<float> out) { c->template all_gather<float>(in, out); }
  void all_gather(std::span<std::byte const> in, std::span<std::byte> out) {
    c->template all_gather<std::byte>(in, out);
  }
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    return c->all_gather_v(in, all);
  }
  void all_to_all(std::span<std::byte const> in, std::span<std::byte> out) {
    c->template all_to_all<std::byte>(in, out);
  }
  void broadcast(std::span<float> x, int root) { c->broadcast(x, root); }
  void broadcast(std::span<std::int64_t> x, int root) { c->broadcast(x, root); }
  void send(std::span<std::byte const> x, int to, int tag) { c->send(x, to, tag); }
  void recv(std::span<std::byte> x, int from, int tag) { c->recv(x, from, tag); }
  void barrier() { c->barrier(); }
  auto split(int color, int key) { return c->split(color, key); }
  comm::traffic traffic() const { return c->traffic(); }
  auto away() { return c->away(); }
};
static_assert(communicator<least_communicator<comm::self>>);

/// Every rank sums gradients and steps; nothing else.
struct least_synchronizer {
  template <class Optimizer, class Communicator>
  struct session {
    parameter_list* p;
    Optimizer optimizer;
    typename optim::optimizer_traits<Optimizer>::state_type state;
    Communicator* comm;
    optim::step_result last{};

    static void begin() {}
    static float gradient_scale(std::int64_t, std::int64_t global) { return 1 / static_cast<float>(global); }
    static void ready(std::size_t) {}
    optim::step_result step(optim::step_context const& options) {
      for (auto& x : *p) comm->all_reduce(x.gradient, comm::reduction::sum);
      for (auto const& x : *p)
        if (!all_finite(x.gradient)) return {.skipped = true, .step = last.step};
      return last = optim::step_optimizer(optimizer, *p, state, options);
    }
    std::vector<named_tensor> replicated(std::string const& prefix) { return state.tensors(prefix); }
    static std::vector<named_tensor> own(std::string const&) { return {}; }
  };
  template <class Optimizer, class Communicator>
  auto join(parameter_list& p, Optimizer const& o, Communicator& c) const {
    return session<Optimizer, Communicator>{&p, o, o.init(p), &c};
  }
};
static_assert(synchronizer<least_synchronizer, least_optimizer, comm::self>);
static_assert(synchronizer<least_synchronizer, optim::adamw, comm::self>);

data::in_memory points() {
  std::vector<float> xy;
  for (int i = 0; i < 40; ++i) {
    float const x = static_cast<float>(i) / 20.f - 1.f;
    xy.insert(xy.end(), {x, 3 * x - 0.5f});
  }
  return {xy, std::vector<std::int32_t>(40), 2};
}

/// The slope after a training, of rank 0.
template <class Optimizer, class Sync>
float slope(Optimizer const& rule, Sync const& sync, int ranks, std::int64_t steps = 200) {
  float found = 0;
  comm::threads(ranks).run([&](auto& c) {
    least_model mine;
    least_communicator<std::remove_reference_t<decltype(c)>> least{&c};
    train::fit_options const options{.batch = 4, .steps = steps};
    train::training_loop loop(mine, rule, sync, points(), least, options, 1);
    loop.run();
    if (c.rank() == 0) found = mine.w[0];
  });
  return found;
}

}  // namespace

TEST_CASE("the least optimizer trains under every synchronizer, on the least communicator") {
  for (int ranks : {1, 3}) {
    CAPTURE(ranks);
    CHECK(slope(least_optimizer{}, sync::all_reduce{}, ranks) == doctest::Approx(3).epsilon(0.05));
    CHECK(slope(least_optimizer{}, sync::local_sgd{}, ranks) == doctest::Approx(3).epsilon(0.05));
    CHECK(slope(least_optimizer{}, least_synchronizer{}, ranks) == doctest::Approx(3).epsilon(0.05));
  }
}

TEST_CASE("the least optimizer is a group of a partition, and the rest of one") {
  optim::partition const rule{least_optimizer{}, optim::group{optim::name_matches{"nothing*"}, optim::adamw{}}};
  CHECK(slope(rule, sync::all_reduce{}, 2) == doctest::Approx(3).epsilon(0.05));
  optim::partition const grouped{optim::adamw{}, optim::group{optim::name_matches{"*"}, least_optimizer{}}};
  CHECK(slope(grouped, sync::all_reduce{}, 2) == slope(rule, sync::all_reduce{}, 2));
}

TEST_CASE("what the least optimizer left is saved and goes on") {
  least_model a, b;
  auto state = least_optimizer::init(a.list);
  a.g = b.g = {1, -1};
  for (int i = 0; i < 3; ++i) least_optimizer::step(a.list, state);
  io::saved_state saved(state.tensors("optimizer."));
  auto other = least_optimizer::init(b.list);
  for (int i = 0; i < 2; ++i) least_optimizer::step(b.list, other);
  saved.restore(other.tensors("optimizer."));
  CHECK(other.steps == 3);
}

TEST_CASE("the least codec goes through every exchange that its algebra allows") {
  auto const all = sync::all_reduce{compress::error_feedback{least_codec{}}};
  auto const gathered = sync::all_reduce{least_codec{}, sync::exchange::all_gather{}};
  auto const in_two = sync::all_reduce{least_codec{}, sync::exchange::reduce_scatter_all_gather{}};
  for (int ranks : {1, 3}) {
    CAPTURE(ranks);
    CHECK(slope(optim::momentum{.lr = 0.1f}, all, ranks) == doctest::Approx(3).epsilon(0.05));
    CHECK(slope(optim::momentum{.lr = 0.1f}, gathered, ranks) == doctest::Approx(3).epsilon(0.05));
    CHECK(slope(optim::momentum{.lr = 0.1f}, in_two, ranks) == doctest::Approx(3).epsilon(0.05));
  }
}

TEST_CASE("the least communicator carries every synchronizer, summable codecs in half precision, and parts of state") {
  CHECK(slope(optim::adamw{.lr = 0.1f}, sync::all_reduce{compress::fp16{}}, 3) == doctest::Approx(3).epsilon(0.05));
  CHECK(slope(optim::adamw{.lr = 0.1f}, sync::all_reduce{compress::bf16{}}, 3) == doctest::Approx(3).epsilon(0.05));
  comm::threads(2).run([&](auto& c) {
    least_communicator<std::remove_reference_t<decltype(c)>> least{&c};
    least_model whole, part;
    optim::adamw const rule{.lr = 0.1f};
    auto const sharded = sync::shard(rule, least);
    auto a = rule.init(whole.list);
    auto b = sharded.init(part.list);
    for (int i = 0; i < 5; ++i) {
      whole.g = part.g = {1.f / static_cast<float>(i + 1), -2};
      rule.step(whole.list, a);
      sharded.step(part.list, b);
    }
    CHECK(whole.w == part.w);
  });
}

TEST_CASE("under the least session a gradient that is not finite changes nothing") {
  comm::self one;
  least_model m;
  auto session = least_synchronizer{}.join(m.list, optim::adamw{}, one);
  m.g = {std::numeric_limits<float>::max() * 2, 1};
  session.begin();
  session.ready(0);
  CHECK(session.step({}).skipped);
  CHECK(m.w == std::vector<float>{0, 0});
}
