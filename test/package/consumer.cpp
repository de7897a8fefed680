// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a program outside the house does: weights of its own, one step. Plain flags, no component.
#include <dovetail/concepts.hpp>
#include <dovetail/optim.hpp>

#include <array>
#include <cstdio>

int main() {
  std::array<float, 3> weights{1, 2, 3}, gradients{1, -1, 0};
  dovetail::parameter_list parameters;
  parameters.add("w", weights, gradients);
  dovetail::optim::adamw const opt{.lr = 0.1f};
  static_assert(dovetail::optimizer<dovetail::optim::adamw>);
  auto state = opt.init(parameters);
  opt.step(parameters, state);
  std::printf("%g %g %g\n", static_cast<double>(weights[0]), static_cast<double>(weights[1]),
              static_cast<double>(weights[2]));
  return weights[0] < 1 && weights[1] > 1.99f ? 0 : 1;
}
