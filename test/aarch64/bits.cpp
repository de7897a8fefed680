// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the library computes, item by item: built for two processors, the outputs are compared (compare.awk). A line is
//   KIND NAME CHECKSUM VALUE…
// KIND `same`: the checksum, of all values' bits, is to be the same everywhere; `libm`: a function of the C library is
// involved (exp, log, pow, cos, …), whose last digits are the library's. A sample of the values says how far apart two
// are that differ.
#include "../optim/levels.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/core/fingerprint.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/nn/cells.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/second_order/lbfgs.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

namespace {

enum class kind { same, libm };

template <class T>
void print(kind k, std::string name, std::span<T const> values) {
  for (char& c : name) c = c == ' ' ? '_' : c;
  fingerprint sum;
  sum.add(std::as_bytes(values));
  std::printf("%s %s %016llx", k == kind::same ? "same" : "libm", name.c_str(),
              static_cast<unsigned long long>(sum.value()));
  std::size_t const step = values.size() / 200 + 1;
  for (std::size_t i = 0; i < values.size(); i += step) std::printf(" %.17g", static_cast<double>(values[i]));
  std::printf("\n");
}
template <class T>
void print(kind k, std::string name, std::vector<T> const& values) {
  print(k, std::move(name), std::span<T const>(values));
}
void print_bytes(std::string name, std::span<std::byte const> bytes) {
  print(kind::same, std::move(name), std::span(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size()));
}

// No logarithm in it: the inputs have the same bits everywhere.
std::vector<float> numbers(std::size_t n, std::uint32_t stream, float size = 1) {
  random_stream const r{11, stream};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = size * (2 * r.uniform(i) - 1);
  return x;
}
/// Of any magnitude, infinities and denormals among them.
std::vector<float> any_bits(std::size_t n, std::uint32_t stream) {
  random_stream const r{12, stream};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = std::bit_cast<float>(r.word(i));
    if (is_nan(x[i])) x[i] = 0;  // a NaN's bits are the processor's
  }
  return x;
}
constexpr std::array<std::size_t, 9> sizes{1, 3, 15, 17, 31, 33, 257, 1000, 4099};

void core() {
  std::vector<std::uint32_t> words;
  for (std::uint32_t i = 0; i < 1000; ++i) words.push_back(random_stream{7, i % 5, 1ull << (i % 40), i % 3}.word(i));
  print(kind::same, "philox words", words);
  auto const x = any_bits(20000, 1);
  std::vector<float> halves, ways;
  for (float const v : x) {
    halves.push_back(static_cast<float>(fp16(v)));
    halves.push_back(static_cast<float>(bf16(v)));
  }
  print(kind::same, "half types", halves);
  auto const a = numbers(4096, 2), b = numbers(4096, 3);
  using simd::pack;
  for (std::size_t i = 0; i + pack::lanes <= a.size(); i += pack::lanes) {
    auto const p = pack::load(&a[i]), q = pack::load(&b[i]);
    for (pack const r : {p * q + p, p * q - q, q - p * p, p / q + q * 0.3f, simd::min(p, q), simd::max(p, q),
                         simd::sign(p), simd::sqrt(simd::abs(p) + 1.0f), simd::select(p < q, p, q)}) {
      float lanes[pack::lanes];
      r.store(lanes);
      ways.insert(ways.end(), lanes, lanes + pack::lanes);
    }
  }
  // The same values in the same order, however many lanes a pack has.
  std::vector<float> in_order(ways.size());
  constexpr std::size_t lanes = pack::lanes, kinds = 9;
  for (std::size_t i = 0; i < ways.size(); ++i)
    in_order[i / (kinds * lanes) * lanes + i % lanes + i / lanes % kinds * a.size()] = ways[i];
  print(kind::same, "pack arithmetic", in_order);
  for (float const p : {0.125f, 0.75f, 1.7f}) {
    std::vector<float> power(a.size());
    optim::detail::map(
        std::span<float>(power), [p](pack v) { return simd::pow(simd::abs(v), p); }, std::span<float const>(a));
    print(kind::same, "pack pow " + std::to_string(p), power);
  }
  std::vector<double> sums;
  for (std::size_t const n : sizes) {
    std::span<float const> const u(a.data(), n < a.size() ? n : a.size()), v(b.data(), u.size());
    sums.push_back(optim::detail::dot(u, v));
    sums.push_back(optim::detail::sum(u));
    sums.push_back(optim::detail::sum_of_squares(u));
  }
  print(kind::same, "sums and norms", sums);
  std::vector<float> y(a.size());
  nn::detail::best_cells().tanh(y.data(), a.data(), a.size() - 3);
  print(kind::same, "network tanh", y);
  nn::detail::best_cells().sigmoid(y.data(), a.data(), a.size() - 3);
  print(kind::same, "network sigmoid", y);
}

void rules() {
  // These have a power, a logarithm or an exponential among what is computed once a step.
  std::set<std::string> const with_libm{"nadam", "nadamax", "adopt", "adafactor", "ademamix"};
  for (auto const& [name, weights] : levels::bits())
    print(with_libm.count(name) ? kind::libm : kind::same, "rule " + name, weights);
}

struct small {
  arena memory{{{"a", {1}}, {"b", {37, 9}}, {"c", {1003}}, {"d", {256}}}};
  small() { fill(memory.weights(), 1); }
  static void fill(std::span<float> to, std::uint32_t stream) {
    auto const x = numbers(to.size(), stream);
    std::copy(x.begin(), x.end(), to.begin());
  }
};

template <class Rule>
std::vector<float> after(Rule const& rule, int steps = 20) {
  small s;
  auto state = rule.init(s.memory.parameters());
  for (int t = 1; t <= steps; ++t) {
    small::fill(s.memory.gradients(), static_cast<std::uint32_t>(100 + t));
    rule.step(s.memory.parameters(), state);
  }
  return {s.memory.weights().begin(), s.memory.weights().end()};
}

template <class Half>
std::vector<std::span<Half>> spans_of(std::vector<Half>& memory, parameter_list const& list) {
  memory.resize(list.flat_size());
  std::vector<std::span<Half>> spans;
  for (std::size_t i = 0; i < list.size(); ++i)
    spans.push_back(std::span(memory).subspan(list.offset(i), list[i].size()));
  return spans;
}

void formats() {
  optim::adamw const adamw{.lr = 0.01f};
  print(kind::same, "adamw 8 bit slots", after(optim::low_precision_state{adamw, optim::blockwise_8bit{5}}));
  print(kind::same, "adamw bf16 slots", after(optim::low_precision_state{adamw, optim::bf16_slots{5}}));
  print(kind::same, "lamb 8 bit slots",
        after(optim::low_precision_state{optim::lamb{.lr = 0.01f}, optim::blockwise_8bit{5}}));
  small shapes;
  std::vector<fp16> masters;
  print(kind::same, "adamw fp16 master weights",
        after(optim::low_precision_state{adamw, optim::fp32_slots{},
                                         optim::master_weights<fp16>{spans_of(masters, shapes.memory.parameters())}}));
  print_bytes("adamw fp16 weights", std::as_bytes(std::span(masters)));
  std::vector<bf16> weights;
  optim::low_precision_state const rounded{adamw, optim::bf16_slots{3},
                                           optim::rounded_weights{spans_of(weights, shapes.memory.parameters()), 7}};
  parameter_list list;
  for (auto const& p : shapes.memory.parameters()) list.add_opaque(p.name, p.shape);
  auto state = rounded.init(list);
  std::vector<bf16> gradients(list.flat_size());
  std::vector<std::span<bf16 const>> from;
  for (std::size_t i = 0; i < list.size(); ++i)
    from.emplace_back(gradients.data() + list.offset(i), shapes.memory.parameters()[i].size());
  for (std::uint32_t t = 0; t < 20; ++t) {
    auto const g = numbers(gradients.size(), 100 + t);
    for (std::size_t i = 0; i < g.size(); ++i) gradients[i] = bf16(g[i]);
    rounded.step(list, state, optim::gradient::half<bf16>{from});
  }
  print_bytes("adamw bf16 weights rounded stochastically", std::as_bytes(std::span(weights)));
}

void chains() {
  using namespace optim;
  print(kind::same, "chain of a clipped norm and adamw",
        after(chain{clip_by_global_norm{.max_norm = 1}, adamw{.lr = 0.01f}}));
  print(kind::same, "chain of averages", after(chain{sgd{.lr = 0.01f}, ema_weights{}}));
  auto const at = [](auto const& schedule) {
    std::vector<float> rates;
    for (std::int64_t t = 0; t < 300; t += 7) rates.push_back(static_cast<float>(schedule(t)));
    return rates;
  };
  print(kind::same, "schedule linear", at(linear{.from = 0.3f, .to = 0.001f, .steps = 271}));
  print(kind::same, "schedule inverse_sqrt", at(inverse_sqrt{.peak = 0.3f, .steps = 17}));
  print(kind::same, "schedule warmup", at(warmup{77, constant{0.1f}, 0.003f}));
  print(kind::libm, "schedule step_decay", at(step_decay{.initial = 0.3f, .factor = 0.7f, .every = 31}));
  print(kind::libm, "schedule cosine", at(cosine{.initial = 0.3f, .steps = 271, .final = 0.01f}));
  print(kind::libm, "schedule exponential", at(exponential{.initial = 0.3f, .factor = 0.93f, .every = 10}));
  print(kind::libm, "schedule polynomial", at(polynomial{.from = 0.3f, .to = 0.01f, .steps = 271, .power = 1.7f}));
  print(kind::libm, "schedule inverse_time", at(inverse_time{.initial = 0.3f, .decay = 0.01f, .power = 0.6f}));
  print(kind::libm, "schedule warm_restarts",
        at(warm_restarts{.initial = 0.3f, .steps = 13, .growth = 2, .final = 0.01f}));
  print(kind::libm, "schedule cyclical", at(cyclical{.low = 0.01f, .high = 0.3f, .up = 23, .shrink = 0.8f}));
  print(kind::libm, "schedule one_cycle", at(one_cycle{.peak = 0.3f, .steps = 290}));
}

/// The sum of (x[i+1] - x[i]^2)^2 and (1 - x[i])^2 in float products that are rounded one by one.
void minimizer() {
  arena a({{"x", {9}}});
  for (float& w : a.weights()) w = -1;
  auto const objective = [](parameter_list& p) {
    auto const w = p[0].weight;
    auto g = p[0].gradient;
    auto const rounded = [](double v) {
      auto volatile kept = v;  // the library's arithmetic is compared here, not this function's
      return kept;
    };
    double sum = 0;
    for (float& v : g) v = 0;
    for (std::size_t i = 0; i + 1 < w.size(); ++i) {
      double const x = static_cast<double>(w[i]), y = static_cast<double>(w[i + 1]);
      double const u = 1 - x, v = y - rounded(x * x);
      sum += rounded(u * u) + rounded(100 * v * v);
      g[i] += static_cast<float>(rounded(-2 * u) - rounded(400 * x * v));
      g[i + 1] += static_cast<float>(rounded(200 * v));
    }
    return sum;
  };
  auto const r = optim::minimize(objective, a.parameters(), optim::lbfgs{}, {.steps = 60});
  print(kind::same, "lbfgs weights", std::vector<float>(a.weights().begin(), a.weights().end()));
  print(kind::same, "lbfgs loss and norm", std::vector<double>{r.loss, r.gradient_norm});
}

template <class Codec>
void codec(std::string const& name, Codec const& codec) {
  std::vector<std::byte> all;
  std::vector<float> decoded;
  for (std::size_t const n : sizes) {
    auto state = codec.init(compress::bucket{numbers(n, 1), {}});
    std::vector<float> out(n, 0.25f);
    for (std::uint32_t round = 0; round < 4; ++round) {
      auto const x = numbers(n, 10 + round);
      compress::bucket const b{x, {}};
      std::vector<std::byte> payload(compress::wire_size(codec, b));
      payload.resize(codec.encode(b, state, payload));
      codec.decode_add(payload, out, 0.3f);
      all.insert(all.end(), payload.begin(), payload.end());
    }
    for (auto& t : state.tensors("")) all.insert(all.end(), t.bytes.begin(), t.bytes.end());
    decoded.insert(decoded.end(), out.begin(), out.end());
  }
  print_bytes("codec " + name + " payloads and residuals", all);
  print(kind::same, "codec " + name + " decoded", decoded);
}
void codecs() {
  using namespace compress;
  codec("identity", identity{});
  codec("fp16", compress::fp16{});
  codec("bf16", compress::bf16{});
  codec("sign", sign{});
  codec("sign of blocks", sign{.block = 64});
  codec("top_k", top_k{.ratio = 0.05f});
  codec("top_k with feedback", error_feedback{top_k{.ratio = 0.05f}});
  codec("sign with feedback", error_feedback{sign{}});
  codec("bf16 with feedback", error_feedback{compress::bf16{}});
}

template <class Sync>
std::vector<float> train(Sync const& sync, int ranks) {
  std::vector<float> weights;
  comm::threads(ranks).run([&](auto& c) {
    small s;
    auto session = sync.join(s.memory.parameters(), optim::adamw{.lr = 0.01f}, c);
    for (std::uint32_t t = 0; t < 10; ++t) {
      session.begin();
      small::fill(s.memory.gradients(), 1000 * static_cast<std::uint32_t>(c.rank() + 1) + t);
      session.ready(0);
      session.step();
    }
    if (c.rank() == 0) weights.assign(s.memory.weights().begin(), s.memory.weights().end());
  });
  return weights;
}
void ranks() {
  print(kind::same, "3 ranks, all_reduce", train(sync::all_reduce{}, 3));
  print(kind::same, "3 ranks, all_reduce of bf16", train(sync::all_reduce{compress::bf16{}}, 3));
  print(kind::same, "2 ranks, all_reduce of top_k with feedback",
        train(sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.05f}}}, 2));
}

}  // namespace

int main() {
  core();
  rules();
  formats();
  chains();
  minimizer();
  codecs();
  ranks();
}
