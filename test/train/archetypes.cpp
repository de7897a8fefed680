// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// For each concept the least type that meets it, through everything that takes such a type: what it cannot do, the
// concept says, and not an error somewhere inside.
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <unistd.h>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/io/run_state.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/with_loss.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/sam.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>
#include <dovetail/train/training_loop.hpp>

#include <doctest/doctest.h>

#include "nn/least.hpp"

namespace train_archetypes {

using namespace dovetail;

namespace {

// ---- the least types

/// w = 3 x - 0.5 is to be found. Can be called as the concept says only, and not be evaluated.
struct least_model {
  std::vector<float> w = std::vector<float>(2), g = std::vector<float>(2);
  parameter_list list;
  least_model() { list.add("line", w, g); }
  least_model(least_model const& o) : w(o.w), g(o.g) { list.add("line", w, g); }
  least_model& operator=(least_model const& o) {
    w = o.w;
    return *this;
  }
  parameter_list& parameters() { return list; }
  template <std::same_as<data::batch const> Batch, std::same_as<gradient_pass const> Pass>
  loss_sums gradients(Batch& b, Pass& pass) {
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
static_assert(model<least_model> && !model_traits<least_model>::evaluates);

/// The same, which can be evaluated as well.
struct least_evaluable : least_model {
  template <std::same_as<data::batch const> Batch>
  loss_sums evaluate(Batch& b, int) {
    auto const kept = g;
    auto const sums = gradients(b, std::as_const(no_gradients));
    g = kept;
    return sums;
  }
  inline static gradient_pass no_gradients{};
};
static_assert(model_traits<least_evaluable>::evaluates);

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

/// Half of each gradient, in fp32. Can be called as the concept says only: with nothing that converts, and with members
/// that are no more than callable.
template <bool Summable, bool FixedSize>
struct least_codec {
  static constexpr bool summable = Summable, fixed_size = FixedSize, unbiased = false, wants_error_feedback = false;
  static constexpr bool contraction = true;
  struct state_type {
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  template <std::same_as<std::size_t> N>
  static std::size_t wire_size(N n) {
    return n * sizeof(float);
  }
  template <std::same_as<compress::bucket> Bucket>
  static state_type init(Bucket const&) {
    return {};
  }
  template <std::same_as<compress::bucket> Bucket, std::same_as<state_type> State, std::same_as<std::byte> Byte>
  static std::size_t encode(Bucket const& b, State&, std::span<Byte> out) {
    for (std::size_t i = 0; i < b.values.size(); ++i) {
      float const half = b.values[i] / 2;
      std::memcpy(out.data() + i * sizeof(float), &half, sizeof(float));
    }
    return wire_size(b.values.size());
  }
  template <std::same_as<std::byte const> Byte, std::same_as<float> Float>
  static void decode_add(std::span<Byte> payload, std::span<Float> out, Float weight) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      float x;
      std::memcpy(&x, payload.data() + i * sizeof(float), sizeof(float));
      out[i] += weight * 2 * x;
    }
  }
};
using least_gathered = least_codec<false, false>;
using least_divided = least_codec<false, true>;
struct least_summed : least_codec<true, true> {
  using wire_type = float;
};
static_assert(codec<least_gathered> && codec<least_divided> && codec<least_summed> && !codec<least_codec<true, true>>);
using asked = compress::codec_traits<least_gathered>;
static_assert(asked::rounds == 1 && std::is_void_v<asked::wire_type> && !asked::has_name && !asked::sizes_buckets);
static_assert(!asked::sizes_rounds && !asked::encodes_residual && !asked::decodes_with_state && !asked::absorbs);

/// In two rounds: ranks agree on how much the second one's payloads are of the sum. All that such a codec needs.
struct least_of_two_rounds {
  static constexpr bool summable = true, fixed_size = true, unbiased = true, wants_error_feedback = false;
  static constexpr int rounds = 2;
  using wire_type = float;
  struct state_type {
    float ranks = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) {
      return {make_named_tensor(prefix + "ranks", ranks)};
    }
  };
  static std::size_t wire_size(std::size_t n) { return (n ? n : 1) * sizeof(float); }
  static state_type init(compress::bucket const&) { return {}; }
  template <std::same_as<compress::bucket> Bucket>
  static std::size_t encode(Bucket const& b, state_type& s, std::span<std::byte> out, compress::context const& where) {
    for (std::size_t i = 0; i < b.size(); ++i) {
      float const x = where.round == 0 ? 1 : b.values[i] / s.ranks;
      std::memcpy(out.data() + i * sizeof(float), &x, sizeof(float));
    }
    return b.size() * sizeof(float);
  }
  template <std::same_as<std::byte const> Byte>
  static void absorb(std::span<Byte> payload, state_type& s, compress::context const&) {
    std::memcpy(&s.ranks, payload.data(), sizeof(float));
  }
  template <std::same_as<std::byte const> Byte>
  static void decode_add(std::span<Byte> payload, std::span<float> out, float weight, state_type& s,
                         compress::context const&) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      float x;
      std::memcpy(&x, payload.data() + i * sizeof(float), sizeof(float));
      out[i] += weight * s.ranks * x;
    }
  }
};
static_assert(codec<least_of_two_rounds> && compress::codec_traits<least_of_two_rounds>::decodes_with_state);

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

/// Points of the line. Can be called as the concept says only, cannot be assigned, and does not say what is in it.
struct least_dataset {
  struct count {  // converts, and is no number
    std::int64_t n;
    operator std::int64_t() const { return n; }
  };
  std::int64_t const n = 40;
  count size() const { return {n}; }
  static count predictions_per_sample() { return {1}; }
  template <std::same_as<std::int64_t const> Index, std::same_as<data::batch_buffer> Buffer>
  void load(std::span<Index> indices, Buffer& out) const {
    out.reset(indices.size(), 2, 0, 1);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      float const x = static_cast<float>(indices[i]) / 20.f - 1.f;
      out.values[2 * i] = x;
      out.values[2 * i + 1] = 3 * x - 0.5f;
    }
  }
};
static_assert(data::dataset<least_dataset> && !data::dataset_traits<least_dataset>::has_identity);
struct least_known_dataset : least_dataset {
  std::uint32_t const mark = 7;
  std::uint32_t const& identity() const { return mark; }
};
static_assert(data::dataset_traits<least_known_dataset>::has_identity);

/// A training's first weight, on rank 0.
template <class Optimizer, class Sync>
float slope(Optimizer const& rule, Sync const& sync, int ranks, std::int64_t steps = 200) {
  float found = 0;
  comm::threads(ranks).run([&](auto& c) {
    least_model mine;
    least_communicator<std::remove_reference_t<decltype(c)>> least{&c};
    train::fit_options const options{.batch = 4, .steps = steps};
    train::training_loop loop(mine, rule, sync, least_dataset{}, least, options, 1);
    loop.run();
    if (c.rank() == 0) found = mine.w[0];
  });
  return found;
}

template <class Model>
std::vector<float> weights_of(Model& m) {
  std::vector<float> all;
  for (auto const& p : m.parameters()) all.insert(all.end(), p.weight.begin(), p.weight.end());
  return all;
}

/// The same with a trainer: in one go, and in two that a file lies between.
template <class Model, class Sync, class Data>
void check_resumed(Sync const& sync, Data const& data, int ranks) {
  CAPTURE(ranks);
  auto const file = std::filesystem::temp_directory_path() / ("dovetail-archetypes-" + std::to_string(getpid()));
  train::trainer whole{Model{}, least_optimizer{}, sync, comm::threads{ranks}};
  auto const before = weights_of(whole.model());
  whole.fit(data, {.batch = 4, .steps = 30});
  train::trainer first{Model{}, least_optimizer{}, sync, comm::threads{ranks}};
  first.fit(data, {.batch = 4, .steps = 11, .on_save = [&](io::saved_state& s) { io::save_state(file, s); }});
  train::trainer second{Model{}, least_optimizer{}, sync, comm::threads{ranks}};
  second.restore(io::load_state(file));
  std::filesystem::remove(file);
  second.fit(data, {.batch = 4, .steps = 30});
  CHECK(second.steps() == 30);
  CHECK(weights_of(second.model()) == weights_of(whole.model()));
  CHECK(second.state() == whole.state());
  CHECK(weights_of(whole.model()) != before);
}
/// A network with the least layer and the least loss.
using least_network =
    nn::with_loss<nn::basic_network<nn::plain, nn::shape{2}, nn::dense<3>, test::least_layer, nn::dense<1>>,
                  test::least_loss>;

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
  namespace exchange = sync::exchange;
  auto const trains = [](auto const& sync) {
    for (int ranks : {1, 3}) {
      CAPTURE(ranks);
      CHECK(slope(optim::momentum{.lr = 0.1f}, sync, ranks) == doctest::Approx(3).epsilon(0.05));
    }
  };
  using compress::error_feedback;
  trains(sync::all_reduce{least_divided{}});
  trains(sync::all_reduce{error_feedback{least_divided{}}});
  trains(sync::all_reduce{least_divided{}, exchange::all_gather{}});
  trains(sync::all_reduce{least_divided{}, exchange::reduce_scatter_all_gather{}});
  trains(sync::all_reduce{error_feedback{least_divided{}}, exchange::reduce_scatter_all_gather{}});
  trains(sync::all_reduce{least_gathered{}});
  trains(sync::all_reduce{error_feedback{least_gathered{}}, exchange::all_gather{}});
  trains(sync::all_reduce{least_summed{}});
  trains(sync::all_reduce{error_feedback{least_summed{}}, exchange::all_reduce{}});
  trains(sync::all_reduce{least_summed{}, exchange::all_gather{}});
  trains(sync::all_reduce{least_of_two_rounds{}});
}

TEST_CASE("what the least codec moves is predicted, and its name is for tables") {
  least_model m;
  for (int ranks : {1, 2, 3}) {
    comm::threads(ranks).run([&](auto& c) {
      least_model mine;
      auto const check = [&](auto const& policy, bool exact) {
        auto session = policy.join(mine.list, optim::sgd{}, c);
        session.begin();
        auto const before = c.traffic();
        session.ready(0);
        session.step({});
        auto const moved = c.traffic() - before, said = policy.predict(mine.list, c.size(), c.rank());
        CHECK(moved.bytes_sent <= said.bytes_sent);
        if (exact) CHECK(moved.bytes_sent == said.bytes_sent);
      };
      check(sync::all_reduce{least_divided{}}, true);
      check(sync::all_reduce{least_summed{}}, true);
      check(sync::all_reduce{least_gathered{}}, false);
    });
  }
  CHECK(compress::name_of(least_gathered{}) == "codec");
  CHECK(compress::error_feedback{least_gathered{}}.name() == "error feedback + codec");
}

TEST_CASE("the least model, dataset, optimizer and codec are trained by a trainer, saved and go on, bit for bit") {
  for (int ranks : {1, 2}) {
    check_resumed<least_model>(sync::all_reduce{}, least_dataset{}, ranks);
    check_resumed<least_model>(sync::all_reduce{compress::error_feedback{least_divided{}}}, least_known_dataset{},
                               ranks);
    check_resumed<least_evaluable>(sync::all_reduce{least_of_two_rounds{}}, least_dataset{}, ranks);
    check_resumed<least_model>(least_synchronizer{}, least_dataset{}, ranks);
    check_resumed<least_model>(sync::local_sgd{}, least_dataset{}, ranks);
    check_resumed<least_network>(sync::all_reduce{least_summed{}}, least_dataset{}, ranks);
  }
}

TEST_CASE("the least model that can be evaluated is, on the least dataset") {
  for (int ranks : {1, 3}) {
    train::trainer trainer{least_evaluable{}, least_optimizer{}, sync::all_reduce{}, comm::threads{ranks}};
    auto const before = trainer.evaluate(least_dataset{}, 7);
    CHECK(before.count == 40);
    trainer.fit(least_dataset{}, {.batch = 4, .steps = 100});
    auto const after = trainer.evaluate(least_dataset{}, 7);
    CHECK(after.count == 40);
    CHECK(after.loss < before.loss / 10);
    train::trainer network{least_network{}, least_optimizer{}, sync::all_reduce{}, comm::threads{ranks}};
    auto const untrained = network.evaluate(least_dataset{}, 7);
    network.fit(least_dataset{}, {.batch = 4, .steps = 30});
    CHECK(network.evaluate(least_dataset{}, 7).loss < untrained.loss / 10);
  }
}

TEST_CASE("a model around the least one trains as it does, and can be evaluated if that one can") {
  static_assert(!evaluable<optim::sam<least_model>> && evaluable<optim::sam<least_evaluable>>);
  train::trainer around{optim::sam{.model = least_model{}, .rho = 0}, least_optimizer{}, sync::all_reduce{},
                        comm::threads{2}};
  train::trainer itself{least_model{}, least_optimizer{}, sync::all_reduce{}, comm::threads{2}};
  around.fit(least_dataset{}, {.batch = 4, .steps = 9});
  itself.fit(least_dataset{}, {.batch = 4, .steps = 9});
  CHECK(around.model().model.w == itself.model().w);
  train::trainer evaluated{optim::sam{.model = least_evaluable{}}, least_optimizer{}, sync::all_reduce{},
                           comm::threads{2}};
  CHECK(evaluated.evaluate(least_dataset{}).count == 40);
}

TEST_CASE("a dataset that says what is in it is compared when a training goes on; one that does not by its size") {
  train::trainer trainer{least_model{}, least_optimizer{}, sync::all_reduce{}, comm::threads{2}};
  trainer.fit(least_known_dataset{}, {.batch = 4, .steps = 3});
  CHECK_THROWS_AS(trainer.fit(least_known_dataset{{}, 8}, {.batch = 4, .steps = 5}), checkpoint_error);
  CHECK_THROWS_AS(trainer.fit(least_dataset{.n = 41}, {.batch = 4, .steps = 5}), checkpoint_error);
  trainer.fit(least_dataset{}, {.batch = 4, .steps = 5});  // it may be the same
  CHECK(trainer.steps() == 5);
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

}  // namespace train_archetypes
