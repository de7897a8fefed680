// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync/parameter_server.hpp>

#include "../comm/conformance.hpp"

// Logistic regression on a server and workers of unequal speed, of which one may be lost: as a function of one rank.
namespace test {

using namespace dovetail;
using conformance::expect;

/// Points of 8 dimensions and the side of a plane that they are on.
struct points {
  static constexpr std::size_t dimensions = 8, count = 600;
  float x[count][dimensions];
  float y[count];  // 0 or 1

  points() {
    random_stream const random{21};
    for (std::size_t i = 0; i < count; ++i) {
      float side = 0.2f;
      for (std::size_t d = 0; d < dimensions; ++d) {
        x[i][d] = 2 * random.uniform(i * dimensions + d) - 1;
        side += (d % 2 ? 1.f : -1.5f) * x[i][d];
      }
      y[i] = side > 0 ? 1.f : 0.f;
    }
  }
  float predicted(std::span<float const> w, std::size_t i) const {
    float z = w[dimensions];
    for (std::size_t d = 0; d < dimensions; ++d) z += w[d] * x[i][d];
    return 1 / (1 + std::exp(-z));
  }
  double loss(std::span<float const> w) const {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      double const p = static_cast<double>(predicted(w, i));
      sum -= std::log(std::max(1e-9, y[i] > 0 ? p : 1 - p));
    }
    return sum / count;
  }
};

struct outcome {
  double loss = 0;
  sync::service_report served{};
  std::int64_t steps = 0;
};

/// Trains this rank's part. Worker `victim` (a rank) calls die() in its 20th step; -1: nobody. Workers are slower the
/// higher their rank.
template <class Sync, class C, class Die>
outcome train_logistic(Sync const& sync, C& c, int victim, Die die, int steps = 150) {
  points const data;
  arena a({{"w", {points::dimensions}}, {"b", {1}}});
  auto session = sync.join(a.parameters(), optim::adagrad{.lr = 0.3f}, c);
  outcome o;
  if (session.role() == sync::role::serves) {
    expect(session.worker() == -1, "a server is no worker");
    o.served = session.serve();
    o.loss = data.loss(a.weights());
    return o;
  }
  expect(session.worker() == c.rank() - sync.servers && session.workers() == c.size() - sync.servers, "who trains");
  random_stream const random{5, 0, 0, static_cast<std::uint32_t>(c.rank())};
  constexpr int batch = 20;
  for (int s = 0; s < steps; ++s) {
    if (c.rank() == victim && s == 20) die();
    session.begin();
    std::fill(a.gradients().begin(), a.gradients().end(), 0.f);
    float const scale = session.gradient_scale(batch, 0);
    for (int k = 0; k < batch; ++k) {
      auto const i = random.word(static_cast<std::uint64_t>(s * batch + k)) % points::count;
      float const d = (data.predicted(a.weights(), i) - data.y[i]) * scale;
      for (std::size_t j = 0; j < points::dimensions; ++j) a.gradients()[j] += d * data.x[i][j];
      a.gradients()[points::dimensions] += d;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(300 * c.rank()));
    session.ready(0);
    o.steps += !session.step().skipped;
  }
  session.finish();
  o.loss = data.loss(a.weights());
  return o;
}

/// What must be so whether or not a worker is lost.
inline void check_outcome(outcome const& o, bool server, int victim, int workers, int steps, double bound) {
  expect(o.loss < bound, "the loss is ", o.loss, ", not below ", bound);
  if (!server) return expect(o.steps == steps, o.steps, " steps");
  auto const& r = o.served;
  expect(r.lost.size() == (victim >= 0 ? 1u : 0u), r.lost.size(), " workers are lost");
  if (victim >= 0) expect(r.lost[0].rank == victim, "rank ", r.lost[0].rank, " is named: ", r.lost[0].why);
  auto const all = static_cast<std::int64_t>(steps) * (workers - (victim >= 0));
  expect(r.updates >= all && r.updates <= all + (victim >= 0 ? 20 : 0), r.updates, " updates");
  expect(workers == 1 || (r.most_stale > 0 && r.mean_stale > 0), "no gradient was of older weights");
}

}  // namespace test
