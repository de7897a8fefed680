// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the optimizer is to decode must be readable in parts, be gradients, and be taken.
// mistakes: 5
// first error 1 gcc: cannot be decoded in parts, which sync::exchange::fused needs.*compress::powersgd
// first error 1 clang: compress::powersgd.*cannot be decoded in parts, which sync::exchange::fused needs
// first error 2 gcc: has ranks add up something else than gradients.*one_bit_adam
// first error 2 clang: one_bit_adam.*has ranks add up something else than gradients
// first error 3 gcc: takes no gradient source, which sync::exchange::fused gives it.*least
// first error 3 clang: least.*takes no gradient source, which sync::exchange::fused gives it
// first error 4 gcc: is exchanged by parts, which the optimizer cannot decode.*compress::after
// first error 4 clang: compress::after.*is exchanged by parts, which the optimizer cannot decode
// first error 5 gcc: is exchanged by parts, which the optimizer cannot decode.*compress::automatic
// first error 5 clang: compress::automatic.*is exchanged by parts, which the optimizer cannot decode
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
compress::powersgd const codec_of_mine{};
#elif FAIL == 4
compress::after const codec_of_mine{10, compress::fp16{}, compress::int8{}};
#elif FAIL == 5
compress::automatic const codec_of_mine{compress::fp16{}, compress::int8{}};
#else
compress::int8 const codec_of_mine{};
#endif
#if FAIL == 2
using optimizer_type = sync::one_bit_adam;
#elif FAIL == 3
using optimizer_type = least;
#else
using optimizer_type = optim::adamw;
#endif

void train(parameter_list& parameters, optimizer_type const& opt, comm::self& c) {
  auto session = sync::all_reduce{codec_of_mine, sync::exchange::fused{}}.join(parameters, opt, c);
  session.step();
}
