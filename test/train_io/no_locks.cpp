// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A file system without locks, as Lustre is when mounted without `flock`: the system's call is replaced by one that
// says so. Alone in its program, whose files all lie there.
#include <dovetail/core/atomic_file.hpp>
#include <dovetail/io/folder_lock.hpp>
#include <dovetail/io/metrics.hpp>

#include <cerrno>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <data/folder.hpp>

using namespace dovetail;

namespace {
int reason = ENOSYS;
}
extern "C" int flock(int, int) {
  errno = reason;
  return -1;
}

TEST_CASE("where nothing can be locked files are written, and what only a lock would tell is refused") {
  for (int const why : {ENOSYS, EOPNOTSUPP, ENOLCK}) {
    reason = why;
    fixture::folder f;
    auto const path = f / "run.safetensors";
    for (std::string const text : {"first", "second"}) {
      atomic_file<> file(path);
      file.write(text);
      file.commit();
      CHECK(fixture::read(path) == text);
    }
    {
      atomic_file<> at_work(path);
      at_work.write("third");
      CHECK(fixture::thrown<input_error>([&] {
              atomic_file<>{path};
            }).find("remove it if nobody is saving this file") != std::string::npos);
      at_work.commit();  // still there
    }
    CHECK(fixture::read(path) == "third");
    io::folder_lock const out(f / "runs");
    CHECK_FALSE(out.holds());
    io::metrics_log log(f / "runs" / "m.jsonl");
    log.write(1, 0, {{"loss", 0.5}});
  }
  reason = EIO;
  fixture::folder f;
  CHECK_THROWS_AS(io::folder_lock{f / "runs"}, input_error);
}
