// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the optimizer is to decode must be readable in parts, be gradients, and be taken.
// mistakes: 3
// first error 1 gcc: cannot be decoded in parts, which sync::exchange::fused needs.*compress::powersgd
// first error 1 clang: compress::powersgd.*cannot be decoded in parts, which sync::exchange::fused needs
// first error 2 gcc: has ranks add up something else than gradients.*one_bit_adam
// first error 2 clang: one_bit_adam.*has ranks add up something else than gradients
// first error 3 gcc: takes no gradient source, which sync::exchange::fused gives it.*least
// first error 3 clang: least.*takes no gradient source, which sync::exchange::fused gives it
#include <string>
#include <vector>

#include <dovetail/comm/self.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

struct least {
  struct state {
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  state init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const&, state&) const { return {}; }
};
#if FAIL == 1
using codec_type = compress::powersgd;
#else
using codec_type = compress::int8;
#endif
#if FAIL == 2
using optimizer_type = sync::one_bit_adam;
#elif FAIL == 3
using optimizer_type = least;
#else
using optimizer_type = optim::adamw;
#endif

void train(parameter_list& parameters, optimizer_type const& opt, comm::self& c) {
  auto session = sync::all_reduce{codec_type{}, sync::exchange::fused{}}.join(parameters, opt, c);
  session.step();
}
