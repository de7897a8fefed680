// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/core/cuda.hpp>

namespace dovetail::optim::cuda {

/// Learning rates of the steps `base` to `base + count`: schedules are functions of the host, the device reads them
/// here. A count of 0 is one rate for all steps.
struct rate_table {
  static constexpr std::int64_t room = 1024;
  std::int64_t base = 0, count = 0;
  std::array<float, room> value{};
};

/// The rates that the device has been given, one table for every group of hyperparameters and stage with a rate, and a
/// copy of them.
class sent_rates {
 public:
  sent_rates() = default;
  sent_rates(std::size_t tables, dovetail::cuda::device const& d) : host_(tables), device_(tables, d) {}

  /// True if the device has the rate that step `t` needs. `rate(t)` is the table's.
  template <class Rate>
  bool has(std::size_t table, bool varies, std::int64_t t, Rate const& rate) const {
    auto const& h = host_[table];
    if (!known_) return false;
    if (!varies) return h.count == 0 && h.value[0] == rate(1);
    std::int64_t const i = t - 1 - h.base;
    return i >= 0 && i < h.count && h.value[static_cast<std::size_t>(i)] == rate(t);
  }
  /// Notes the rates from step t on; `send` gives them to the device.
  template <class Rate>
  void note(std::size_t table, bool varies, std::int64_t t, Rate const& rate) {
    auto& h = host_[table];
    h.base = t - 1;
    h.count = varies ? rate_table::room : 0;
    h.value[0] = rate(varies ? t : 1);
    for (std::int64_t i = 1; i < h.count; ++i) h.value[static_cast<std::size_t>(i)] = rate(t + i);
  }
  void send(dovetail::cuda::device const& d) {
    if (!host_.empty()) device_.upload(d, host_);
    known_ = true;
  }
  void forget() { known_ = false; }
  rate_table* data() { return device_.data(); }

 private:
  std::vector<rate_table> host_;
  dovetail::cuda::device_buffer<rate_table> device_;
  bool known_ = false;
};

}  // namespace dovetail::optim::cuda
