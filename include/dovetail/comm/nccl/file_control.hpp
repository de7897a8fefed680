// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/nccl/control.hpp>
#include <dovetail/comm/nccl/options.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// A control communicator of processes of one host, in a file that they map: each has a seat in which it leaves what it
/// brings, and a count of how often it has.
class nccl_file_control final : public nccl_control {
  static constexpr std::size_t room = 1024;
  using clock = std::chrono::steady_clock;
  using count = std::atomic<std::uint32_t>;
  static_assert(count::is_always_lock_free);

  /// Zero at first, as a file is that was made longer.
  struct seat {
    count came;  ///< how often
    count here;  ///< 1: here, 2: has left
    count away;  ///< guards that say so
    count process;
    count bytes[2];  ///< that it brought: of every other time, since nobody is two times ahead
    std::byte brought[2][room];
  };
  struct header {
    count size;      ///< of the group; 0: nobody has come
    count left;      ///< how many have
    count ended_by;  ///< one more than the rank that has
    char why[240];
  };

 public:
  DOVETAIL_COLD nccl_file_control(nccl_rendezvous at, std::chrono::milliseconds deadline)
      : at_(std::move(at)), deadline_(deadline) {
    require(at_.size >= 1 && at_.rank >= 0 && at_.rank < at_.size, "comm::nccl_rendezvous: rank ", at_.rank, " of ",
            at_.size, ": there are ranks 0 to ", at_.size - 1);
    int const file = open(at_.path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
      throw comm_error(message("comm::nccl_rendezvous: '", at_.path, "': ", std::strerror(errno)), at_.rank);
    auto const bytes = sizeof(header) + static_cast<std::size_t>(at_.size) * sizeof(seat);
    struct stat now {};
    bool const good = fstat(file, &now) == 0 &&
                      (now.st_size >= static_cast<off_t>(bytes) || ftruncate(file, static_cast<off_t>(bytes)) == 0);
    void* const map = good ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    int const error = errno;
    close(file);
    if (map == MAP_FAILED)
      throw comm_error(message("comm::nccl_rendezvous: '", at_.path, "': ", std::strerror(error)), at_.rank);
    map_ = std::shared_ptr<void>(map, [bytes](void* p) { munmap(p, bytes); });
    std::uint32_t nobody = 0, absent = 0;
    auto const all = static_cast<std::uint32_t>(at_.size);
    bool const same_size = top().size.compare_exchange_strong(nobody, all) || nobody == all;
    // Nobody leaves before all have come, but where something failed.
    for (int r = 0; same_size && r < at_.size; ++r)
      if (r != at_.rank && gone(r))
        throw comm_error(message("comm::nccl_rendezvous: '", at_.path, "': rank ", r,
                                 " came and has left, or its process has ended, before rank ", at_.rank,
                                 " came: every run needs a path that no earlier one has used"),
                         at_.rank);
    if (!same_size || !mine().here.compare_exchange_strong(absent, 1))
      throw comm_error(
          message("comm::nccl_rendezvous: '", at_.path, "' is of ", nobody ? nobody : all, " ranks, and rank ",
                  at_.rank, " of ", at_.size, " has been there: every run needs a path that no earlier one has used"),
          at_.rank);
    mine().process = static_cast<std::uint32_t>(getpid());
  }
  nccl_file_control(nccl_file_control const&) = delete;
  ~nccl_file_control() override {
    mine().here = 2;
    if (++top().left == static_cast<std::uint32_t>(at_.size)) static_cast<void>(unlink(at_.path.c_str()));
  }

  int rank() const override { return at_.rank; }
  int size() const override { return at_.size; }
  DOVETAIL_COLD void all_gather(std::span<std::byte const> in, std::span<std::byte> out) override {
    require(in.size() <= room, "comm::nccl_rendezvous: ", in.size(), " bytes: there is room for ", room);
    ++times_;
    auto const turn = times_ % 2;
    std::memcpy(mine().brought[turn], in.data(), in.size());
    mine().bytes[turn] = static_cast<std::uint32_t>(in.size());
    mine().came = times_;
    std::vector<call> calls;
    for (int r = 0; r < at_.size; ++r) {
      await(r);
      calls.push_back({operation::all_gather, dtype::u8, reduction::sum, -1, at(r).bytes[turn]});
    }
    if (auto const odd = odd_one_out(calls); odd < calls.size())
      throw rank_diverged(message("comm::nccl_rendezvous: '", at_.path, "': rank ", odd, " called ", calls[odd],
                                  ", rank ", at_.rank, " of ", in.size(), " bytes"),
                          static_cast<int>(odd));
    for (int r = 0; r < at_.size; ++r)
      std::memcpy(out.data() + static_cast<std::size_t>(r) * in.size(), at(r).brought[turn], in.size());
  }
  std::unique_ptr<nccl_control> split(int color, int key) override {
    std::pair<int, int> const wish{color, key};
    std::vector<std::pair<int, int>> all(static_cast<std::size_t>(at_.size));
    all_gather(std::as_bytes(std::span(&wish, 1)), std::as_writable_bytes(std::span(all)));
    nccl_rendezvous part{message(at_.path, '.', times_, '.', color), 0, 0};
    for (int r = 0; r < at_.size; ++r) {
      auto const& other = all[static_cast<std::size_t>(r)];
      if (other.first != color) continue;
      ++part.size;
      part.rank += std::pair(other.second, r) < std::pair(key, at_.rank);
    }
    return std::make_unique<nccl_file_control>(std::move(part), deadline_);
  }
  [[noreturn]] std::unique_ptr<nccl_control> shrink() override {
    throw argument_error(
        "comm::nccl: shrink: ranks of a rendezvous file cannot agree on who is left: use a control "
        "communicator that can, such as comm::mpi");
  }
  std::vector<int> lost_ranks() const override {
    std::vector<int> all;
    for (int r = 0; r < at_.size; ++r)
      if (r != at_.rank && gone(r)) all.push_back(r);
    return all;
  }
  void abort(std::string const& why) override {
    std::snprintf(top().why, sizeof top().why, "%s", why.c_str());
    top().ended_by = static_cast<std::uint32_t>(at_.rank + 1);
  }
  away_guard away() override {
    away_guard guard([own = std::shared_ptr<seat>(map_, &mine())] { --own->away; });
    ++mine().away;
    return guard;
  }

 private:
  header& top() const { return *static_cast<header*>(map_.get()); }
  seat& at(int r) const {
    auto* const seats = static_cast<std::byte*>(map_.get()) + sizeof(header);
    return reinterpret_cast<seat*>(seats)[r];
  }
  seat& mine() const { return at(at_.rank); }
  /// It has left, or its process is no more.
  bool gone(int r) const {
    auto const& s = at(r);
    auto const process = static_cast<pid_t>(s.process.load());
    return s.here == 2 || (s.here == 1 && process != 0 && kill(process, 0) != 0 && errno == ESRCH);
  }
  void await(int r) {
    auto since = clock::now();
    auto const there = [&] { return static_cast<std::int32_t>(at(r).came.load() - times_) >= 0; };
    for (int n = 0; !there(); ++n) {
      if (auto const by = top().ended_by.load(); by != 0)
        throw rank_lost(message("rank ", by - 1, " has ended it: ", top().why), static_cast<int>(by) - 1);
      if (n > 1000) {
        if (gone(r) && !there()) throw rank_lost(message("rank ", r, " has left, or its process has ended"), r);
        if (at(r).away != 0) since = clock::now();
        if (clock::now() - since > deadline_)
          throw rank_lost(message("rank ", r, " did not come for ", deadline_.count(), " ms, the deadline"), r);
        std::this_thread::sleep_for(std::chrono::microseconds(n < 5000 ? 20 : 500));
      } else {
        std::this_thread::yield();
      }
    }
  }

  nccl_rendezvous at_;
  std::chrono::milliseconds deadline_;
  std::shared_ptr<void> map_;  ///< a guard may outlive this
  std::uint32_t times_ = 0;
};

}  // namespace dovetail::comm::detail
