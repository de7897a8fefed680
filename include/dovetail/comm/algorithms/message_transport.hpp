// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>

namespace dovetail::comm::detail {

/// A transport over the messages of a communicator that nobody else uses. A message's tag is a digest of the call and
/// its number: a rank that is in another call is noticed by the first message, but for one of 32767. The first rank
/// that fails says so to all others, so that a rank which waits for a rank which waits for a lost one learns the
/// reason, and not at its deadline.
template <class C>
class message_transport {
  static constexpr bool any = requires(C & c, std::vector<std::byte>& v) {
    c.probe(0, any_tag);
    c.recv(v, 0, any_tag);
  };
  static constexpr int notice = 32767;

 public:
  explicit message_transport(C messages) : messages_(std::move(messages)) {}
  C& messages() { return messages_; }
  C const& messages() const { return messages_; }

  /// Throws what an earlier call failed of.
  void check() const {
    if (failed_) std::rethrow_exception(failed_);
  }
  /// Of which call the next messages are.
  void begin(call const& c) {
    call_ = c;
    fingerprint f;
    f.add(static_cast<int>(c.op)).add(static_cast<int>(c.type)).add(static_cast<int>(c.how)).add(c.root).add(c.count);
    f.add(c.about.step).add(c.about.bucket).add(++number_);
    tag_ = static_cast<int>(f.value() % notice);
  }
  /// In a handler: what is caught ends the transport, and is told to the others.
  void fail() {
    failed_ = std::current_exception();
    try {
      throw;
    } catch (rank_diverged const& e) {
      tell(1, e.rank, e.what());
    } catch (comm_error const& e) {
      tell(0, e.rank, e.what());
    } catch (...) {  // the caller's affair: the rank will throw it, and be lost by that
    }
  }

  void send(int to, std::byte const* data, std::size_t size) { messages_.send(std::span(data, size), to, tag_); }
  void recv(int from, std::byte* data, std::size_t size) {
    if constexpr (any) {
      if (try_recv(from, data, size)) return;
      auto const m = messages_.recv(bytes_, from, any_tag);
      check(m, size, bytes_);
      std::memcpy(data, bytes_.data(), size);
    } else {
      messages_.recv(std::span(data, size), from, tag_);
    }
  }
  bool try_recv(int from, std::byte* data, std::size_t size) {
    if constexpr (any) {
      auto const m = messages_.probe(from, any_tag);
      if (!m) return false;
      if (m->tag != tag_ || m->bytes != size) {
        messages_.recv(bytes_, from, m->tag);
        check(*m, size, bytes_);
      }
      messages_.recv(std::span(data, size), from, tag_);
    } else {
      messages_.recv(std::span(data, size), from, tag_);
    }
    return true;
  }

 private:
  struct told {
    std::int32_t diverged, rank;
  };
  void check(envelope const& m, std::size_t size, std::vector<std::byte> const& bytes) const {
    if (m.tag == notice && bytes.size() >= sizeof(told)) {
      told t{};
      std::memcpy(&t, bytes.data(), sizeof t);
      std::string const text(reinterpret_cast<char const*>(bytes.data()) + sizeof t, bytes.size() - sizeof t);
      auto const what = message(call_, ": rank ", m.from, " has given up: ", text);
      if (t.diverged != 0) throw rank_diverged(what, t.rank);
      throw rank_lost(what, t.rank);
    }
    if (m.tag != tag_ || m.bytes != size)
      throw rank_diverged(
          message(
              call_, ": rank ", m.from, " is in another operation, or in it with another size",
              m.bytes == size ? std::string() : message(": its message has ", m.bytes, " bytes in place of ", size)),
          m.from);
  }
  void tell(std::int32_t diverged, std::int32_t rank, std::string const& text) {
    std::vector<std::byte> bytes(sizeof(told) + text.size());
    told const t{diverged, rank};
    std::memcpy(bytes.data(), &t, sizeof t);
    if (!text.empty()) std::memcpy(bytes.data() + sizeof t, text.data(), text.size());
    for (int r = 0; r < messages_.size(); ++r) {
      if (r == messages_.rank() || r == rank) continue;
      try {
        messages_.send(std::span<std::byte const>(bytes), r, notice);
      } catch (error const&) {  // it is gone, or there is no room: it finds out by itself
      }
    }
  }

  C messages_;
  call call_;
  std::uint64_t number_ = 0;
  int tag_ = 0;
  std::vector<std::byte> bytes_;
  std::exception_ptr failed_;
};

}  // namespace dovetail::comm::detail
