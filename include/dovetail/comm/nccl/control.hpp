// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/away.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// What NCCL's ranks ask of a communicator of the host's, whatever that is: to meet, to compare, to say who is missing.
class nccl_control {
 public:
  virtual ~nccl_control() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void all_gather(std::span<std::byte const> in, std::span<std::byte> out) = 0;
  virtual std::unique_ptr<nccl_control> split(int color, int key) = 0;
  virtual std::unique_ptr<nccl_control> shrink() = 0;
  virtual std::vector<int> lost_ranks() const = 0;
  virtual void abort(std::string const& why) = 0;
  virtual away_guard away() = 0;
};

/// Any communicator, held by value.
template <class C>
class nccl_control_of final : public nccl_control {
 public:
  explicit nccl_control_of(C c) : c_(std::move(c)) {}
  int rank() const override { return c_.rank(); }
  int size() const override { return c_.size(); }
  void all_gather(std::span<std::byte const> in, std::span<std::byte> out) override { c_.all_gather(in, out); }
  std::unique_ptr<nccl_control> split(int color, int key) override { return of(c_.split(color, key)); }
  std::unique_ptr<nccl_control> shrink() override {
    if constexpr (requires(C & c) { c.shrink(); })
      return of(c_.shrink());
    else
      throw argument_error("comm::nccl: shrink: the control communicator has no shrink()");
  }
  std::vector<int> lost_ranks() const override {
    if constexpr (requires(C const& c) { c.lost_ranks(); })
      return c_.lost_ranks();
    else
      return {};
  }
  void abort(std::string const& why) override {
    if constexpr (requires(C & c) { c.abort(why); }) c_.abort(why);
  }
  away_guard away() override { return c_.away(); }

 private:
  template <class D>
  static std::unique_ptr<nccl_control> of(D d) {
    return std::make_unique<nccl_control_of<D>>(std::move(d));
  }
  C c_;
};

/// What has these can be a control communicator; dovetail::communicator asks for them, and more.
template <class C>
concept nccl_controls = requires(C& c, std::span<std::byte const> in, std::span<std::byte> out) {
  { c.rank() } -> std::same_as<int>;
  { c.size() } -> std::same_as<int>;
  c.all_gather(in, out);
  c.split(0, 0);
  c.away();
};

}  // namespace dovetail::comm::detail
