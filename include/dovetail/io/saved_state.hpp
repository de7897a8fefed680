// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::io {

/// A copy of named pieces of state that owns its memory: what a run needs to go on later, elsewhere, or on another
/// number of ranks. A value; io/checkpoint.hpp's files are one form of it, a message between ranks another.
class saved_state {
 public:
  struct piece {
    dovetail::dtype type;
    dovetail::shape shape;
    std::vector<std::byte> bytes;
    friend bool operator==(piece const&, piece const&) = default;
  };

  saved_state() = default;
  explicit saved_state(std::vector<named_tensor> const& tensors) { add(tensors); }

  bool empty() const { return pieces_.empty(); }
  /// Words about the state, by name, such as what the run trained with. A checkpoint file has them as its metadata.
  std::map<std::string, std::string> const& notes() const { return notes_; }
  /// Adds a note, or replaces it.
  DOVETAIL_COLD void note(std::string const& name, std::string text) { notes_[name] = std::move(text); }
  std::map<std::string, piece> const& pieces() const { return pieces_; }
  bool contains(std::string const& name) const { return pieces_.contains(name); }
  piece const* find(std::string const& name) const {
    auto const it = pieces_.find(name);
    return it == pieces_.end() ? nullptr : &it->second;
  }
  DOVETAIL_COLD void add(std::string name, piece p) {
    auto const [it, added] = pieces_.emplace(std::move(name), std::move(p));
    require(added, "saved state: '", it->first, "' appears twice: names must be unique");
  }
  /// Copies `tensors`, each name with `prefix` before it.
  DOVETAIL_COLD void add(std::vector<named_tensor> const& tensors, std::string const& prefix = "") {
    for (auto const& t : tensors) add(prefix + t.name, {t.type, t.shape, {t.bytes.begin(), t.bytes.end()}});
  }
  /// Takes over all pieces of `other`, and notes of names that are not here.
  DOVETAIL_COLD void merge(saved_state other) {
    for (auto& [name, p] : other.pieces_) add(name, std::move(p));
    notes_.merge(other.notes_);
  }

  /// Throws checkpoint_error unless every tensor of `into` is here with its dtype and shape, and what counts steps can
  /// be their number.
  DOVETAIL_COLD void check(std::vector<named_tensor> const& into, std::string const& prefix = "") const {
    for (auto const& t : into) {
      auto const* p = find(prefix + t.name);
      require<checkpoint_error>(p, "saved state: there is no '", prefix, t.name,
                                "': it belongs to another model, optimizer or codec");
      require<checkpoint_error>(p->type == t.type && p->shape == t.shape, "saved state: '", prefix, t.name,
                                "' has shape ", p->shape, ", expected ", t.shape,
                                ": it belongs to another model or configuration");
      require<checkpoint_error>(p->bytes.size() == t.bytes.size(), "saved state: '", prefix, t.name, "' of shape ",
                                p->shape, " has ", p->bytes.size(), " bytes, expected ", t.bytes.size());
      for (std::size_t at = 0; t.counts && at < p->bytes.size(); at += sizeof(std::int64_t)) {
        std::int64_t n = 0;
        std::memcpy(&n, p->bytes.data() + at, sizeof n);
        check_count<checkpoint_error>(n, message("saved state: '", prefix, t.name, '\''));
      }
    }
  }
  /// Copies into every tensor of `into`; checks all of them before the first byte changes.
  DOVETAIL_COLD void restore(std::vector<named_tensor> const& into, std::string const& prefix = "") const {
    check(into, prefix);
    for (auto const& t : into)
      if (auto const& p = pieces_.at(prefix + t.name); !p.bytes.empty())
        std::memcpy(t.bytes.data(), p.bytes.data(), p.bytes.size());
  }

  /// Views of all pieces, to be written to a file.
  DOVETAIL_COLD std::vector<named_tensor> tensors() {
    std::vector<named_tensor> all;
    for (auto& [name, p] : pieces_) all.push_back({name, p.type, p.shape, p.bytes});
    return all;
  }

  /// One flat message of the pieces, for a rank of the same program, which has the notes itself.
  DOVETAIL_COLD std::vector<std::byte> pack() const {
    std::vector<std::byte> out;
    auto const put = [&](auto const& v) {
      auto const raw = std::as_bytes(std::span(&v, 1));
      out.insert(out.end(), raw.begin(), raw.end());
    };
    for (auto const& [name, p] : pieces_) {
      put(std::uint64_t{name.size()});
      out.insert(out.end(), reinterpret_cast<std::byte const*>(name.data()),
                 reinterpret_cast<std::byte const*>(name.data() + name.size()));
      put(p.type);
      put(p.shape);
      put(std::uint64_t{p.bytes.size()});
      out.insert(out.end(), p.bytes.begin(), p.bytes.end());
    }
    return out;
  }
  DOVETAIL_COLD static saved_state unpack(std::span<std::byte const> in) {
    saved_state s;
    auto const take = [&](std::size_t n) {
      require<input_error>(n <= in.size(), "saved state: a message of another rank is truncated");
      auto const head = in.first(n);
      in = in.subspan(n);
      return head;
    };
    auto const get = [&](auto& v) { std::memcpy(&v, take(sizeof v).data(), sizeof v); };
    while (!in.empty()) {
      std::uint64_t n = 0;
      get(n);
      auto const name = take(n);
      piece p;
      get(p.type);
      get(p.shape);
      require<input_error>(p.shape.rank >= 0 && p.shape.rank <= shape::max_rank,
                           "saved state: a message of another rank ", "is damaged: it has a tensor of ", p.shape.rank,
                           " dimensions");
      get(n);
      auto const bytes = take(n);
      p.bytes.assign(bytes.begin(), bytes.end());
      s.add(std::string(reinterpret_cast<char const*>(name.data()), name.size()), std::move(p));
    }
    return s;
  }

  friend bool operator==(saved_state const&, saved_state const&) = default;

 private:
  std::map<std::string, piece> pieces_;
  std::map<std::string, std::string> notes_;
};

}  // namespace dovetail::io
