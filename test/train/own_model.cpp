// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model that is none of the library's: a line through points, in memory of its own, without any dependency.
#include <cmath>
#include <stdexcept>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/training_loop.hpp>

#include <doctest/doctest.h>

namespace train_own_model {

using namespace dovetail;

namespace {

struct line {
  std::vector<float> w = std::vector<float>(2), g = std::vector<float>(2);
  parameter_list list;
  int fails_on_rank = -1, loses_on_rank = -1;

  line() { bind(); }
  line(line const& o) : w(o.w), g(o.g), fails_on_rank(o.fails_on_rank), loses_on_rank(o.loses_on_rank) { bind(); }
  parameter_list& parameters() { return list; }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (static_cast<int>(pass.rank) == fails_on_rank && pass.step == 2) throw std::runtime_error("no license left");
    loss_sums sums;
    if (!pass.accumulate) g.assign(2, 0.f);
    for (std::size_t i = 0; i < static_cast<std::size_t>(b.size); ++i) {
      float const x = b.values[2 * i], y = b.values[2 * i + 1], error = w[0] * x + w[1] - y;
      g[0] += pass.scale * 2 * error * x;
      g[1] += pass.scale * 2 * error;
      sums.loss += static_cast<double>(error) * static_cast<double>(error);
      ++sums.count;
    }
    if (static_cast<int>(pass.rank) == loses_on_rank && pass.step >= 5) sums.loss = NAN;
    return sums;
  }

 private:
  void bind() { list.add("slope and intercept", w, g); }
};
static_assert(model<line> && !evaluable<line>);

data::in_memory points() {
  std::vector<float> xy;
  for (int i = 0; i < 40; ++i) {
    float const x = static_cast<float>(i) / 20.f - 1.f;
    xy.insert(xy.end(), {x, 3 * x - 0.5f});
  }
  return {xy, std::vector<std::int32_t>(40), 2};
}

/// The loop without the trainer: what somebody does who has ranks of their own already.
float fit_on(int ranks, int fails_on_rank = -1) {
  float slope = 0;
  comm::threads(ranks).run([&](auto& c) {
    line mine;
    mine.fails_on_rank = fails_on_rank;
    train::fit_options const options{.batch = 4, .steps = 200};
    train::training_loop run(mine, optim::momentum{.lr = 0.1f}, sync::all_reduce{}, points(), c, options, 1);
    run.run();
    if (c.rank() == 0) slope = mine.w[0];
  });
  return slope;
}

}  // namespace

TEST_CASE("any type with parameters and gradients is trained, on any number of ranks") {
  for (int ranks : {1, 2, 4}) CHECK(fit_on(ranks) == doctest::Approx(3).epsilon(1e-3));
}

TEST_CASE("a loss that is no number ends the training, though its gradients are finite") {
  comm::threads world(2);
  line model;
  model.loses_on_rank = 1;
  for (std::int64_t log_every : {1, 10}) {
    CHECK_THROWS_WITH_AS(world.run([&](auto& c) {
      line mine(model);
      train::fit_options const options{.batch = 4, .steps = 200, .log_every = log_every, .max_skipped = 3};
      train::training_loop run(mine, optim::momentum{.lr = 0.1f}, sync::all_reduce{}, points(), c, options, 1);
      run.run();
    }),
                         doctest::Contains("the loss was not finite for"), numeric_error);
  }
}

TEST_CASE("an exception in one rank's model ends all ranks with that exception") {
  for (int ranks : {1, 2, 4}) CHECK_THROWS_WITH_AS(fit_on(ranks, ranks - 1), "no license left", std::runtime_error);
}

}  // namespace train_own_model
