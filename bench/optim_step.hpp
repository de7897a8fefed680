// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <memory>

#include <dovetail/core/parameters.hpp>

// The same optimizers built several times: by hand with the compiler's best flags, and from the library with and
// without flags. Each build is a shared library of its own, so that the linker cannot merge their inline functions.
namespace bench {

enum class rule { sgd, momentum, adam, adamw, adamw_by_name, clipped_adamw, lars, lamb, six_stages };

/// One optimizer with its state, bound to parameters.
struct stepper {
  virtual ~stepper() = default;
  virtual void step() = 0;
};

std::unique_ptr<stepper> make_library_plain(rule, dovetail::parameter_list const&, int threads);   // -O2
std::unique_ptr<stepper> make_library_native(rule, dovetail::parameter_list const&, int threads);  // -O3 -march=native
std::unique_ptr<stepper> make_by_hand(rule, dovetail::parameter_list const&);                      // -O3 -march=native

}  // namespace bench
