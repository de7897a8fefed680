// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No memory on the threads of ranks, from their first moment on: run() throws it, and nothing ends the process.
#include <dovetail/comm/threads.hpp>
#include <dovetail/core/config.hpp>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace {

std::atomic<bool> exhausted{false};
std::thread::id const main_thread = std::this_thread::get_id();

void* take(std::size_t n) {
  if (exhausted && std::this_thread::get_id() != main_thread) throw std::bad_alloc();
  if (void* const p = std::malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}

// Not inline: GCC would warn of free() where it has not seen that `new` is malloc().
DOVETAIL_NOINLINE void give_back(void* p) { std::free(p); }

}  // namespace

void* operator new(std::size_t n) { return take(n); }
void* operator new[](std::size_t n) { return take(n); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p); }

using namespace dovetail;

TEST_CASE("out of memory on a rank's thread is thrown from run(), and the world works again afterwards") {
  comm::threads const world(3);
  exhausted = true;
  bool thrown = false;
  try {
    world.run([](auto& c) {
      std::vector<float> values(1000, static_cast<float>(c.rank()));
      c.all_reduce(std::span(values), comm::reduction::sum);
    });
  } catch (std::bad_alloc const&) {
    thrown = true;
  }
  exhausted = false;
  CHECK(thrown);
  std::atomic<int> ranks{0};
  world.run([&](auto& c) {
    float one = 1;
    c.all_reduce(std::span(&one, 1), comm::reduction::sum);
    ranks += one == 3.f;
  });
  CHECK(ranks == 3);
}
