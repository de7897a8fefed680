// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/endpoint.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/threads/mailbox.hpp>
#include <dovetail/core/cores.hpp>

namespace dovetail::comm {

namespace detail {

class self_engine {
 public:
  int rank() const { return 0; }
  int size() const { return 1; }
  bool has_spare_core() const { return usable_cores() > 1; }
  comm::traffic& traffic() { return traffic_; }
  comm::traffic const& traffic() const { return traffic_; }
  subject& about() { return about_; }

  void all_reduce(call const&, std::byte*, ordered_reduce) {}
  void reduce_scatter(call const&, std::byte*, ordered_reduce) {}
  void all_gather(call const& c, std::byte const* in, std::byte* out) {
    if (in != out && c.bytes() != 0) std::memmove(out, in, c.bytes());
  }
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    all.assign(in.begin(), in.end());
    return {0, in.size()};
  }
  void all_to_all(call const& c, std::byte const* in, std::byte* out) { all_gather(c, in, out); }
  void broadcast(call const&, std::byte*) {}
  void send(call const& c, std::byte const* data, int tag) {
    if (!messages_->put(0, tag, {data, c.count}, {}))
      throw comm_error(message(c, ", tag ", tag, ": the mailbox is full: the only rank has not received ",
                               messages_->size(), " messages to itself"),
                       0);
  }
  void recv(call const& c, std::byte* data, int tag) {
    auto const m = messages_->take(0, tag);
    if (!m) throw rank_lost(message(c, ", tag ", tag, ": the only rank has sent itself no such message"), 0);
    if (m->size() != c.count)
      throw rank_diverged(message(c, ", tag ", tag, ": the message has ", m->size(), " bytes"), 0);
    if (c.count != 0) std::memcpy(data, m->data(), c.count);
  }
  envelope receive(call const& c, std::vector<std::byte>& data, int tag) {
    auto const m = wait_message(c, tag);
    data = std::move(*messages_->take(m.from, m.tag));
    return m;
  }
  envelope wait_message(call const& c, int tag) {
    if (auto const m = messages_->find(c.root, tag)) return *m;
    throw rank_lost(message(c, ": the only rank has sent itself no such message"), 0);
  }
  std::optional<envelope> probe(call const& c, int tag) { return messages_->find(c.root, tag); }
  std::vector<int> lost_ranks() const { return {}; }
  self_engine shrink() { return {}; }
  void abort(std::string const& why) {
    throw comm_error(message("the only rank has ended its communicator: ", why), 0);
  }
  void barrier() {}
  self_engine split(int, int) { return {}; }
  away_guard away() { return {}; }

 private:
  comm::traffic traffic_;
  subject about_;
  std::shared_ptr<mailbox> messages_ = std::make_shared<mailbox>();
};

}  // namespace detail

/// The group of one rank: a world that runs a function on the calling thread, and its communicator. For a program that
/// is not distributed (yet), and the reference for the other backends. Copies count their own traffic.
class self : public endpoint<detail::self_engine> {
 public:
  using communicator = self;

  self() : endpoint(detail::self_engine{}) {}

  template <class F>
  void run(F&& f) {
    std::invoke(std::forward<F>(f), *this);
  }
  self split(int color, int key) { return self(endpoint::split(color, key)); }
  self duplicate() { return self(endpoint::duplicate()); }
  self shrink() { return self(endpoint::shrink()); }

 private:
  explicit self(endpoint&& e) : endpoint(std::move(e)) {}
};

}  // namespace dovetail::comm
