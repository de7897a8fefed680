// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "on_device.hpp"
#include "report.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dovetail/comm/nccl.hpp>
#include <dovetail/comm/self.hpp>
#include <dovetail/comm/threads.hpp>
#ifdef DOVETAIL_EMULATED_NCCL
#include "emulated/nccl_faults.hpp"
#include "emulated/runtime.hpp"
#endif

// comm::nccl against a reference of one element after another; ranks that fail are named. Compiled twice: with the
// emulated CUDA and NCCL ranks are threads of this process, on two devices. With NVIDIA's they are threads where there
// is a device for each, and else processes that share one: this program is started again, once per rank.

namespace {

using namespace dovetail;
using namespace std::chrono_literals;
using comm::reduction;
using comm::traffic;
using test::report;

template <class... Parts>
void expect(bool condition, Parts const&... parts) {
  if (!condition) throw error(message(parts...));
}

// ---- what every rank brings, and what must come of it

std::uint64_t mix(int rank, std::size_t i, std::uint64_t seed) {
  std::uint64_t x =
      (i + 1) * 0x9e3779b97f4a7c15u + (seed * 64 + static_cast<std::uint64_t>(rank)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 30)) * 0x94d049bb133111ebu;
  return x ^ (x >> 29);
}
template <class T>
constexpr bool real =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, fp16> || std::is_same_v<T, bf16>;
/// Sums of real ones are exact in any order, also in bf16: integers up to 9 x 15.
template <class T>
T value(int rank, std::size_t i, std::uint64_t seed) {
  auto const x = mix(rank, i, seed);
  if constexpr (real<T>)
    return T(static_cast<float>(static_cast<int>(x >> 60) - 8));
  else
    return static_cast<T>(x >> 3);
}
template <class T>
std::vector<T> values(int rank, std::size_t n, std::uint64_t seed) {
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = value<T>(rank, i, seed);
  return v;
}
template <class T>
T reduced(reduction how, int ranks, std::size_t i, std::uint64_t seed) {
  T all = value<T>(0, i, seed);
  for (int r = 1; r < ranks; ++r) {
    T const one = value<T>(r, i, seed);
    if constexpr (real<T>) {
      auto const a = static_cast<double>(static_cast<float>(all)), b = static_cast<double>(static_cast<float>(one));
      all = T(static_cast<float>(how == reduction::sum   ? a + b
                                 : how == reduction::min ? std::min(a, b)
                                                         : std::max(a, b)));
    } else if (how == reduction::sum) {
      all = static_cast<T>(static_cast<std::make_unsigned_t<T>>(all) + static_cast<std::make_unsigned_t<T>>(one));
    } else {
      all = how == reduction::min ? std::min(all, one) : std::max(all, one);
    }
  }
  return all;
}

// ---- one rank's part of the conformance

/// The traffic of one operation: what this rank has moved since the last one was looked at.
class counted {
 public:
  explicit counted(comm::nccl& c) : c_(c), before_(c.traffic()) {}
  void expect_bytes(char const* what, std::size_t sent, std::size_t received) {
    auto const now = c_.traffic(), delta = now - before_;
    before_ = now;
    expect(delta == traffic{sent, received, 1}, what, " on rank ", c_.rank(), ": ", delta.bytes_sent,
           " bytes sent and ", delta.bytes_received, " received in ", delta.operations, " operations, not ", sent,
           " and ", received);
  }

 private:
  comm::nccl& c_;
  traffic before_;
};

template <class T>
void expect_same(T const& is, T const& should, char const* what, comm::nccl const& c, std::size_t n, std::size_t i) {
  expect(is == should, what, " of ", n, " x ", sizeof(T), " bytes on ", c.size(), " ranks: element ", i, " of rank ",
         c.rank());
}

template <class T>
void move(comm::nccl& c, std::size_t n, std::uint64_t seed) {
  int const p = c.size(), me = c.rank();
  auto const ranks = static_cast<std::size_t>(p);
  auto const& d = c.device();
  auto const own = shard(n, p, me);
  std::size_t const all_bytes = n * sizeof(T), own_bytes = own.size() * sizeof(T);
  counted count(c);
  {
    std::vector<T> v(n);
    for (auto i = own.begin; i < own.end; ++i) v[i] = value<T>(me, i, seed);
    cuda::device_buffer<T> b(v, d);
    c.all_gather(b);
    auto const got = b.to_host(d);
    for (int r = 0; r < p; ++r)
      for (auto i = shard(n, p, r).begin; i < shard(n, p, r).end; ++i)
        expect_same(got[i], value<T>(r, i, seed), "all_gather", c, n, i);
    count.expect_bytes("all_gather", (ranks - 1) * own_bytes, all_bytes - own_bytes);
  }
  {
    cuda::device_buffer<T> in(values<T>(me, n, seed), d), out(n * ranks, d);
    c.all_gather(in, out);
    auto const got = out.to_host(d);
    for (std::size_t i = 0; i < got.size(); ++i)
      expect_same(got[i], value<T>(static_cast<int>(i / n), i % n, seed), "all_gather out", c, n, i);
    count.expect_bytes("all_gather out", (ranks - 1) * all_bytes, (ranks - 1) * all_bytes);
  }
  {
    cuda::device_buffer<T> in(values<T>(me, n * ranks, seed), d), out(n * ranks, d);
    c.all_to_all(in, out);
    auto const got = out.to_host(d);
    for (std::size_t i = 0; i < got.size(); ++i)
      expect_same(got[i], value<T>(static_cast<int>(i / n), static_cast<std::size_t>(me) * n + i % n, seed),
                  "all_to_all", c, n, i);
    count.expect_bytes("all_to_all", (ranks - 1) * all_bytes, (ranks - 1) * all_bytes);
  }
  for (int const root : {0, p - 1}) {
    cuda::device_buffer<T> b(values<T>(me, n, seed), d);
    c.broadcast(b, root);
    auto const got = b.to_host(d);
    for (std::size_t i = 0; i < n; ++i) expect_same(got[i], value<T>(root, i, seed), "broadcast", c, n, i);
    count.expect_bytes("broadcast", me == root ? (ranks - 1) * all_bytes : 0, me == root ? 0 : all_bytes);
  }
  {
    cuda::device_buffer<T> out(values<T>(me, n, seed), d), in(n, d);
    int const before = (me + p - 1) % p;
    c.sendrecv(out, (me + 1) % p, in, before);
    auto const got = in.to_host(d);
    for (std::size_t i = 0; i < n; ++i) expect_same(got[i], value<T>(before, i, seed), "sendrecv", c, n, i);
    count.expect_bytes("sendrecv", all_bytes, all_bytes);
  }
  if (p > 1 && me < 2) {
    cuda::device_buffer<T> b(values<T>(me, n, seed), d);
    if (me == 0)
      c.send(b, 1);
    else
      c.recv(b, 0);
    auto const got = b.to_host(d);
    for (std::size_t i = 0; i < n; ++i) expect_same(got[i], value<T>(0, i, seed), "send", c, n, i);
    count.expect_bytes("send", me == 0 ? all_bytes : 0, me == 0 ? 0 : all_bytes);
  }
}
template <class T>
void reduce(comm::nccl& c, std::size_t n, std::uint64_t seed) {
  int const p = c.size(), me = c.rank();
  auto const ranks = static_cast<std::size_t>(p);
  auto const& d = c.device();
  auto const own = shard(n, p, me);
  std::size_t const all_bytes = n * sizeof(T), own_bytes = own.size() * sizeof(T);
  counted count(c);
  for (auto const how : {reduction::sum, reduction::min, reduction::max}) {
    cuda::device_buffer<T> b(values<T>(me, n, seed), d);
    c.all_reduce(b, how);
    auto got = b.to_host(d);
    for (std::size_t i = 0; i < n; ++i) expect_same(got[i], reduced<T>(how, p, i, seed), "all_reduce", c, n, i);
    count.expect_bytes("all_reduce", all_bytes - own_bytes + (ranks - 1) * own_bytes,
                       all_bytes - own_bytes + (ranks - 1) * own_bytes);
    b = cuda::device_buffer<T>(values<T>(me, n, seed + 1), d);
    c.reduce_scatter(b, how);
    got = b.to_host(d);
    for (auto i = own.begin; i < own.end; ++i)
      expect_same(got[i], reduced<T>(how, p, i, seed + 1), "reduce_scatter", c, n, i);
    count.expect_bytes("reduce_scatter", all_bytes - own_bytes, (ranks - 1) * own_bytes);
  }
}
template <class T>
void conform(comm::nccl& c, std::uint64_t& seed) {
  auto const p = static_cast<std::size_t>(c.size());
  std::vector<std::size_t> sizes{0, 1, p - 1, p, p + 1, 31, 1001};
  bool const many = c.size() > 5;  // ranks: calls take long, and the host checks more
  if (std::is_same_v<T, float>)
    sizes.push_back(many ? 10007 : 100003);
  else if (many)  // a part that is empty, and parts that are uneven
    sizes = {p - 1, 1001};
  for (std::size_t const n : sizes) {
    ++seed;
    move<T>(c, n, seed);
    if constexpr (comm::detail::nccl_reducible<T>) reduce<T>(c, n, seed);
  }
}
/// Every operation, of every type, of every size.
void conform(comm::nccl& c) {
  std::uint64_t seed = 0;
  conform<float>(c, seed);
  conform<double>(c, seed);
  conform<fp16>(c, seed);
  conform<bf16>(c, seed);
  conform<std::int32_t>(c, seed);
  conform<std::int64_t>(c, seed);
  conform<std::uint8_t>(c, seed);
  conform<std::uint16_t>(c, seed);
  conform<std::uint32_t>(c, seed);
  conform<std::uint64_t>(c, seed);
  conform<std::byte>(c, seed);
  c.barrier();
}
/// Parts, tickets, streams: what is made of a communicator.
void use_parts(comm::nccl& c) {
  int const p = c.size(), me = c.rank();
  auto half = c.split(me % 2, -me);  // in reverse
  int const members = (p + 1 - me % 2) / 2;
  expect(half.size() == members && half.rank() == members - 1 - me / 2, "split: rank ", half.rank(), " of ",
         half.size());
  cuda::device_buffer<float> b(std::vector<float>(10, static_cast<float>(me)), half.device());
  half.all_reduce(b);
  float sum = 0;
  for (int r = me % 2; r < p; r += 2) sum += static_cast<float>(r);
  expect(b.to_host(half.device())[9] == sum, "split: ", b.to_host(half.device())[9], " is not ", sum);
  auto again = c.duplicate();
  expect(again.rank() == me && again.size() == p, "duplicate");
  expect(again.traffic() == traffic{}, "a duplicate's traffic is its own");

  // Work of the caller's before and behind an operation, on streams of its own.
  test::stream const compute(c.device().index), other(c.device().index);
  cuda::device const at{c.device().index, compute.get()};
  cuda::device_buffer<float> x(std::vector<float>(1000, static_cast<float>(me + 1)), at);
  cuda::device_buffer<float> y(1000, at);
  auto const first = c.on(compute.get()).all_reduce(x);
  auto const second = c.on(compute.get()).all_gather(cuda::device_span<float>(x).subspan(0, 1000));
  second.wait_on(other.get());
  cuda::check(cudaMemcpyAsync(y.data(), x.data(), 4000, cudaMemcpyDeviceToDevice, other.get()), "a copy");
  second.wait();
  expect(first.ready() && !first.failed(), "an operation before one that is done is done");
  first.wait();
  cuda::device const behind{c.device().index, other.get()};
  float const expected = static_cast<float>(p * (p + 1) / 2);
  expect(y.to_host(behind)[999] == expected, "wait_on: ", y.to_host(behind)[999], " is not ", expected);
  comm::nccl_ticket{}.wait();
}
void all_of_it(comm::nccl& c) {
  conform(c);
  use_parts(c);
}

// ---- ranks that fail

enum class kind { fine, lost, diverged, comm, other };
struct outcome {
  kind how = kind::fine;
  int blamed = -2;
  std::string what;
  double seconds = 0;
};
template <class F>
outcome outcome_of(F const& f) {
  outcome o;
  auto const since = std::chrono::steady_clock::now();
  try {
    f();
  } catch (rank_lost const& e) {
    o = {kind::lost, e.rank, e.what()};
  } catch (rank_diverged const& e) {
    o = {kind::diverged, e.rank, e.what()};
  } catch (comm_error const& e) {
    o = {kind::comm, e.rank, e.what()};
  } catch (std::exception const& e) {
    o = {kind::other, -2, e.what()};
  }
  o.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  return o;
}
#ifdef DOVETAIL_EMULATED_NCCL

char const* name_of(kind k) {
  constexpr char const* names[] = {"fine", "rank_lost", "rank_diverged", "comm_error", "another exception"};
  return names[static_cast<int>(k)];
}
void expect_outcome(std::string const& name, outcome const& o, kind how, int blamed, std::string const& says = {}) {
  bool const good = o.how == how && o.blamed == blamed && o.what.find(says) != o.what.npos;
  report(good, name,
         good ? std::string()
              : std::string(name_of(o.how)) + ", rank " + std::to_string(o.blamed) + ": '" + o.what + "', not " +
                    name_of(how) + ", rank " + std::to_string(blamed) + ": '" + says + "'");
}

constexpr comm::nccl_options quick{.deadline = 250ms};
constexpr comm::nccl_options unchecked{.deadline = 250ms, .check = false};

/// Which ranks of this case have their outcome.
std::array<std::atomic<bool>, 16> ended;
/// What a rank does that keeps others waiting: until they have given up.
void sleep_until_ended(std::initializer_list<int> ranks) {
  auto const limit = std::chrono::steady_clock::now() + 10s;
  for (int const r : ranks)
    while (!ended[static_cast<std::size_t>(r)] && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(1ms);
}

/// Every rank's outcome of f(communicator); what they are made of waits for `control`.
std::vector<outcome> outcomes(int ranks, comm::nccl_options options, std::chrono::milliseconds control,
                              std::function<void(comm::nccl&)> const& f) {
  std::vector<outcome> all(static_cast<std::size_t>(ranks));
  for (auto& e : ended) e = false;
  comm::threads const world{ranks, {.deadline = control}};
  world.run([&](auto& c) {
    auto const me = static_cast<std::size_t>(c.rank());
    all[me] = outcome_of([&] {
      comm::nccl n{c, options};
      f(n);
    });
    ended[me] = true;
  });
  return all;
}
cuda::device_buffer<float> ones(comm::nccl& c, std::size_t n = 10) { return {std::vector<float>(n, 1.0f), c.device()}; }
void reduce_once(comm::nccl& c, std::size_t n = 10) {
  auto b = ones(c, n);
  c.all_reduce(b);
}
template <class F>
void fault(char const* name, F const& f) {
  test::run_case(name, [&] {
    emulated::nccl_forget();
    f();
    emulated::nccl_forget();
  });
}

void emulated_cases() {
  for (int p = 1; p <= 9; ++p)
    test::run_case("conformance_" + std::to_string(p), [p] {
      comm::threads{p}.run([](auto& control) {
        comm::nccl c{control};
        all_of_it(c);
      });
      report(true, "conformance of " + std::to_string(p) + " ranks");
    });
  test::run_case("self", [] {
    comm::self control;
    comm::nccl c{control};
    all_of_it(c);
    report(true, "one rank, on comm::self");
  });
  for (bool const check : {true, false})
    fault(check ? "slow_queue" : "unchecked", [check] {
      emulated::nccl.polls = 7;
      comm::threads{3}.run([check](auto& control) {
        comm::nccl c{control, {.check = check}};
        std::uint64_t seed = 0;
        conform<float>(c, seed);
        use_parts(c);
      });
      report(true, check ? "NCCL that queues in the background" : "the same, when ranks do not meet before");
    });
  fault("counted_bytes", [] {  // what is counted is what the emulated NCCL moved
    comm::threads{3}.run([](auto& control) {
      comm::nccl c{control};
      auto b = ones(c, 7);
      auto in = ones(c, 12), out = ones(c, 12);
      c.reduce_scatter(b);
      c.all_gather(b);
      c.all_to_all(in, out);
      c.broadcast(b, 1);
      control.barrier();
      auto const moved = emulated::nccl_bytes_sent(c.rank()), counted = c.traffic().bytes_sent;
      expect(moved == counted, "rank ", c.rank(), " counted ", counted, " bytes and moved ", moved);
    });
    report(true, "uneven shards move no byte more than is counted");
  });
  fault("same_device_and_stream", [] {
    comm::threads{2}.run([](auto& control) {
      test::stream const own(1);
      {
        comm::nccl c{control, cuda::device{1, own.get()}};
        expect(c.device().index == 1 && c.device().stream == own.get(), "the caller's device");
        reduce_once(c);
        auto part = c.split(0, c.rank());
        expect(part.device().stream == own.get(), "a part's stream is the caller's");
        reduce_once(part);
      }
    });
    report(true, "ranks on the caller's device and stream");
  });
  fault("capture", [] {
    comm::threads{1}.run([](auto& control) {
      test::stream const own(0);
      comm::nccl c{control, cuda::device{0, {}}};
      auto b = ones(c);
      cuda::check(cudaStreamBeginCapture(own.get(), cudaStreamCaptureModeThreadLocal), "begin");
      auto const o = outcome_of([&] { c.on(own.get()).all_reduce(b); });
      cudaGraph_t graph{};
      cuda::check(cudaStreamEndCapture(own.get(), &graph), "end");
      cuda::check(cudaGraphDestroy(graph), "destroy");
      expect_outcome("a stream that is captured is refused", o, kind::other, -2, "captured");
      expect_outcome("so are sizes that do not fit",
                     outcome_of([&] { c.all_gather(cuda::device_span<float>(b).subspan(0, 3), b); }), kind::other, -2,
                     "out must have 3");
      expect_outcome("and a root that is none", outcome_of([&] { c.broadcast(b, 1); }), kind::other, -2,
                     "there are ranks 0 to 0");
    });
  });

  for (auto const& options : {quick, unchecked}) {
    std::string const how = options.check ? "" : ", unchecked";
    fault(options.check ? "returns" : "returns_unchecked", [&] {
      auto const all = outcomes(3, options, 2s, [](comm::nccl& c) {
        reduce_once(c);
        if (c.rank() != 1) reduce_once(c);
      });
      for (std::size_t const r : {0u, 2u})
        expect_outcome("rank " + std::to_string(r) + " misses one that returned" + how, all[r], kind::lost, 1,
                       "all_reduce(sum) of 10 f32, operation 2 of 3 ranks over NCCL: ");
      report(all[1].how == kind::fine && all[1].seconds < 5, "the one that returned is not held up" + how, all[1].what);
    });
    fault(options.check ? "sleeps" : "sleeps_unchecked", [&] {
      auto const all = outcomes(3, options, 300ms, [](comm::nccl& c) {
        reduce_once(c);
        if (c.rank() == 1) sleep_until_ended({0, 2});
        reduce_once(c);
      });
      for (std::size_t const r : {0u, 2u})
        expect_outcome("rank " + std::to_string(r) + " misses one that sleeps" + how, all[r], kind::lost, 1,
                       "did not come");
      report(all[1].how != kind::fine, "the sleeper is told" + how, all[1].what);
    });
    fault(options.check ? "diverges" : "diverges_unchecked", [&] {
      auto const all = outcomes(3, options, 2s, [](comm::nccl& c) { reduce_once(c, c.rank() == 2 ? 11 : 10); });
      for (std::size_t r = 0; r < 3; ++r)
        expect_outcome("rank " + std::to_string(r) + " sees that rank 2 diverges" + how, all[r], kind::diverged, 2,
                       "rank 2 called all_reduce(sum) of 11 f32");
    });
    fault(options.check ? "hangs" : "hangs_unchecked", [&] {
      emulated::nccl.hanging_rank = 1;
      emulated::nccl.hanging_at = 2;
      auto const all = outcomes(3, options, 2s, [](comm::nccl& c) {
        reduce_once(c);
        reduce_once(c);
      });
      for (std::size_t r = 0; r < 3; ++r)
        expect_outcome("a kernel that hangs is no rank's fault, says rank " + std::to_string(r) + how, all[r],
                       kind::comm, -1, "all ranks came, but it was not done on rank 0, 1, 2");
      report(emulated::nccl_counted().revoked == 3, "what hangs is revoked" + how);
    });
    fault(options.check ? "device_fails" : "device_fails_unchecked", [&] {
      auto const all = outcomes(3, options, 2s, [](comm::nccl& c) {
        reduce_once(c);
        if (c.rank() == 1) emulated::break_device(true);
        reduce_once(c);
        reduce_once(c);
      });
      for (std::size_t r = 0; r < 3; ++r)
        expect_outcome("rank " + std::to_string(r) + " learns of a broken device" + how, all[r], kind::lost, 1,
                       "rank 1 cannot go on: CUDA: refused by the emulated device (cudaErrorIllegalAddress)");
    });
    fault(options.check ? "reports_an_error" : "reports_an_error_unchecked", [&] {
      emulated::nccl.error_rank = 1;
      emulated::nccl.error_at = 1;
      auto const all = outcomes(3, options, 2s, [](comm::nccl& c) {
        reduce_once(c);
        reduce_once(c);
      });
      for (std::size_t r = 0; r < 3; ++r)
        expect_outcome("an error of NCCL on rank 1 reaches rank " + std::to_string(r) + how, all[r], kind::comm, -1,
                       "NCCL failed on rank 1: ncclAllReduce: remote process exited");
    });
  }
  fault("early_and_late", [] {  // one waits for an operation that the others have only queued
    emulated::nccl.hanging_rank = 1;
    emulated::nccl.hanging_at = 1;
    auto const all = outcomes(3, quick, 300ms, [](comm::nccl& c) {
      auto a = ones(c), b = ones(c);
      auto const first = c.start().all_reduce(a);
      if (c.rank() == 0) first.wait();
      c.start().broadcast(b, 0).wait();  // another operation, which is nobody's mistake
    });
    for (std::size_t r = 0; r < 3; ++r)
      expect_outcome("who waits for a device is waited for, says rank " + std::to_string(r), all[r], kind::comm, -1,
                     "it was not done on rank 0 ");
  });
  fault("message_without_receiver", [] {
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) {
      auto b = ones(c);
      if (c.rank() == 0) c.send(b, 1);
      if (c.rank() == 1) sleep_until_ended({0});
    });
    expect_outcome("a message that nobody receives", all[0], kind::lost, 1, "send of 10 f32 to rank 1 on rank 0");
  });
  for (bool const leaves : {true, false})
    fault(leaves ? "exchange_with_one_that_left" : "exchange_with_one_that_sleeps", [leaves] {
      auto const all = outcomes(3, quick, 2s, [leaves](comm::nccl& c) {
        auto out = ones(c), in = ones(c);
        if (c.rank() == 1 && leaves) throw error("out of luck");
        if (c.rank() == 0) c.sendrecv(out, 1, in, 2);
        if (c.rank() == 2) c.send(out, 0);
        if (c.rank() != 0) sleep_until_ended({0});
      });
      expect_outcome(leaves ? "of two peers the one that has left is missed" : "of two peers neither is accused",
                     all[0], kind::lost, leaves ? 1 : -1,
                     "recv of 10 f32 from rank 2 on rank 0: it, or the send to rank 1 with it, was not done for 250");
    });
  fault("exchange_of_nothing_one_way", [] {
    auto const all = outcomes(3, quick, 2s, [](comm::nccl& c) {
      auto out = ones(c);
      if (c.rank() == 0) c.sendrecv(out, 1, cuda::device_span<float>(out).subspan(0, 0), 2);
      if (c.rank() != 0) sleep_until_ended({0});
    });
    expect_outcome("who is asked for nothing is not missed", all[0], kind::lost, 1, "send of 10 f32 to rank 1");
  });
  fault("message_fails", [] {
    emulated::nccl.error_rank = 0;
    emulated::nccl.error_at = 1;
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) {
      auto b = ones(c);
      if (c.rank() == 0) c.send(b, 1);
    });
    expect_outcome("an error of NCCL in a message", all[0], kind::comm, 0,
                   "send of 10 f32 to rank 1 on rank 0: ncclSend: remote process exited");
  });
  fault("first_failure_stands", [] {
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) {
      auto const first = outcome_of([&] { reduce_once(c, c.rank() == 1 ? 4 : 5); });
      auto b = ones(c);
      expect(outcome_of([&] { c.all_reduce(b); }).what == first.what && first.how == kind::diverged, "another failure");
      expect(outcome_of([&] { c.split(0, 0); }).what == first.what, "another failure of split");
      throw error("as it should");
    });
    for (auto const& o : all) expect_outcome("the first failure stands", o, kind::other, -2, "as it should");
  });
  fault("tickets", [] {
    auto const all = outcomes(2, unchecked, 300ms, [](comm::nccl& c) {
      auto b = ones(c);
      if (c.rank() == 0) {
        auto const t = c.start().all_reduce(b);
        expect(!t.ready() && !t.failed(), "a ticket is ready before the others came");
        auto const o = outcome_of([&] { t.wait(); });
        expect(t.ready() && t.failed(), "a failed ticket is ready, and says so");
        expect(outcome_of([&] { t.wait(); }).what == o.what && o.blamed == 1, "a ticket throws the same twice");
        expect(c.traffic().operations == 0, "a failed operation is counted");
      } else {
        sleep_until_ended({0});
      }
    });
    report(all[0].how == kind::fine, "a ticket that fails", all[0].what);
  });
  fault("polled_tickets", [] {  // and never waited for
    auto const all = outcomes(2, {.deadline = 500ms, .check = false}, 2s, [](comm::nccl& c) {
      auto b = ones(c);
      if (c.rank() == 1) throw error("out of luck");
      auto const t = c.start().all_reduce(b);
      auto const until = std::chrono::steady_clock::now() + 3s;
      while (!t.ready() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(1ms);
      expect(t.ready() && t.failed(), "a ticket that is only asked is never late");
      auto const o = outcome_of([&] { t.wait(); });
      expect(o.how == kind::lost && o.blamed == 1, "not lost: ", o.what);
      expect(o.seconds < 0.4, "wait() waits again, for ", o.seconds, " s");
    });
    report(all[0].how == kind::fine, "a ticket that is asked comes to its deadline", all[0].what);
  });
  fault("polled_on_a_broken_device", [] {
    auto const all = outcomes(2, unchecked, 2s, [](comm::nccl& c) {
      auto b = ones(c);
      auto const t = c.start().all_reduce(b);
      if (c.rank() == 0) {
        emulated::break_device(true);
        expect(t.ready() && t.failed(), "a ticket does not know of a broken device");
      }
      t.wait();
      reduce_once(c);
    });
    expect_outcome("a ticket that is asked knows of a broken device", all[0], kind::lost, 0, "rank 0 cannot go on");
  });
  fault("what_is_done_stands", [] {
    auto const all = outcomes(2, unchecked, 2s, [](comm::nccl& c) {
      auto a = ones(c), b = ones(c);
      auto const first = c.start().all_reduce(a);
      cuda::check(cudaStreamSynchronize(c.device().stream), "cudaStreamSynchronize");
      if (c.rank() == 1) return;
      auto const second = c.start().all_reduce(b);
      c.abort("enough");
      expect(!first.failed() && c.traffic().operations == 1, "what was done before the end has failed with it");
      first.wait();
      expect(second.failed(), "and what was not has not");
    });
    report(all[0].how == kind::fine, "what is done is not made undone by a later failure", all[0].what);
  });
  fault("busy_stream", [] {  // the caller's work before an operation is not the operation's time
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) {
      auto const until = std::chrono::steady_clock::now() + 500ms;
      auto b = ones(c);
      emulated::queue_attempt(c.device().stream, [until] { return std::chrono::steady_clock::now() > until; });
      c.all_reduce(b);
    });
    for (auto const& o : all)
      report(o.how == kind::fine && o.seconds > 0.4, "a stream that is busy is waited for", o.what);
  });
  fault("away", [] {
    auto const all = outcomes(2, quick, 250ms, [](comm::nccl& c) {
      if (c.rank() == 0) {
        auto const away = c.away();
        std::this_thread::sleep_for(600ms);
      }
      reduce_once(c);
    });
    for (auto const& o : all) report(o.how == kind::fine, "a rank that is away is waited for", o.what);
  });
  fault("about", [] {
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) {
      c.about({.step = 4 + c.rank(), .bucket = 1});
      reduce_once(c);
    });
    for (auto const& o : all) expect_outcome("ranks at two steps", o, kind::diverged, 1, "step 5, bucket 1");
  });
  fault("construction_fails", [] {
    emulated::nccl.never_rank = 1;
    auto const all = outcomes(3, quick, 1s, [](comm::nccl& c) { reduce_once(c); });
    for (auto const& o : all)
      expect_outcome("a construction that does not end", o, kind::comm, 1, "rank 1 could not join: NCCL is not ready");
    report(emulated::nccl_counted().aborted == 3, "is aborted on all ranks");
  });
  fault("destructor", [] {
    emulated::nccl.abort_hangs = emulated::nccl.revoke_hangs = true;
    emulated::nccl.hanging_rank = 0;
    emulated::nccl.hanging_at = 1;
    auto const all = outcomes(2, quick, 2s, [](comm::nccl& c) { reduce_once(c); });
    for (auto const& o : all) {
      report(o.how == kind::comm && o.blamed == -1, "neither revoked nor aborted", o.what);
      report(o.seconds < 10, "and yet the end comes", std::to_string(o.seconds) + " s");
    }
    report(emulated::nccl_counted().aborted == 0, "while NCCL's does not");
    {
      auto const locked = emulated::lock();
      emulated::nccl.abort_hangs = false;
    }
    auto const limit = std::chrono::steady_clock::now() + 20s;
    while (emulated::nccl_counted().aborted < 2 && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(1ms);
    report(emulated::nccl_counted().aborted == 2, "by other threads");
  });
  fault("exception", [] {
    auto const all = outcomes(3, quick, 2s, [](comm::nccl& c) {
      auto b = ones(c);
      auto const t = c.start().all_reduce(b);
      if (c.rank() == 1) throw error("out of luck");
    });
    expect_outcome("what a rank throws comes out", all[1], kind::other, -2, "out of luck");
    for (auto const& o : all) report(o.seconds < 3, "and holds nobody up", std::to_string(o.seconds) + " s");
    auto const n = emulated::nccl_counted();
    report(n.destroyed + n.aborted == n.made, "no communicator is left");
  });
  fault("others_have_left", [] {  // while a message that is none of theirs is on its way
    std::vector<float> got;
    comm::threads const world{3, {.deadline = 4s}};
    world.run([&](auto& control) {
      cuda::device const at{0, nullptr};
      test::stream const own(0);
      cuda::device_buffer<float> b(std::vector<float>(10, static_cast<float>(control.rank())), at);
      {
        comm::nccl c{control, {0, own.get()}, {.deadline = control.rank() == 2 ? 50ms : 3000ms, .check = false}};
        auto const until = std::chrono::steady_clock::now() + 400ms;
        if (c.rank() == 0) {
          emulated::queue_attempt(own.get(), [until] { return std::chrono::steady_clock::now() > until; });
          static_cast<void>(c.start().send(b, 1));
        }
        if (c.rank() == 1) c.recv(b, 0);
      }
      if (control.rank() == 1) got = b.to_host(at);
    });
    report(got == std::vector<float>(10, 0.0f), "the end waits for what is on its way, though another one has left");
  });
  for (bool const revokes : {true, false})
    fault(revokes ? "shrink" : "shrink_without_revoke", [&] {
      emulated::nccl.revoke_hangs = !revokes;
      auto const all = outcomes(4, quick, 1s, [](comm::nccl& c) {
        reduce_once(c);
        if (c.rank() == 1) throw error("out of luck");
        auto const o = outcome_of([&] { reduce_once(c); });
        expect(o.how == kind::lost && o.blamed == 1, "not lost: ", o.what);
        expect(c.lost_ranks() == std::vector<int>{1}, "lost_ranks");
        auto rest = c.shrink();
        expect(rest.size() == 3 && rest.rank() == c.rank() - (c.rank() > 1), "rank ", rest.rank(), " of ", rest.size());
        auto b = ones(rest);
        rest.all_reduce(b);
        expect(b.to_host(rest.device())[0] == 3, "the sum of those who are left");
        auto again = rest.duplicate();
        reduce_once(again);
      });
      std::string const how = revokes ? ", by NCCL" : ", anew";
      for (std::size_t const r : {0u, 2u, 3u})
        report(all[r].how == kind::fine, "rank " + std::to_string(r) + " goes on with those who are left" + how,
               all[r].what);
      report(emulated::nccl_counted().shrunk == (revokes ? 3u : 0u), "shrunk" + how);
    });
  fault("shrink_by_nobody", [] {
    emulated::nccl.hanging_rank = 1;
    emulated::nccl.hanging_at = 2;
    auto const all = outcomes(3, quick, 1s, [](comm::nccl& c) {
      reduce_once(c);
      expect(outcome_of([&] { reduce_once(c); }).blamed == -1, "it does not hang");
      auto again = c.shrink();
      auto b = ones(again);
      again.all_reduce(b);
      expect(again.size() == 3 && b.to_host(again.device())[0] == 3, "the sum of all");
    });
    for (auto const& o : all) report(o.how == kind::fine, "all ranks begin again after a device that hung", o.what);
  });
  fault("abort", [] {
    auto const all = outcomes(3, quick, 2s, [](comm::nccl& c) {
      reduce_once(c);
      if (c.rank() == 2) return c.abort("the disk is full");
      reduce_once(c);
    });
    for (std::size_t const r : {0u, 1u}) expect_outcome("an end for all", all[r], kind::lost, 2, "the disk is full");
  });
  test::run_case("rendezvous_of_processes", [] {
    std::string const path = "nccl_rendezvous_of_" + std::to_string(getpid());
    std::vector<pid_t> children;
    for (int r = 0; r < 3; ++r) {
      pid_t const child = fork();
      if (child == 0) {
        auto const o = outcome_of([&] {
          comm::detail::nccl_file_control c{{path, r, 3}, 20s};
          for (int k = 0; k < 1000; ++k) {
            std::array<int, 3> all{};
            int const mine = 10 * k + r;
            c.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
            expect(all == std::array{10 * k, 10 * k + 1, 10 * k + 2}, "another time's numbers");
          }
          if (r == 1) kill(getpid(), SIGKILL);
          std::array<int, 3> all{};
          c.all_gather(std::as_bytes(std::span(&r, 1)), std::as_writable_bytes(std::span(all)));
        });
        bool const good = o.how == kind::lost && o.blamed == 1 && o.seconds < 10;
        if (!good) std::printf("rank %d: %s\n", r, o.what.c_str());
        std::fflush(stdout);
        _exit(good ? 0 : 1);
      }
      children.push_back(child);
    }
    // A killed process is one until its parent has waited for it.
    for (std::size_t const r : {1u, 0u, 2u}) {
      int status = 0;
      waitpid(children[r], &status, 0);
      report(r == 1 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0,
             "processes of a file, one of which is killed: rank " + std::to_string(r));
    }
    unlink(path.c_str());
  });
  fault("rendezvous_guards", [] {
    std::string const path = "nccl_rendezvous_guards_" + std::to_string(getpid());
    comm::away_guard guard;
    {
      comm::nccl c{comm::nccl_rendezvous{path, 0, 1}, quick};
      comm::away_guard now = c.away();
      guard = std::move(now);
    }
    guard = {};
    report(true, "a guard outlives the communicator of a file");
  });
  fault("rendezvous_left_over", [] {
    std::string const path = "nccl_rendezvous_left_" + std::to_string(getpid());
    using control = comm::detail::nccl_file_control;
    auto const came = [&](int rank) { return outcome_of([&] { control c{{path, rank, 2}, 1s}; }); };
    expect_outcome("one of two comes, and leaves", came(0), kind::fine, -2);
    expect_outcome("another run's rank 1 does not join it", came(1), kind::comm, 1, "rank 0 came and has left");
    unlink(path.c_str());
    pid_t const child = fork();
    if (child == 0) {
      static_cast<void>(new control{{path, 0, 2}, 1s});
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    expect_outcome("nor one whose process has ended", came(1), kind::comm, 1, "or its process has ended");
    unlink(path.c_str());
  });
  fault("rendezvous_diverges", [] {
    std::string const path = "nccl_rendezvous_diverges_" + std::to_string(getpid());
    std::vector<outcome> all(3);
    {
      std::vector<std::jthread> ranks;
      for (int r = 0; r < 3; ++r)
        ranks.emplace_back([&, r] {
          comm::detail::nccl_file_control c{{path, r, 3}, 2s};
          all[static_cast<std::size_t>(r)] = outcome_of([&] {
            std::vector<std::byte> const in(r == 2 ? 8 : 4);
            std::vector<std::byte> out(3 * in.size());
            c.all_gather(in, out);
          });
        });
    }
    for (auto const& o : all)
      expect_outcome("ranks of a file that bring different things", o, kind::diverged, 2,
                     "rank 2 called all_gather of 8");
    unlink(path.c_str());
  });
  fault("rendezvous", [] {
    std::string const path = "nccl_rendezvous_" + std::to_string(getpid());
    std::vector<outcome> all(3);
    {
      std::vector<std::jthread> ranks;
      for (int r = 0; r < 3; ++r)
        ranks.emplace_back([&, r] {
          all[static_cast<std::size_t>(r)] = outcome_of([&] {
            comm::nccl c{comm::nccl_rendezvous{path, r, 3}, {.deadline = 5s}};
            std::uint64_t seed = 0;
            conform<float>(c, seed);
            use_parts(c);
            if (r == 1) throw error("out of luck");
            reduce_once(c);
          });
        });
    }
    for (std::size_t const r : {0u, 2u})
      expect_outcome("ranks of a file miss one", all[r], kind::lost, 1, "rank 1 has left");
    report(access(path.c_str(), F_OK) != 0, "the last one removes the file");
    auto const late = outcome_of([&] { comm::nccl c{comm::nccl_rendezvous{path, 0, 2}, quick}; });
    expect_outcome("a rank of a file that does not come", late, kind::lost, 1, "rank 1 did not come");
    expect_outcome("a file that was used", outcome_of([&] {
                     comm::nccl c{comm::nccl_rendezvous{path, 0, 2}, quick};
                   }),
                   kind::comm, 0, "has been there");
    unlink(path.c_str());
  });
}

#else

/// Of processes, each of which is this program again.
bool processes(char const* program, int ranks, std::string const& what, int seconds) {
  std::string const path = "/tmp/nccl_rendezvous_" + std::to_string(getpid()) + '_' + what + std::to_string(ranks);
  std::vector<pid_t> children;
  for (int r = 0; r < ranks; ++r) {
    pid_t const child = fork();
    if (child == 0) {
      // NCCL wants one rank for each device of a host; newer ones ask for the second.
      setenv("NCCL_HOSTID", ("host" + std::to_string(r)).c_str(), 1);
      setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
      auto const rank = std::to_string(r), of = std::to_string(ranks);
      execl(program, program, "--rank", rank.c_str(), of.c_str(), path.c_str(), what.c_str(), nullptr);
      _exit(126);
    }
    children.push_back(child);
  }
  bool good = true;
  auto const until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (pid_t const child : children) {
    int status = 0;
    pid_t ended = 0;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(20ms);
    if (ended == 0) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
    }
    good = good && ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  unlink(path.c_str());
  return good;
}
int one_rank(int rank, int ranks, std::string const& path, std::string const& what) {
  auto const o = outcome_of([&] {
    comm::nccl c{comm::nccl_rendezvous{path, rank, ranks}, {.deadline = what == "lost" ? 3000ms : 60000ms}};
    if (what == "conformance") return all_of_it(c);
    cuda::device_buffer<float> b(std::vector<float>(10, 1.0f), c.device());
    c.all_reduce(b);
    if (rank == 1) std::this_thread::sleep_for(8s);
    c.all_reduce(b);
  });
  bool const good = what == "conformance" ? o.how == kind::fine : rank == 1 || (o.how == kind::lost && o.blamed == 1);
  if (!good) std::printf("FAILED  %s, rank %d of %d: %s\n", what.c_str(), rank, ranks, o.what.c_str());
  return good ? 0 : 1;
}
void device_cases(char const* program) {
  int const devices = cuda::device_count();
  test::run_case("conformance_self", [] {
    comm::self control;
    comm::nccl c{control};
    all_of_it(c);
    report(true, "one rank");
  });
  for (int p = 2; p <= 5; ++p)
    test::run_case("conformance_" + std::to_string(p), [&] {
      if (devices >= p) {
        comm::threads{p}.run([](auto& control) {
          comm::nccl c{control};
          all_of_it(c);
        });
        report(true, "conformance of " + std::to_string(p) + " ranks, threads with a device each");
      } else {
        report(processes(program, p, "conformance", 90),
               "conformance of " + std::to_string(p) + " ranks, processes that share devices");
      }
    });
  test::run_case("lost", [&] { report(processes(program, 2, "lost", 40), "a rank that does not come is named"); });
}

#endif

}  // namespace

int main(int argc, char** argv) {
#ifndef DOVETAIL_EMULATED_NCCL
  if (argc == 6 && std::string(argv[1]) == "--rank")
    return dovetail::on_device([&] { return one_rank(std::atoi(argv[2]), std::atoi(argv[3]), argv[4], argv[5]); });
#endif
  test::choose(argc, argv);
  return dovetail::on_device([&] {
#ifdef DOVETAIL_EMULATED_NCCL
    emulated_cases();
#else
    device_cases(argv[0]);
#endif
    return test::conclude();
  });
}
