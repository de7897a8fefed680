// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/core/config.hpp>

namespace dovetail::comm::detail {

/// The messages that have been sent to one rank and not yet been received, in the order of their arrival.
class mailbox {
 public:
  /// False when the mailbox is full.
  DOVETAIL_NOINLINE bool put(int from, int tag, std::span<std::byte const> data, mailbox_limits const& limits) {
    {
      std::lock_guard const lock(mutex_);
      if (!limits.has_room(messages_.size(), bytes_)) return false;
    }
    message m{from, tag, {data.begin(), data.end()}};
    std::lock_guard const lock(mutex_);
    if (!limits.has_room(messages_.size(), bytes_)) return false;
    bytes_ += data.size();
    messages_.push_back(std::move(m));
    return true;
  }
  std::size_t size() {
    std::lock_guard const lock(mutex_);
    return messages_.size();
  }
  /// Takes out the oldest message of `from` with this tag. Empty when there is none.
  std::optional<std::vector<std::byte>> take(int from, int tag) {
    std::lock_guard const lock(mutex_);
    for (auto m = messages_.begin(); m != messages_.end(); ++m)
      if (m->from == from && m->tag == tag) {
        auto data = std::move(m->data);
        bytes_ -= data.size();
        messages_.erase(m);
        return data;
      }
    return std::nullopt;
  }

 private:
  struct message {
    int from, tag;
    std::vector<std::byte> data;
  };
  std::mutex mutex_;
  std::list<message> messages_;
  std::size_t bytes_ = 0;
};

}  // namespace dovetail::comm::detail
