// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <optional>
#include <type_traits>
#include <utility>

#include <dovetail/compress/traits.hpp>

namespace dovetail::compress {

/// A codec's state that can be taken back to what it was when `begin` was called: by the codec's own commit and
/// rollback, or by a copy. A state without data members needs neither.
template <class Codec>
class revocable {
  using traits = codec_traits<Codec>;

 public:
  using state_type = typename traits::state_type;

  explicit revocable(state_type s) : now_(std::move(s)) {}

  state_type& state() { return now_; }
  state_type const& state() const { return now_; }

  /// What follows can be taken back; what came before cannot any more.
  void begin(Codec const& codec) {
    if (open_) commit(codec);
    if constexpr (copies) before_ = now_;  // into memory that is there already, but for the first time
    open_ = true;
  }
  /// For a codec that decodes into the state: as begin, unless it has begun. Of what other ranks encode there may be no
  /// encode that would.
  void open(Codec const& codec) {
    if (!open_) begin(codec);
  }
  void commit(Codec const& codec) {
    if constexpr (traits::takes_back)
      if (open_) codec.commit(now_);
    open_ = false;
  }
  void rollback(Codec const& codec) {
    if (!std::exchange(open_, false)) return;
    if constexpr (traits::takes_back)
      codec.rollback(now_);
    else if constexpr (copies)
      now_ = *before_;
  }
  /// States are equal if what will be encoded next is: what could be taken back does not count.
  friend bool operator==(revocable const& a, revocable const& b) requires(std::equality_comparable<state_type>) {
    return a.now_ == b.now_;
  }

 private:
  static constexpr bool copies = !traits::takes_back && !std::is_empty_v<state_type>;
  struct nothing {};

  state_type now_;
  std::conditional_t<copies, std::optional<state_type>, nothing> before_{};
  bool open_ = false;
};

}  // namespace dovetail::compress
