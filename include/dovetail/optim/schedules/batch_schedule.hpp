// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

// Batches that change while a training runs. A batch grows by more micro-batches per step
// (train::fit_options::accumulate_at), so that the memory of a rank stays what it was.

namespace dovetail::optim {

/// Estimates, from gradients of a small and a large batch, how noisy gradients are (McCandlish et al., An Empirical
/// Model of Large-Batch Training, 2018, appendix A.1). With B < B' samples and the squared norms s, s' of their mean
/// gradients:
///
///     |G|^2   = (B' s' - B s) / (B' - B)          squared norm of the true gradient
///     tr(S)   = (s - s') / (1/B - 1/B')           variance of one sample's gradient
///     scale   = tr(S) / |G|^2                     the batch at which noise and signal are equal
///
/// Both estimates are unbiased and noisy themselves: running averages of them are kept, `decay` of which stays.
class noise_scale {
 public:
  /// Throws argument_error for a decay outside [0, 1).
  explicit noise_scale(double decay = 0.95) : decay_(decay) {
    if (!ranges::share.holds(decay)) dovetail::detail::refuse("noise_scale", "decay", decay, ranges::share);
  }

  /// Throws argument_error unless 0 < small_batch < large_batch. Norms that are not finite are left out.
  void add(double small_batch, double small_squares, double large_batch, double large_squares) {
    require(small_batch > 0 && small_batch < large_batch && is_finite(large_batch), "noise_scale: a small batch of ",
            small_batch, " and a large one of ", large_batch, ": it takes two sizes, the smaller one first");
    if (!is_finite(small_squares) || !is_finite(large_squares)) return;
    double const signal = (large_batch * large_squares - small_batch * small_squares) / (large_batch - small_batch);
    double const noise = (small_squares - large_squares) / (1 / small_batch - 1 / large_batch);
    weight_ = decay_ * weight_ + (1 - decay_);
    signal_ = decay_ * signal_ + (1 - decay_) * signal;
    noise_ = decay_ * noise_ + (1 - decay_) * noise;
  }

  bool known() const { return weight_ > 0; }
  /// tr(S): 0 until known, never negative.
  double variance() const { return known() ? std::max(noise_ / weight_, 0.0) : 0; }
  double squared_gradient() const { return known() ? std::max(signal_ / weight_, 0.0) : 0; }
  /// In samples; infinite when no signal is seen in the noise.
  double value() const {
    if (variance() <= 0) return 0;
    return squared_gradient() > 0 ? variance() / squared_gradient() : positive_infinity<double>();
  }

  /// To be saved and loaded.
  named_tensor tensor(std::string name) { return make_named_tensor(std::move(name), std::span<double>(&weight_, 3)); }

 private:
  double decay_;
  double weight_ = 0, signal_ = 0, noise_ = 0;
};

/// What a batch schedule may look at; equal on all ranks. Estimates and loss are those of the last report.
struct batch_facts {
  std::int64_t step = 0;         ///< optimizer steps tried so far
  std::int64_t micro_batch = 1;  ///< samples of all ranks in one micro-batch
  double variance = 0;           ///< of one sample's gradient, if it is measured (sync::all_reduce::measure_noise)
  double squared_gradient = 0;
  double loss = 0;  ///< mean per prediction
  double lr = 0;    ///< of the last step
};

namespace detail {
/// As many as `variance / per` samples need.
inline std::int64_t micro_batches(double variance, double per, batch_facts const& f, std::int64_t most) {
  if (per == 0) return most;
  double const n = std::ceil(variance / per / static_cast<double>(f.micro_batch));
  if (!is_finite(n)) return is_nan(n) ? 1 : most;
  return n >= 1 && n < static_cast<double>(most) ? static_cast<std::int64_t>(n) : n >= 1 ? most : 1;
}
}  // namespace detail

/// factor^floor(step / every) times `initial` micro-batches, at most `most`: growing the batch where one would lower
/// the rate (Smith et al., Don't Decay the Learning Rate, ICLR 2018; AdaBatch: Devarakonda et al., 2017, with factor
/// 2).
struct increase_batch {
  std::int64_t initial = 1, factor = 2, every = 1000, most = 1 << 20;
  static constexpr auto describe() {
    return policy{"increase_batch", field{"initial", &increase_batch::initial, ranges::count},
                  field{"factor", &increase_batch::factor, ranges::count},
                  field{"every", &increase_batch::every, ranges::count},
                  field{"most", &increase_batch::most, ranges::count}};
  }
  std::int64_t operator()(batch_facts const& f) const {
    check_policy(*this);
    std::int64_t n = initial;
    if (factor > 1)
      for (std::int64_t s = f.step; s >= every && n < most; s -= every) n = n > most / factor ? most : n * factor;
    return std::min(n, most);
  }
};

/// As many micro-batches as make up the gradient noise scale times `share` (McCandlish et al., 2018); 1 until it is
/// known. Big-batch SGD (De et al., Automated Inference with Adaptive Batches, AISTATS 2017) wants theta^2 |g|^2 >=
/// tr(S) / B of a batch's gradient g, whose squared norm is |G|^2 + tr(S) / B: that is share = 1 / theta^2 - 1, but its
/// batches never shrink.
struct noise_batch {
  double share = 1;
  std::int64_t most = 64;
  static constexpr auto describe() {
    return policy{"noise_batch", field{"share", &noise_batch::share, ranges::not_negative},
                  field{"most", &noise_batch::most, ranges::count}};
  }
  std::int64_t operator()(batch_facts const& f) const {
    check_policy(*this);
    if (f.variance <= 0) return 1;
    return detail::micro_batches(share * f.variance, f.squared_gradient, f, most);
  }
};

/// CABS (Balles et al., Coupling Adaptive Batch Sizes with Learning Rates, UAI 2017, equation 11): lr tr(S) / loss
/// samples. For losses whose minimum is near 0; 1 micro-batch until they are known.
struct coupled_batch {
  std::int64_t most = 64;
  static constexpr auto describe() {
    return policy{"coupled_batch", field{"most", &coupled_batch::most, ranges::count}};
  }
  std::int64_t operator()(batch_facts const& f) const {
    check_policy(*this);
    if (f.variance <= 0 || f.loss <= 0) return 1;
    return detail::micro_batches(f.lr * f.variance, f.loss, f, most);
  }
};

}  // namespace dovetail::optim
