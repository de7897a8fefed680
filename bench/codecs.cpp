// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_codecs --help: what each codec of the registry (test/compress/registry.hpp) costs and loses on one core, or
// on --threads cores at the same time, each with a gradient of its own, as ranks of one host are: the slowest counts.
// Per codec a row: bytes of the gradient and on the wire, GB/s of the gradient to encode and to decode-and-add (the
// median of repetitions in which codecs take turns), what is lost in one step without error feedback, and the
// break-even bandwidth: GB/s that a rank's link may have until dense fp32 is as fast for --ranks ranks,
//   dense: wire bytes of fp32 / B,   compressed: encodes + wire bytes / B + decodes,
// with bytes, encodings and decodings as the exchange that sync::all_reduce chooses has them, nothing overlapped and
// the link alone. `never`: it is slower on any. `copy` is what the same floats take to be copied.
#include <dovetail/comm/operation.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/philox.hpp>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../test/compress/known.hpp"
#include "figures_file.hpp"
#include "paired.hpp"

using namespace dovetail;

namespace {

struct options {
  std::vector<std::string> codecs;
  std::size_t n = 25'000'000;
  std::string dtype = "fp32", json;
  int ranks = 8, repetitions = 5, threads = 1;
  bool list = false;
};

/// A gradient: normal, and its magnitude differs from one 4096-element "tensor" to the next, as layers' do; numbers of
/// its own type.
buffer<float> gradient(std::size_t n, std::string const& dtype) {
  buffer<float> x(n);
  random_stream const random{1};
  for (std::size_t i = 0; i < n; ++i) {
    float const u = 1 - random.uniform(2 * i), v = random.uniform(2 * i + 1);
    float const scale = 1e-3f * static_cast<float>(1 + (i / 4096) % 5);
    x[i] = scale * std::sqrt(-2 * std::log(u)) * std::cos(6.2831853f * v);
    if (dtype == "fp16") x[i] = static_cast<float>(fp16(x[i]));
    if (dtype == "bf16") x[i] = static_cast<float>(bf16(x[i]));
  }
  return x;
}

/// f(t) on `threads` threads at the same time.
void together(int threads, auto const& f) {
  if (threads == 1) return f(0);
  std::barrier start(threads);
  std::vector<std::jthread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      start.arrive_and_wait();
      f(t);
    });
}

double seconds_of(auto&& work) {
  auto const start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Steps are counted from here, when all that happens at the beginning of a training is over.
constexpr std::int64_t late = 100'000;

struct quality {
  double relative_error = 0, bias = 0, cosine = 0;
};
quality compare(std::span<float const> x, std::span<float const> y) {
  double error = 0, norm = 0, dot = 0, other = 0, bias = 0, magnitude = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const u = static_cast<double>(x[i]), v = static_cast<double>(y[i]);
    error += (v - u) * (v - u);
    norm += u * u;
    dot += u * v;
    other += v * v;
    bias += (v - u) * (u < 0 ? -1 : 1);  // shrinks (negative) or grows the gradient along its own sign
    magnitude += std::fabs(u);
  }
  return {std::sqrt(error / norm), bias / magnitude, dot / std::sqrt(norm * other)};
}

/// One codec with its bucket, to be timed when it is its turn.
class contestant {
 public:
  contestant(test::known_codec const& c, compress::bucket const& b)
      : codec_(c), bucket_(b), state_(c.init(b)), payloads_(static_cast<std::size_t>(c.rounds)) {
    for (std::size_t r = 0; r < payloads_.size(); ++r) payloads_[r].resize(c.wire_size(b, static_cast<int>(r)));
  }
  /// A step of one rank alone.
  void turn(std::span<float> out) {
    compress::context where{.step = step_++, .seed = 1};
    encodes_.push_back(seconds_of([&] {
      state_->begin();  // which also ends the step before, as an exchange does
      wire_ = 0;
      for (where.round = 0; where.round < codec_.rounds; ++where.round) {
        auto& payload = payloads_[static_cast<std::size_t>(where.round)];
        last_ = state_->encode(bucket_, payload, where);
        wire_ += last_;
        if (where.round + 1 < codec_.rounds) state_->absorb(std::span(payload).first(last_), where);
      }
    }));
    where.round = codec_.rounds - 1;
    if (codec_.rounds > 1) where.rank = compress::context::sum_of_ranks;
    decodes_.push_back(
        seconds_of([&] { state_->decode_add(std::span(payloads_.back()).first(last_), out, 1, where); }));
  }
  void forget() {
    encodes_.clear();
    decodes_.clear();
  }
  std::size_t wire() const { return wire_; }
  std::vector<double> const& encodes() const { return encodes_; }
  std::vector<double> const& decodes() const { return decodes_; }

 private:
  test::known_codec const& codec_;
  compress::bucket bucket_;
  std::unique_ptr<test::known_state> state_;
  std::vector<std::vector<std::byte>> payloads_;
  std::size_t last_ = 0, wire_ = 0;
  std::int64_t step_ = late;
  std::vector<double> encodes_, decodes_;
};

/// The median over repetitions of the slowest.
double median_of_slowest(auto const& contestants, auto const& times) {
  std::vector<double> slowest = times(*contestants.front());
  for (auto const& c : contestants)
    for (std::size_t i = 0; i < slowest.size(); ++i) slowest[i] = std::max(slowest[i], times(*c)[i]);
  return bench::median(slowest);
}

/// What a step of the exchange takes besides the wire: each of P shards' or the bucket's encodings and decodings.
double codec_seconds(std::string const& plan, int ranks, double encode, double decode) {
  double const p = ranks;
  if (plan == "all_gather") return encode + p * decode;
  if (plan == "reduce_scatter_all_gather") return encode * (1 + 1 / p) + 2 * decode;
  return encode + decode;
}

int run(options const& o) {
  auto const& all = test::known_codecs();
  if (o.list) {
    for (auto const& c : all) std::printf("%-24s %s\n", c->label.c_str(), c->name.c_str());
    return 0;
  }
  std::vector<test::known_codec const*> chosen;
  auto const choose = [&](std::string const& label) {
    for (auto const& c : all)
      if (c->label == label) {
        if (std::find(chosen.begin(), chosen.end(), c.get()) == chosen.end()) chosen.push_back(c.get());
        return;
      }
    throw argument_error("there is no codec '" + label + "': --list names them");
  };
  choose("identity");
  choose("fp16");  // what every other one has to beat
  if (o.codecs.empty())
    for (auto const& c : all) choose(c->label);
  for (auto const& label : o.codecs) choose(label);

  auto const x = gradient(o.n, o.dtype);
  auto const threads = static_cast<std::size_t>(o.threads);
  std::vector<buffer<float>> xs(threads - 1, x), ys;  // of the other threads; of all
  for (std::size_t t = 0; t < threads; ++t) ys.emplace_back(o.n);
  compress::bucket_tensor const tensors[] = {{0, {static_cast<std::int64_t>(o.n / 1024), 1024}},
                                             {o.n / 1024 * 1024, {static_cast<std::int64_t>(o.n % 1024)}}};
  std::span<compress::bucket_tensor const> those(tensors);
  if (o.n < 1024) those = those.last(1);
  if (o.n % 1024 == 0) those = those.first(1);
  compress::bucket const b{x.span(), those};
  auto const bucket_of = [&](std::size_t t) { return t ? compress::bucket{xs[t - 1].span(), those} : b; };

  double const element = o.dtype == "fp32" ? 4 : 2, logical = element * static_cast<double>(o.n);
  double const fp32 = 4 * static_cast<double>(o.n), gb = 1e-9;
  double const dense = static_cast<double>(chosen[0]->cost(test::wish::all_reduce, b, o.ranks, 0).bytes_sent);
  nlohmann::json context{{"program", "codecs"},
                         {"n", o.n},
                         {"dtype", o.dtype},
                         {"ranks", o.ranks},
                         {"repetitions", o.repetitions},
                         {"threads", o.threads},
                         {"compiler", __VERSION__}};

  std::vector<double> copies;
  std::printf("# %zu elements of %s; break-even for %d ranks; medians of %d; %d thread%s\n", o.n, o.dtype.c_str(),
              o.ranks, o.repetitions, o.threads, o.threads == 1 ? "" : "s");
  std::printf("%-24s %10s %5s %11s %11s %10s %10s %8s %8s %9s %9s %7s %-12s %10s\n", "codec", "n", "dtype", "logical_B",
              "wire_B", "ratio_fp32", "ratio_fp16", "enc_GB/s", "dec_GB/s", "rel_L2", "bias", "cosine", "exchange",
              "pays_below");
  bench::figures_file figures(o.json, context.dump());
  // One after the other, so that memory is needed for one; each beside a copy, which says how fast the machine is now.
  for (auto const* c : chosen) {
    std::vector<std::unique_ptr<contestant>> mine;
    for (std::size_t t = 0; t < threads; ++t) mine.push_back(std::make_unique<contestant>(*c, bucket_of(t)));
    auto const turn = [&] {
      together(o.threads, [&](int t) {
        auto const i = static_cast<std::size_t>(t);
        mine[i]->turn(ys[i].span());
      });
    };
    for (auto& y : ys) std::fill(y.begin(), y.end(), 0.0f);
    turn();  // of a state that has just begun, which also touches all memory
    auto const q = compare(x.span(), ys[0].span());
    for (auto& m : mine) m->forget();
    std::vector<double> here;
    std::vector<double> copy(threads);
    for (int i = 0; i < o.repetitions; ++i) {
      together(o.threads, [&](int t) {
        auto const j = static_cast<std::size_t>(t);
        copy[j] = seconds_of([&] { std::memcpy(ys[j].data(), bucket_of(j).values.data(), 4 * o.n); });
      });
      here.push_back(*std::max_element(copy.begin(), copy.end()));
      turn();
    }
    copies.insert(copies.end(), here.begin(), here.end());
    double const encode = median_of_slowest(mine, [](contestant const& m) { return m.encodes(); });
    double const decode = median_of_slowest(mine, [](contestant const& m) { return m.decodes(); });
    auto const wire = static_cast<double>(mine[0]->wire());
    std::string const plan = c->plan(test::wish::automatic, b, o.ranks, late);
    double sent = static_cast<double>(c->cost(test::wish::automatic, b, o.ranks, 0, late).bytes_sent);
    if (!c->fixed_size) sent *= wire / static_cast<double>(c->wire_size(b));  // which is the most that it can be
    double const spent = codec_seconds(plan, o.ranks, encode, decode);
    bool const dense_itself = c->label == "identity";
    double const pays_below = dense_itself || sent >= dense ? 0 : (dense - sent) / spent * gb;
    std::printf("%-24s %10zu %5s %11.0f %11.0f %10.2f %10.2f %8.2f %8.2f %9.2e %9.1e %7.4f %-12s ", c->label.c_str(),
                o.n, o.dtype.c_str(), logical, wire, fp32 / wire, fp32 / 2 / wire, fp32 * gb / encode,
                fp32 * gb / decode, q.relative_error, q.bias, q.cosine,
                plan == "reduce_scatter_all_gather" ? "two_phase" : plan.c_str());
    if (pays_below > 0)
      std::printf("%10.2f\n", pays_below);
    else
      std::printf("%10s\n", dense_itself ? "dense" : "never");
    std::fflush(stdout);
    nlohmann::json const row{{"codec", c->label},
                             {"name", c->name},
                             {"n", o.n},
                             {"dtype", o.dtype},
                             {"logical_B", logical},
                             {"wire_B", wire},
                             {"ratio_fp32", fp32 / wire},
                             {"ratio_fp16", fp32 / 2 / wire},
                             {"encode_seconds", encode},
                             {"decode_seconds", decode},
                             {"copy_seconds", bench::median(here)},
                             {"encode_GB/s", fp32 * gb / encode},
                             {"decode_GB/s", fp32 * gb / decode},
                             {"rel_L2", q.relative_error},
                             {"bias", q.bias},
                             {"cosine", q.cosine},
                             {"ranks", o.ranks},
                             {"threads", o.threads},
                             {"exchange", plan},
                             {"sent_B", sent},
                             {"dense_sent_B", dense},
                             {"pays_below_GB/s", pays_below}};
    figures.add("%s", row.dump().c_str());
  }
  std::printf("# copy: %.2f GB/s\n", fp32 * gb / bench::median(copies));
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  options o;
  CLI::App app{"What codecs cost and lose, and on which links they pay."};
  app.add_option("--codec", o.codecs, "labels, with commas; all, if not said. identity and fp16 are always there")
      ->delimiter(',');
  app.add_flag("--list", o.list, "labels and names, nothing else");
  app.add_option("--n", o.n, "elements; 64K, 25M are understood")
      ->transform(CLI::AsSizeValue(true))
      ->check(CLI::Range(std::size_t{1}, std::size_t{1} << 34))
      ->capture_default_str();
  app.add_option("--dtype", o.dtype, "that the gradient's numbers are of")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16"}))
      ->capture_default_str();
  app.add_option("--ranks", o.ranks, "that break-even is asked for")
      ->check(CLI::Range(2, 65535))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "that encode and decode at the same time, each a gradient of its own")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--repetitions", o.repetitions)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--json", o.json, "figures as JSON");
  CLI11_PARSE(app, argc, argv);
  return run(o);
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
