// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>

#include <dovetail/core/config.hpp>
#include <dovetail/train/options.hpp>

namespace dovetail::train {

/// Where a run stands.
struct progress_state {
  std::int64_t step = 0;    ///< steps that are done, of `steps`
  std::int64_t steps = 0;   ///< 0: not known
  std::int64_t epoch = 0;   ///< from 0; shown from 1
  std::int64_t epochs = 0;  ///< 0: epochs are not shown
  double loss = 0;
  double samples_per_second = 0;
  double seconds_left = -1;  ///< negative: not known yet
};

/// "1:02:03", "2:03", "0:07"; "--" for what is not known.
inline std::string to_clock(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "--";
  long long const s = std::llround(seconds);
  std::array<char, 40> text{};
  if (s >= 3600)
    std::snprintf(text.data(), text.size(), "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  else
    std::snprintf(text.data(), text.size(), "%lld:%02lld", s / 60, s % 60);
  return text.data();
}

/// One line without its end: [#####.....] 120/400, epoch, loss, throughput and time left; `bar` columns wide inside its
/// brackets, none if 0.
DOVETAIL_COLD inline std::string progress_line(progress_state const& s, int bar = 24) {
  std::string line;
  double const done =
      s.steps > 0 ? std::clamp(static_cast<double>(s.step) / static_cast<double>(s.steps), 0.0, 1.0) : 0;
  if (bar > 0) {
    auto const full = static_cast<std::size_t>(done * bar);
    line = '[' + std::string(full, '#') + std::string(static_cast<std::size_t>(bar) - full, '.') + "] ";
  }
  std::array<char, 160> text{};
  line += "step " + std::to_string(s.step);
  if (s.steps > 0) line += '/' + std::to_string(s.steps);
  if (s.epochs > 0) {
    std::snprintf(text.data(), text.size(), "  epoch %lld/%lld",
                  static_cast<long long>(std::min(s.epoch + 1, s.epochs)), static_cast<long long>(s.epochs));
    line += text.data();
  }
  std::snprintf(text.data(), text.size(), "  loss %.4f  %.*f samples/s  ", s.loss, s.samples_per_second < 10 ? 2 : 0,
                s.samples_per_second);
  return line + text.data() + (s.steps > 0 && s.step >= s.steps ? "done" : to_clock(s.seconds_left) + " left");
}

/// How, and how often, a line is drawn.
struct progress_options {
  bool is_terminal = false;                ///< one line that is redrawn; otherwise a line of its own at every interval
  std::chrono::milliseconds interval{-1};  ///< at least so long between two lines; negative: 100 ms, or 10 s for a file
  int bar = 24;
};

/// Shows on the caller's stream where a run stands: `fit(data, {.on_step = train::progress{std::cout}})`. Throughput
/// and the time left come from the steps since this object was made, so a resumed run does not count what was done
/// before. Used by one thread.
class progress {
 public:
  using clock = std::chrono::steady_clock;

  explicit progress(std::ostream& out, progress_options options = {}, clock::time_point now = clock::now())
      : out_(&out), options_(options), start_(now), shown_(now) {
    if (options_.interval.count() < 0)
      options_.interval = std::chrono::milliseconds(options_.is_terminal ? 100 : 10'000);
  }

  /// After a step of `samples` samples: draws a line if it is time for one. `s.step` counts the steps done; throughput
  /// and time left are filled in here.
  void update(progress_state s, std::int64_t samples, clock::time_point now = clock::now()) {
    samples_ += samples;
    ++steps_;
    bool const last = s.steps > 0 && s.step >= s.steps;
    if (finished_ || (now - shown_ < options_.interval && !last)) return;
    double const seconds = std::chrono::duration<double>(now - start_).count();
    if (seconds > 0) {
      s.samples_per_second = static_cast<double>(samples_) / seconds;
      if (s.steps > 0) s.seconds_left = seconds / static_cast<double>(steps_) * static_cast<double>(s.steps - s.step);
    }
    show(progress_line(s, options_.is_terminal ? options_.bar : 0), last);
    shown_ = now;
    finished_ = last;
  }
  /// The same for what fit reports. Its steps come in groups, of which the last one may be drawn.
  void operator()(step_record const& r) {
    update({.step = r.step, .steps = r.total_steps, .epoch = r.epoch, .loss = r.loss}, r.samples);
  }

 private:
  void show(std::string const& line, bool last) {
    if (!options_.is_terminal) {
      *out_ << line << '\n' << std::flush;
      return;
    }
    // Spaces wipe what a longer line before has left.
    std::size_t const wipe = width_ > line.size() ? width_ - line.size() : 0;
    *out_ << '\r' << line << std::string(wipe, ' ') << (last ? "\n" : "") << std::flush;
    width_ = line.size();
  }

  std::ostream* out_;
  progress_options options_;
  clock::time_point start_, shown_;
  std::int64_t samples_ = 0, steps_ = 0;
  std::size_t width_ = 0;
  bool finished_ = false;
};

}  // namespace dovetail::train
