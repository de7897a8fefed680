// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/core/config.hpp>

namespace dovetail::comm::detail {

/// The messages that have been sent to one rank and not yet been received: a queue for each sender and tag, so that one
/// of many that wait is found without looking at the others.
class mailbox {
 public:
  /// False when the mailbox is full.
  DOVETAIL_NOINLINE bool put(int from, int tag, std::span<std::byte const> data, mailbox_limits const& limits) {
    {
      std::lock_guard const lock(mutex_);
      if (!limits.has_room(messages_, bytes_)) return false;
    }
    std::list<message> one;  // made outside of the lock
    one.push_back({0, {data.begin(), data.end()}});
    std::lock_guard const lock(mutex_);
    if (!limits.has_room(messages_, bytes_)) return false;
    auto& queue = queues_[{from, tag}];
    one.front().number = ++numbers_;
    queue.splice(queue.end(), one);
    bytes_ += data.size();
    ++messages_;
    return true;
  }
  std::size_t size() {
    std::lock_guard const lock(mutex_);
    return messages_;
  }
  /// The oldest message from this rank with this tag, or from any rank, with any tag, which stays.
  std::optional<envelope> find(int from, int tag) {
    std::lock_guard const lock(mutex_);
    auto const q = oldest(from, tag);
    if (q == queues_.end()) return std::nullopt;
    return envelope{q->first.first, q->first.second, q->second.front().data.size()};
  }
  /// Takes it out. Empty when there is none.
  std::optional<std::vector<std::byte>> take(int from, int tag) {
    std::lock_guard const lock(mutex_);
    auto const q = oldest(from, tag);
    if (q == queues_.end()) return std::nullopt;
    auto data = std::move(q->second.front().data);
    bytes_ -= data.size();
    --messages_;
    q->second.pop_front();
    if (q->second.empty()) queues_.erase(q);
    return data;
  }

 private:
  struct message {
    std::uint64_t number;  // in the order of arrival
    std::vector<std::byte> data;
  };
  using queues = std::map<std::pair<int, int>, std::list<message>>;  // by (sender, tag); none is empty

  queues::iterator oldest(int from, int tag) {
    if (from != any_rank && tag != any_tag) return queues_.find({from, tag});
    auto found = queues_.end();
    for (auto q = from == any_rank ? queues_.begin() : queues_.lower_bound({from, 0}); q != queues_.end(); ++q) {
      if (from != any_rank && q->first.first != from) break;
      if (tag != any_tag && q->first.second != tag) continue;
      if (found == queues_.end() || q->second.front().number < found->second.front().number) found = q;
    }
    return found;
  }

  std::mutex mutex_;
  queues queues_;
  std::uint64_t numbers_ = 0;
  std::size_t messages_ = 0, bytes_ = 0;
};

}  // namespace dovetail::comm::detail
