// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_optim_large_batch [STEM | --tune]: test accuracy against the batch size, at as many epochs for every batch:
// what scaling the rate, warming up, layer-wise rates and SWAP each save. Writes STEM.json, and
// STEM_lower.svg and STEM_upper.svg for two choices of base rates.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <dovetail/dovetail.hpp>
#include <dovetail/io/plot.hpp>

using namespace dovetail;

namespace {

constexpr std::int64_t samples = 8192, test_samples = 4096, epochs = 15, base = 16;
constexpr std::size_t seeds = 4;
constexpr std::array<std::int64_t, 7> factors{1, 2, 4, 8, 16, 32, 64};
constexpr int side = 14;
using mlp = nn::network<nn::shape{side * side}, nn::dense<128>, nn::relu, nn::dense<128>, nn::relu, nn::dense<128>,
                        nn::relu, nn::dense<10>>;

// ---- The task: digits of seven strokes, turned, stretched, slanted and moved, under noise.

/// Segments of each digit, as bits: top, upper left, upper right, middle, lower left, lower right, bottom.
constexpr std::array<unsigned, 10> strokes_of{0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f};
struct stroke {
  double x0, y0, x1, y1;
};
constexpr std::array<stroke, 7> strokes{
    {{-1, -2, 1, -2}, {-1, -2, -1, 0}, {1, -2, 1, 0}, {-1, 0, 1, 0}, {-1, 0, -1, 2}, {1, 0, 1, 2}, {-1, 2, 1, 2}}};

double distance(stroke const& s, double x, double y) {
  double const dx = s.x1 - s.x0, dy = s.y1 - s.y0;
  double const t = std::clamp(((x - s.x0) * dx + (y - s.y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0);
  return std::hypot(x - s.x0 - t * dx, y - s.y0 - t * dy);
}

data::in_memory draw(std::int64_t count, std::uint64_t seed) {
  std::vector<float> values;
  std::vector<std::int32_t> targets;
  for (std::int64_t i = 0; i < count; ++i) {
    random_stream const random{seed, static_cast<std::uint32_t>(i)};
    std::uint64_t n = 0;
    auto const between = [&](double low, double high) {
      return low + (high - low) * static_cast<double>(random.uniform(n++));
    };
    auto const digit = static_cast<std::int32_t>(between(0, 10));
    double const angle = between(-0.3, 0.3), slant = between(-0.3, 0.3), size = between(2, 2.8),
                 width = between(0.75, 1.3);
    double const left = between(4.5, 8.5), top = between(4.5, 8.5), thick = between(0.2, 0.5),
                 noise = between(0.1, 0.5);
    double const c = std::cos(angle), s = std::sin(angle);
    for (int row = 0; row < side; ++row)
      for (int column = 0; column < side; ++column) {
        double const u = (column - left) / size, v = (row - top) / size;
        double const y = c * v - s * u, x = (c * u + s * v - slant * y) / width;
        double nearest = 1e9;
        for (std::size_t k = 0; k < strokes.size(); ++k)
          if (strokes_of[static_cast<std::size_t>(digit)] >> k & 1)
            nearest = std::min(nearest, distance(strokes[k], x, y));
        double const ink = std::clamp((thick - nearest) * size + 0.5, 0.0, 1.0);
        values.push_back(static_cast<float>(ink - 0.3 + noise * (between(-1, 1) + between(-1, 1))));
      }
    targets.push_back(digit);
  }
  return {std::move(values), std::move(targets), side * side};
}

// ---- A run.

struct task {
  data::in_memory train = draw(samples, 1);
  data::in_memory test = draw(test_samples, 2);
  data::in_memory validation = draw(test_samples, 3);  ///< what rates are tuned by
};

/// Accuracy in percent; that of guessing where the training diverges. One rank with the whole batch: the weights are
/// those of k ranks that share it.
template <class Rule>
double accuracy(data::in_memory const& train, data::in_memory const& test, Rule const& rule, std::int64_t batch,
                std::uint64_t seed) {
  mlp network;
  network.initialize(seed);
  train::trainer trainer{network, nn::softmax_cross_entropy{}, rule, sync::all_reduce{}, comm::self{}};
  try {
    trainer.fit(train, {.batch = batch, .epochs = epochs, .seed = seed, .threads = 1});
  } catch (numeric_error const&) {
    return 10;
  }
  auto const found = trainer.evaluate(test, 256, 1);
  return 100.0 * static_cast<double>(found.correct) / static_cast<double>(found.count);
}

/// The same with SWAP: two thirds of the epochs with the whole batch, and in the last third `members` models apart,
/// each with all samples in batches of an eighth, which are averaged.
constexpr int members = 8;
constexpr std::int64_t epochs_together = epochs * 2 / 3, epochs_apart = epochs - epochs_together;
std::int64_t apart_batch(std::int64_t batch) { return std::max(base, batch / members); }

struct swap_result {
  double mean = 10, members = 10;  ///< accuracy of the mean, and the mean of its members' accuracies
};
swap_result swap_accuracy(data::in_memory const& train, data::in_memory const& test, optim::momentum const& rule,
                          optim::momentum const& rule_apart, std::int64_t batch, std::uint64_t seed) {
  mlp network;
  network.initialize(seed);
  train::trainer together{network, nn::softmax_cross_entropy{}, rule, sync::all_reduce{}, comm::self{}};
  try {
    together.fit(train, {.batch = batch, .epochs = epochs_together, .seed = seed, .threads = 1});
    train::trainer apart{together.model(), rule_apart, sync::local_sgd{}, comm::threads{members}};
    apart.fit(train,
              {.batch = apart_batch(batch), .epochs = epochs_apart, .seed = seed, .threads = 1, .log_every = 200});
    swap_result found{100 * apart.evaluate(test, 256, 1).accuracy(), 0};
    for (int r = 0; r < members; ++r) {
      apart.state().restore(train::weights_of(together.model().parameters()), message("rank", r, ".weights."));
      found.members += 100 * together.evaluate(test, 256, 1).accuracy() / members;
    }
    return found;
  } catch (numeric_error const&) {
    return {};
  }
}

/// f(0) … f(n - 1), on all cores.
void spread_out(std::size_t n, std::function<void(std::size_t)> const& f) {
  std::atomic<std::size_t> next = 0;
  std::vector<std::jthread> workers;
  for (unsigned t = 0; t < std::max(1u, std::thread::hardware_concurrency()); ++t)
    workers.emplace_back([&] {
      for (std::size_t i; (i = next++) < n;) f(i);
    });
}

// ---- The curves.

enum class rule { momentum, lars, lamb };
constexpr float decay = 1e-4f;

double accuracy(rule r, data::in_memory const& train, data::in_memory const& test, optim::schedule const& lr,
                std::int64_t batch, std::uint64_t seed) {
  switch (r) {
    case rule::momentum:
      return accuracy(train, test, optim::momentum{.lr = lr, .weight_decay = decay}, batch, seed);
    case rule::lars:
      return accuracy(train, test, optim::lars{.lr = lr, .weight_decay = decay}, batch, seed);
    default:
      return accuracy(train, test, optim::lamb{.lr = lr, .weight_decay = decay}, batch, seed);
  }
}

/// A warm-up, then a straight line to 0 at the end of the training.
optim::schedule falling(float peak, std::int64_t warmup, std::int64_t batch) {
  auto const steps = epochs * ((samples + batch - 1) / batch);
  return optim::warmup{.steps = warmup, .then = optim::linear{.from = peak, .to = 0, .steps = steps - warmup}};
}

// By the mean accuracy of three other seeds on the validation set at x1, of the rates 1, 2, 5, … (`--tune` prints them
// all); nothing but the rate was tuned, and nothing at a larger batch. For SGD and LAMB two rates are within half a
// point of each other, less than seeds differ, and far apart at x64: both are shown.
struct rates {
  float sgd, lamb;
};
constexpr rates lower{0.02f, 0.005f}, upper{0.05f, 0.01f};
constexpr float lars_rate = 5;
// Epochs of warm-up: two at every batch, or by LEGW two at the largest.
constexpr std::int64_t warm_epochs = 2;
constexpr double legw_epochs = static_cast<double>(warm_epochs) / static_cast<double>(factors.back());

optim::schedule by_legw(float rate, std::int64_t batch) {
  optim::legw const tuned{.rate = rate, .batch = base, .epochs = legw_epochs};
  return falling(tuned(batch), tuned.steps(batch, samples), batch);
}

struct curve {
  std::string name;
  rule used;
  std::function<optim::schedule(std::int64_t batch)> rate;
  std::function<optim::schedule(std::int64_t batch)> rate_apart{};  ///< of SWAP's members, whose batch it is given
  std::array<std::array<double, seeds>, factors.size()> accuracy{}, members{};

  double mean(std::size_t f) const { return mean(accuracy[f]); }
  static double mean(std::array<double, seeds> const& of) {
    double sum = 0;
    for (double a : of) sum += a / seeds;
    return sum;
  }
  /// The standard deviation over seeds.
  static double deviation(std::array<double, seeds> const& of) {
    double sum = 0;
    for (double a : of) sum += (a - mean(of)) * (a - mean(of));
    return std::sqrt(sum / (seeds - 1));
  }
};

/// Where LEGW's line has come to when members begin, on to 0 at the end.
optim::schedule rest_by_legw(float rate, std::int64_t batch) {
  optim::legw const tuned{.rate = rate, .batch = base, .epochs = legw_epochs};
  auto const share = static_cast<float>(epochs_apart) / static_cast<float>(epochs);
  return optim::linear{.from = tuned(batch) * share, .to = 0, .steps = epochs_apart * ((samples + batch - 1) / batch)};
}

/// Those of one choice of rates; LARS, which has one, is the last of both.
enum { unscaled, momentum_legw, momentum_swap, linear_alone, linear_warm, lamb, lars };
std::vector<curve> curves(rates const& r) {
  auto const sgd = message("SGD ", r.sgd, ", ");
  optim::linear_scaling const linear{.rate = r.sgd, .batch = base};
  return {{sgd + "unscaled", rule::momentum, [=](auto batch) { return falling(r.sgd, 0, batch); }},
          {sgd + "LEGW", rule::momentum, [=](auto batch) { return by_legw(r.sgd, batch); }},
          {sgd + "LEGW, SWAP", rule::momentum, [=](auto batch) { return by_legw(r.sgd, batch); },
           [=](auto batch) { return rest_by_legw(r.sgd, batch); }},
          {sgd + "linear", rule::momentum, [=](auto batch) { return falling(linear(batch), 0, batch); }},
          {sgd + "linear, warm-up", rule::momentum,
           [=](auto batch) { return falling(linear(batch), warm_epochs * samples / batch, batch); }},
          {message("LAMB ", r.lamb, ", LEGW"), rule::lamb, [=](auto batch) { return by_legw(r.lamb, batch); }},
          {message("LARS ", lars_rate, ", LEGW"), rule::lars, [=](auto batch) { return by_legw(lars_rate, batch); }}};
}

// ---- What is shown.

void tune(task const& t) {
  struct trial {
    char const* name;
    rule used;
    std::vector<float> rates;
  };
  for (auto const& [name, used, rates] : {trial{"SGD", rule::momentum, {0.002f, 0.005f, 0.01f, 0.02f, 0.05f, 0.1f}},
                                          trial{"LARS", rule::lars, {0.5f, 1, 2, 5, 10}},
                                          trial{"LAMB", rule::lamb, {0.001f, 0.002f, 0.005f, 0.01f, 0.02f, 0.05f}}}) {
    constexpr std::size_t repeats = 3;
    std::vector<double> found(repeats * rates.size());
    spread_out(found.size(), [&, used = used, &rates = rates](std::size_t i) {
      auto const warmup = used == rule::momentum ? 0 : std::llround(legw_epochs * samples / base);
      found[i] =
          accuracy(used, t.train, t.validation, falling(rates[i / repeats], warmup, base), base, 100 + i % repeats);
    });
    for (std::size_t i = 0; i < rates.size(); ++i) {
      double mean = 0;
      for (std::size_t k = 0; k < repeats; ++k) mean += found[repeats * i + k] / repeats;
      std::printf("%-5s rate %-6g %6.2f %%\n", name, static_cast<double>(rates[i]), mean);
    }
  }
}

void print(std::vector<curve*> const& all) {
  std::printf("test accuracy in %% after %lld epochs, mean ± standard deviation of %zu seeds\n%-26s",
              static_cast<long long>(epochs), seeds, "batch");
  for (auto f : factors) std::printf(" %12lld", static_cast<long long>(base * f));
  std::puts("");
  auto const row = [](std::string const& name, auto const& accuracy) {
    std::printf("%-26s", name.c_str());
    for (auto const& of : accuracy) std::printf("  %5.1f ±%4.1f", curve::mean(of), curve::deviation(of));
    std::puts("");
  };
  for (auto const* c : all) {
    row(c->name, c->accuracy);
    if (c->rate_apart) row("  its members, each alone", c->members);
  }
}

/// What the spread of seeds leaves no doubt of; the number of claims that do not hold.
int check(std::vector<curve> const& all) {
  auto const at = [&](int curve, std::int64_t factor) {
    return all[static_cast<std::size_t>(curve)].mean(
        static_cast<std::size_t>(std::find(factors.begin(), factors.end(), factor) - factors.begin()));
  };
  double const best_sgd =
      std::max({at(unscaled, 64), at(momentum_legw, 64), at(linear_alone, 64), at(linear_warm, 64)});
  struct {
    char const* says;
    double more, less;
  } const claims[] = {
      {"x16: linear scaling behind a warm-up falls less than no scaling", at(linear_warm, 16), at(unscaled, 16)},
      {"x64: the square root falls less than linear scaling", at(momentum_legw, 64), at(linear_warm, 64)},
      {"x64: LARS falls less than any SGD without SWAP", at(lars, 64), best_sgd},
      {"x64: LARS keeps all but 4 points", at(lars, 64), at(lars, 1) - 4},
  };
  int failed = 0;
  std::printf("\nclaims, with %s\n", all[unscaled].name.c_str());
  for (auto const& c : claims) {
    bool const holds = c.more > c.less;
    failed += !holds;
    std::printf("  %s  %s: %.1f > %.1f\n", holds ? "holds      " : "DOES NOT   ", c.says, c.more, c.less);
  }
  return failed;
}

void write_json(std::string const& path, std::vector<curve*> const& all) {
  std::ofstream out(path);
  out << "{\n  \"train\": " << samples << ", \"test\": " << test_samples << ", \"epochs\": " << epochs
      << ",\n  \"curves\": [";
  char const* comma = "";
  for (auto const* c : all)
    for (std::size_t f = 0; f < factors.size(); ++f) {
      out << comma << "\n    {\"curve\": \"" << c->name << "\", \"batch\": " << base * factors[f]
          << ", \"accuracy\": [";
      for (std::size_t s = 0; s < seeds; ++s) out << (s ? ", " : "") << c->accuracy[f][s];
      out << "]}";
      comma = ",";
    }
  out << "\n  ]\n}\n";
}

void plot(std::string const& stem, std::vector<curve> const& all) {
  std::vector<io::curve> lines;
  for (auto const& c : all) {
    lines.push_back({c.name, {}});
    for (std::size_t f = 0; f < factors.size(); ++f)
      lines.back().points.emplace_back(static_cast<double>(base * factors[f]), c.mean(f));
  }
  io::write_gnuplot(stem, lines,
                    {.title = "The same number of epochs at every batch size",
                     .x = "batch",
                     .y = "test accuracy, %",
                     .log2_x = true,
                     .key = "bottom left"});
  if (auto const drawn = io::run_gnuplot(stem); !drawn.drawn) std::printf("no plot: %s\n", drawn.reason.c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  std::string const argument = argc > 1 ? argv[1] : "bench_optim_large_batch";
  task const t;
  if (argument == "--tune") {
    tune(t);
    return 0;
  }
  auto low = curves(lower), high = curves(upper);
  std::vector<curve*> all;
  for (auto& c : low) all.push_back(&c);
  for (auto& c : high)
    if (&c != &high[lars]) all.push_back(&c);
  spread_out(all.size() * factors.size() * seeds, [&](std::size_t i) {
    std::size_t const s = i % seeds, f = i / seeds % factors.size();
    auto& c = *all[i / seeds / factors.size()];
    auto const batch = base * factors[f];
    if (!c.rate_apart) {
      c.accuracy[f][s] = accuracy(c.used, t.train, t.test, c.rate(batch), batch, 1 + s);
      return;
    }
    auto const found = swap_accuracy(t.train, t.test, {.lr = c.rate(batch), .weight_decay = decay},
                                     {.lr = c.rate_apart(apart_batch(batch)), .weight_decay = decay}, batch, 1 + s);
    c.accuracy[f][s] = found.mean;
    c.members[f][s] = found.members;
  });
  high[lars] = low[lars];
  print(all);
  write_json(argument + ".json", all);
  plot(argument + "_lower", low);
  plot(argument + "_upper", high);
  int const failed = check(low) + check(high);
  return failed ? 1 : 0;
} catch (std::exception const& e) {
  std::fprintf(stderr, "bench_optim_large_batch: %s\n", e.what());
  return 1;
}
