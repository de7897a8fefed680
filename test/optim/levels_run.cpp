// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "levels.hpp"

#include <cstdint>

#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>

namespace levels {
namespace {
using namespace dovetail;

void fill(std::span<float> x, std::uint32_t stream) {
  random_stream const r{11, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * r.uniform(i) - 1;
}
template <class Rule>
void go(ways& all, char const* name, Rule rule) {
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  arena a({{"a", {1}}, {"b", {37, 9}}, {"c", {5001}}});
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (std::uint32_t t = 1; t <= 10; ++t) {
    fill(a.gradients(), 100 + t);
    rule.step(a.parameters(), state);
  }
  all.emplace_back(name, std::vector<float>(a.weights().begin(), a.weights().end()));
}
}  // namespace

__attribute__((visibility("default"))) ways LEVEL() {
  ways all;
#define GO(rule) go(all, #rule, optim::rule{});
  GO(sgd)
  GO(momentum)
  GO(nesterov)
  GO(adam)
  GO(adamw) GO(lars) GO(lamb) GO(sign_sgd) GO(signum) GO(lion) GO(qhm) GO(adagrad) GO(adadelta) GO(rmsprop)
      GO(rmsprop_momentum) GO(rmsprop_centred) GO(rprop) GO(adamax) GO(nadam) GO(amsgrad) GO(radam) GO(adabound)
          GO(adabelief) GO(yogi) GO(qhadam) GO(ademamix) GO(adopt) GO(adan) GO(schedule_free_sgd)
              GO(schedule_free_adamw) GO(novograd) GO(larc) GO(lans) GO(prodigy) GO(adafactor) GO(sm3)
                  GO(row_wise_adagrad)
#undef GO
                      return all;
}
}  // namespace levels
