// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/train/progress.hpp>

#include <chrono>
#include <sstream>

#include <doctest/doctest.h>

namespace train_io_progress {

using namespace dovetail;
using namespace std::chrono_literals;

TEST_CASE("a line shows the bar, the step, the epoch, the loss, the throughput and the time left") {
  CHECK(train::progress_line({.step = 120,
                              .steps = 480,
                              .epoch = 0,
                              .epochs = 3,
                              .loss = 0.31234,
                              .samples_per_second = 20612.4,
                              .seconds_left = 125},
                             8) == "[##......] step 120/480  epoch 1/3  loss 0.3123  20612 samples/s  2:05 left");
  CHECK(train::progress_line({.step = 480, .steps = 480, .epoch = 3, .epochs = 3, .loss = 1, .samples_per_second = 1.5},
                             4) == "[####] step 480/480  epoch 3/3  loss 1.0000  1.50 samples/s  done");
  CHECK(train::progress_line({.step = 0, .steps = 10}, 0) == "step 0/10  loss 0.0000  0.00 samples/s  -- left");
  CHECK(train::progress_line({}, 2) == "[..] step 0  loss 0.0000  0.00 samples/s  -- left");
}

TEST_CASE("durations read as clocks") {
  CHECK(train::to_clock(7.4) == "0:07");
  CHECK(train::to_clock(3723) == "1:02:03");
  CHECK(train::to_clock(-1) == "--");
  CHECK(train::to_clock(1e300) == "--");
}

TEST_CASE("a terminal's line is redrawn in place, at intervals, and ends with the last step") {
  std::ostringstream out;
  train::progress::clock::time_point const t0{};
  train::progress bar(out, {.is_terminal = true, .interval = 100ms, .bar = 4}, t0);
  bar.update({.step = 1, .steps = 4}, 10, t0 + 50ms);  // too early
  CHECK(out.str().empty());
  bar.update({.step = 2, .steps = 4, .loss = 12.5}, 10, t0 + 1s);
  CHECK(out.str() == "\r[##..] step 2/4  loss 12.5000  20 samples/s  0:01 left");
  bar.update({.step = 4, .steps = 4, .loss = 1}, 20, t0 + 1001ms);  // the last one is always drawn
  CHECK(out.str().ends_with("\r[####] step 4/4  loss 1.0000  40 samples/s  done      \n"));
  auto const length = out.str().size();
  bar.update({.step = 4, .steps = 4}, 0, t0 + 2s);
  CHECK(out.str().size() == length);
}

TEST_CASE("elsewhere than on a terminal lines are plain and rare, and a resumed run counts only its own steps") {
  std::ostringstream out;
  train::progress::clock::time_point const t0{};
  train::progress log(out, {}, t0);
  for (int s = 1; s <= 40; ++s) log.update({.step = 100 + s, .steps = 140, .loss = 1}, 5, t0 + s * 1s);
  CHECK(out.str() ==
        "step 110/140  loss 1.0000  5.00 samples/s  0:30 left\nstep 120/140  loss 1.0000  5.00 samples/s  0:20 left\n"
        "step 130/140  loss 1.0000  5.00 samples/s  0:10 left\nstep 140/140  loss 1.0000  5.00 samples/s  done\n");
}

TEST_CASE("what fit reports is shown as it is, also where the number of steps is not known") {
  std::ostringstream out;
  train::progress log(out, {.interval = 0ms});
  train::step_record r{.step = 3, .loss = 0.5, .samples = 64};
  log(r);
  CHECK(out.str().starts_with("step 3  loss 0.5000  "));
  CHECK(out.str().ends_with(" samples/s  -- left\n"));
  r.step = r.total_steps = 4;
  log(r);
  CHECK(out.str().find("step 4/4  loss 0.5000  ") != std::string::npos);
  CHECK(out.str().ends_with("done\n"));
}

}  // namespace train_io_progress
