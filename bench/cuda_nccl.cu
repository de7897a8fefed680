// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// comm::nccl beside the same calls of NCCL's, on one communicator: what its checks, tickets and deadlines cost. Columns
// are those of NVIDIA's nccl-tests: time, bytes of the array per time, and bytes on the slowest link per time. Ranks
// are threads where there are two devices, else processes that share one, whose times say nothing about a network.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <dovetail/comm/nccl.hpp>
#include <dovetail/comm/threads.hpp>

#include "cuda_program.hpp"

using bench::median;
namespace gpu = dovetail::cuda;
namespace comm = dovetail::comm;

namespace {

constexpr int repetitions = 9, warm_ups = 2;

/// What is measured. Ranks that share a device take turns on it, a few milliseconds each, and speak over a socket:
/// large arrays and many calls would only take long.
struct extent {
  std::string ranks_are;
  std::size_t most_bytes;
  int calls;  ///< in a row, of small arrays
};
extent const with_a_device_each{"threads with a device each", std::size_t{1} << 28, 20};
extent const sharing_a_device{"processes that share one device", std::size_t{1} << 25, 3};

void check(ncclResult_t code, ncclComm_t c) {
  while (code == ncclInProgress) {
    ncclResult_t state = ncclSuccess;
    comm::detail::nccl_check(ncclCommGetAsyncError(c, &state), "ncclCommGetAsyncError", -1, c);
    code = state;
  }
  comm::detail::nccl_check(code, "a call", -1, c);
}

/// A collective by the library and by NCCL, in turns.
struct operation {
  char const* name;
  double factor;  ///< bytes on the slowest link, per byte of the array and of (P - 1) / P
  comm::nccl_ticket (*library)(comm::nccl&, gpu::device_span<float>, gpu::device_span<float>);
  ncclResult_t (*raw)(comm::nccl&, gpu::device_span<float>, gpu::device_span<float>);
};
ncclResult_t raw_all_to_all(comm::nccl& c, gpu::device_span<float> a, gpu::device_span<float> b) {
  std::size_t const chunk = a.size() / static_cast<std::size_t>(c.size());
  ncclGroupStart();
  for (int r = 0; r < c.size(); ++r) {
    ncclSend(a.data() + static_cast<std::size_t>(r) * chunk, chunk, ncclFloat, r, c.handle(), c.device().stream);
    ncclRecv(b.data() + static_cast<std::size_t>(r) * chunk, chunk, ncclFloat, r, c.handle(), c.device().stream);
  }
  return ncclGroupEnd();
}
operation const operations[] = {
    {"all_reduce", 2, [](comm::nccl& c, auto a, auto) { return c.start().all_reduce(a); },
     [](comm::nccl& c, auto a, auto) {
       return ncclAllReduce(a.data(), a.data(), a.size(), ncclFloat, ncclSum, c.handle(), c.device().stream);
     }},
    {"reduce_scatter", 1, [](comm::nccl& c, auto a, auto) { return c.start().reduce_scatter(a); },
     [](comm::nccl& c, auto a, auto) {
       std::size_t const own = a.size() / static_cast<std::size_t>(c.size());
       return ncclReduceScatter(a.data(), a.data() + static_cast<std::size_t>(c.rank()) * own, own, ncclFloat, ncclSum,
                                c.handle(), c.device().stream);
     }},
    {"all_gather", 1, [](comm::nccl& c, auto a, auto) { return c.start().all_gather(a); },
     [](comm::nccl& c, auto a, auto) {
       std::size_t const own = a.size() / static_cast<std::size_t>(c.size());
       return ncclAllGather(a.data() + static_cast<std::size_t>(c.rank()) * own, a.data(), own, ncclFloat, c.handle(),
                            c.device().stream);
     }},
    {"all_to_all", 1, [](comm::nccl& c, auto a, auto b) { return c.start().all_to_all(a, b); }, raw_all_to_all},
    {"broadcast", 1, [](comm::nccl& c, auto a, auto) { return c.start().broadcast(a, 0); },
     [](comm::nccl& c, auto a, auto) {
       return ncclBroadcast(a.data(), a.data(), a.size(), ncclFloat, 0, c.handle(), c.device().stream);
     }},
};

template <class Work>
double seconds_of(comm::nccl& c, Work const& work) {
  c.barrier();
  auto const since = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

/// One rank's part. Rank 0 says what it measured.
void measure(comm::nccl& checked, comm::nccl& unchecked, extent const& e, std::string const& path) {
  std::string const& how = e.ranks_are;
  bool const says = checked.rank() == 0;
  gpu::device const d = checked.device();
  std::optional<bench::figures_file> file;
  if (says) {
    file.emplace(path, path.empty() ? "" : bench::context_of(d, repetitions));
    std::printf("%d ranks, %s; NCCL %d. Medians of %d; GB/s of the array and on the slowest link, of the library.\n",
                checked.size(), how.c_str(), NCCL_VERSION_CODE, repetitions);
    std::printf("%-15s %11s %11s %11s %11s %8s %8s\n", "", "bytes", "NCCL us", "library us", "unchecked", "algbw",
                "busbw");
  }
  std::size_t const ranks = static_cast<std::size_t>(checked.size());
  for (auto const& o : operations)
    for (std::size_t bytes = 1024; bytes <= e.most_bytes; bytes *= 8) {
      std::size_t const n = bytes / 4 / ranks * ranks;
      int const times = bytes < (1u << 20) ? e.calls : std::min(e.calls, 3);
      gpu::device_buffer<float> a(n, d), b(n, d);
      d.wait();
      auto const library = [&](comm::nccl& c) {
        return seconds_of(c, [&] {
          comm::nccl_ticket last;
          for (int k = 0; k < times; ++k) last = o.library(c, a, b);
          last.wait();
        });
      };
      std::vector<double> by_nccl, by_library, by_unchecked;
      for (int r = -warm_ups; r < repetitions; ++r) {
        double const raw = seconds_of(checked, [&] {
          for (int k = 0; k < times; ++k) check(o.raw(checked, a, b), checked.handle());
          d.wait();
        });
        double const ours = library(checked), fast = library(unchecked);
        if (r < 0) continue;
        by_nccl.push_back(raw / times);
        by_library.push_back(ours / times);
        by_unchecked.push_back(fast / times);
      }
      if (!says) continue;
      double const s = median(by_library), array = 4e-9 * static_cast<double>(n) / s;
      double const bus = o.name == std::string("broadcast")
                             ? array
                             : array * o.factor * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
      std::printf("%-15s %11zu %11.1f %11.1f %11.1f %8.2f %8.2f\n", o.name, 4 * n, 1e6 * median(by_nccl), 1e6 * s,
                  1e6 * median(by_unchecked), array, bus);
      std::fflush(stdout);
      file->add(
          "{\"name\": \"%s\", \"ranks\": %zu, \"how\": \"%s\", \"bytes\": %zu, \"nccl_seconds\": %.9g, "
          "\"library_seconds\": %.9g, \"unchecked_seconds\": %.9g, \"algbw_GBps\": %.2f, \"busbw_GBps\": %.2f}",
          o.name, ranks, how.c_str(), 4 * n, median(by_nccl), s, median(by_unchecked), array, bus);
    }
}

int run(std::string const& path, char const* program) {
  int const devices = gpu::device_count();
  if (devices >= 2) {
    comm::threads{devices}.run([&](auto& control) {
      comm::nccl checked{control};
      comm::nccl unchecked{control, checked.device(), {.check = false}};
      measure(checked, unchecked, with_a_device_each, path);
    });
    return 0;
  }
  std::string const meeting = "/tmp/bench_cuda_nccl_" + std::to_string(getpid());
  std::vector<pid_t> children;
  for (char const* const rank : {"0", "1"}) {
    pid_t const child = fork();
    if (child == 0) {
      setenv("NCCL_HOSTID", rank, 1);  // NCCL wants one rank for each device of a host
      setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
      execl(program, program, "--rank", rank, meeting.c_str(), path.c_str(), nullptr);
      _exit(126);
    }
    children.push_back(child);
  }
  int broken = 0;
  for (pid_t const child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    broken += status != 0;
  }
  return broken ? 1 : 0;
}
int one_rank(int rank, std::string const& meeting, std::string const& path) {
  comm::nccl checked{comm::nccl_rendezvous{meeting, rank, 2}};
  comm::nccl unchecked{comm::nccl_rendezvous{meeting + ".unchecked", rank, 2}, checked.device(), {.check = false}};
  measure(checked, unchecked, sharing_a_device, path);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "--rank")
    return dovetail::on_device([&] { return one_rank(std::atoi(argv[2]), argv[3], argv[4]); });
  return bench::main_of("bench_cuda_nccl", argc, argv, [&](std::string const& path) { return run(path, argv[0]); });
}
