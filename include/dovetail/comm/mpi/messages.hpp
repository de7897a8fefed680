// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/mpi/transfers.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// And its messages from one rank to another, which are queued where they go.
class mpi_messages : public mpi_transfers {
 public:
  using mpi_transfers::mpi_transfers;

  /// A message begins with its length; what fits goes with that, the rest follows in pieces.
  void send(call const& c, std::byte const* data, int tag) {
    guarded(c, [&](call const&) {
      wait_for_room(c);
      auto copy = std::make_unique<std::byte[]>(sizeof(std::uint64_t) + c.count);
      std::uint64_t const n = c.count;
      std::memcpy(copy.get(), &n, sizeof n);
      if (c.count != 0) std::memcpy(copy.get() + sizeof n, data, c.count);
      std::size_t const end = sizeof n + c.count;
      std::vector<mpi_wire::piece> pieces{{0, std::min(end, first_piece())}};
      while (pieces.back().end < end)
        pieces.push_back({pieces.back().end, std::min(end, pieces.back().end + options.largest_message)});
      watch_.wire->post(mpi_wire::messages, c.root, tag, std::move(copy), pieces);
      watch_.wire->progress();
    });
  }

  /// Of receiving: what a rank has sent is there for it, also when the rank is lost. So nothing is asked before.
  void recv(call const& c, std::byte* data, int tag) {
    may_call(c);
    if (auto const m = pulled(c.root, tag); m != pulled_.end()) {
      if (m->data.size() != c.count)
        watch_.diverged(c.root, c,
                        message("the message with tag ", tag, " has ", m->data.size(), " bytes, not ", c.count));
      if (c.count != 0) std::memcpy(data, m->data.data(), c.count);
      take(m);
      return;
    }
    guarded(c, [&](call const&) {
      int n = 0;
      while (n == 0) {
        MPI_Status status{};
        int there = 0;
        watch_.wait_until(
            c, -1,
            [&] {
              mpi_check(MPI_Iprobe(c.root, tag, watch_.wire->on(mpi_wire::messages), &there, &status), "MPI_Iprobe",
                        c.root);
              return there != 0;
            },
            [&] { return std::vector<int>{c.root}; }, mpi_watch::sleeper{});
        mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count", c.root);
        first_.resize(static_cast<std::size_t>(n));
        receive(c, tag, first_.data(), first_.size());
        if (n == 0) watch_.said_farewell(c.root);
      }
      std::uint64_t total = 0;
      std::memcpy(&total, first_.data(), std::min(sizeof total, first_.size()));
      if (total != c.count || first_.size() < sizeof total || first_.size() - sizeof total > total)
        watch_.diverged(c.root, c, message("the message with tag ", tag, " has ", total, " bytes, not ", c.count));
      std::size_t const have = first_.size() - sizeof total;
      if (have != 0) std::memcpy(data, first_.data() + sizeof total, have);
      if (have < c.count) receive(c, tag, data + have, c.count - have);
      watch_.acknowledge(c.root, sizeof total + c.count);
    });
  }

  /// MPI does not say how long a message of several pieces is, so it is pulled out when it is found.
  std::optional<envelope> probe(call const& c, int tag) {
    may_call(c);
    std::optional<envelope> found;
    guarded(c, [&](call const&) {
      watch_.read_notices();
      found = find(c, tag);
      if (!found) watch_.go_on(c);
    });
    return found;
  }
  envelope wait_message(call const& c, int tag, bool hurry) {
    may_call(c);
    std::optional<envelope> found;
    guarded(c, [&](call const&) {
      watch_.wait_for_message(
          c, [&] { return (found = find(c, tag)).has_value(); },
          hurry ? watch_.deadline() : mpi_clock::duration(std::chrono::hours(24 * 365)));
    });
    return *found;
  }
  envelope receive(call const& c, std::vector<std::byte>& data, int tag) {
    auto const e = wait_message(c, tag, true);
    auto const m = pulled(e.from, e.tag);
    data = std::move(m->data);
    m->data.resize(e.bytes);
    take(m);
    return e;
  }
  std::vector<int> lost_ranks() {
    if (!family_->off_limits() && !mpi_is_over()) try {
        watch_.read_notices();
      } catch (comm_error const&) {
        static_cast<void>(0);  // as far as it is known
      }
    std::vector<int> all;
    for (int r = 0; r < size(); ++r)
      if (r != rank() && watch_.is_gone(r)) all.push_back(r);
    return all;
  }

 protected:
  ~mpi_messages() = default;

 private:
  struct message_here {
    int from, tag;
    std::vector<std::byte> data;
  };
  using messages_here = std::list<message_here>;
  messages_here::iterator pulled(int from, int tag) {
    return std::find_if(pulled_.begin(), pulled_.end(), [&](message_here const& m) {
      return (from == any_rank || m.from == from) && (tag == any_tag || m.tag == tag);
    });
  }
  void take(messages_here::iterator m) {
    int const from = m->from;
    std::size_t const bytes = sizeof(std::uint64_t) + m->data.size();
    pulled_.erase(m);
    try {
      watch_.acknowledge(from, bytes);
    } catch (comm_error const&) {
      return;  // its sender cannot be told any more
    }
  }
  /// A message that has been pulled out, or that can be.
  std::optional<envelope> find(call const& c, int tag) {
    for (;;) {
      if (auto const m = pulled(c.root, tag); m != pulled_.end()) return envelope{m->from, m->tag, m->data.size()};
      int there = 0, n = 0;
      MPI_Status status{};
      mpi_check(MPI_Iprobe(c.root == any_rank ? MPI_ANY_SOURCE : c.root, tag == any_tag ? MPI_ANY_TAG : tag,
                           watch_.wire->on(mpi_wire::messages), &there, &status),
                "MPI_Iprobe", c.root);
      if (!there) return std::nullopt;
      mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count", status.MPI_SOURCE);
      call const from{operation::recv, dtype::u8, reduction::sum, status.MPI_SOURCE, static_cast<std::size_t>(n)};
      first_.resize(static_cast<std::size_t>(n));
      receive(from, status.MPI_TAG, first_.data(), first_.size());
      if (n == 0) {
        watch_.said_farewell(status.MPI_SOURCE);
        continue;
      }
      // What a rank sends behind a message that was not received to its end cannot be told apart any more.
      cut_.resize(static_cast<std::size_t>(size()));
      auto& cut = cut_[static_cast<std::size_t>(status.MPI_SOURCE)];
      if (cut) continue;
      std::uint64_t total = 0;
      std::memcpy(&total, first_.data(), std::min(sizeof total, first_.size()));
      std::size_t const have = first_.size() - std::min(sizeof total, first_.size());
      if (first_.size() < sizeof total || have > total)
        watch_.diverged(status.MPI_SOURCE, c,
                        message("a message of ", first_.size(), " bytes says that it has ", total));
      incoming_.resize(total);  // a member: MPI may still write there when this fails
      if (have != 0) std::memcpy(incoming_.data(), first_.data() + sizeof total, have);
      cut = have < total;
      if (have < total) receive(from, status.MPI_TAG, incoming_.data() + have, total - have);
      cut = false;
      pulled_.push_back({status.MPI_SOURCE, status.MPI_TAG, std::move(incoming_)});
      incoming_.clear();
    }
  }
  std::size_t first_piece() const { return std::min<std::size_t>(options.largest_message, 65536); }
  void receive(call const& c, int tag, std::byte* data, std::size_t n) {
    flows_.emplace_back(watch_.wire->on(mpi_wire::messages), mpi_flow::receives, c.root, tag, data, n,
                        options.largest_message, false);
    complete(c, -1);
  }

  void wait_for_room(call const& c) {
    auto& wire = *watch_.wire;
    auto const there = [&] { return wire.unreceived(); };
    auto const room = [&] { return options.mailbox.has_room(there().messages, there().bytes); };
    if (room()) return;
    watch_.read_notices();
    if (room() && !watch_.broken()) return;
    std::string const full = message("the mailbox is full: ", there().messages, " messages of ", there().bytes,
                                     " bytes are not received (mpi_options::mailbox)");
    if (c.root == rank()) throw comm_error(full, rank());
    watch_.wait_until(
        c, -1, room, [&] { return wire.late_receivers(); }, mpi_watch::sleeper{}, full.c_str());
  }

  messages_here pulled_;
  std::vector<char> cut_;  // of ranks: a message of theirs was not received to its end
};

}  // namespace dovetail::comm::detail
