// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Counts what the whole program allocates, so it is a program of its own. Never inlined: GCC would warn of malloc and
// operator delete in one function.
#include <cstddef>
#include <cstdlib>
#include <new>

#include <dovetail/optim.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>

#include <doctest/doctest.h>

namespace {
std::size_t allocations = 0;
}
[[gnu::noinline]] void* operator new(std::size_t n) {
  ++allocations;
  if (void* p = std::malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  ++allocations;
  auto const align = static_cast<std::size_t>(a);
  if (void* p = std::aligned_alloc(align, (n + align - 1) / align * align)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

using namespace dovetail;

TEST_CASE("a step allocates nothing, reductions and groups included") {
  arena a({{"a.weight", {100, 100}}, {"a.bias", {100}}});
  auto& p = a.parameters();
  auto const steps = [&](auto const& opt) {
    auto s = opt.init(p);
    std::size_t const before = allocations;
    opt.step(p, s);
    opt.step(p, s);
    return allocations - before;
  };
  CHECK(steps(optim::adamw{.lr = optim::warmup{.steps = 10, .then = optim::cosine{}}}) == 0);
  CHECK(steps(optim::chain{optim::clip_by_global_norm{}, optim::lamb{}}) == 0);
  CHECK(steps(optim::param_groups{optim::momentum{},
                                  optim::group{optim::rank_below{2}, optim::momentum{.weight_decay = 1}}}) == 0);
}

TEST_CASE("a step of stochastic L-BFGS allocates nothing, whether or not it makes a pair") {
  arena a({{"a.weight", {100, 100}}, {"a.bias", {100}}});
  optim::stochastic_lbfgs const opt{.history = 3, .interval = 2, .signal = 0};
  auto s = opt.init(a.parameters());
  std::size_t const before = allocations;
  for (int t = 1; t <= 14; ++t) {
    for (std::size_t i = 0; i < a.gradients().size(); ++i)
      a.gradients()[i] = a.weights()[i] + static_cast<float>((i * 7 + static_cast<std::size_t>(t)) % 5);
    opt.step(a.parameters(), s);
  }
  CHECK(allocations == before);
  CHECK(s.pairs() == 3);
}
