// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/io/checkpoint.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <data/folder.hpp>
#include <dovetail/core/philox.hpp>

namespace train_io_crash {

using namespace dovetail;

namespace {

/// A checkpoint all of whose parts say which version it is.
struct versioned {
  std::vector<float> a = std::vector<float>(20'000), b = std::vector<float>(30'000);
  std::uint64_t version = 0;

  std::vector<named_tensor> tensors() {
    return {make_named_tensor("a", std::span(a)), make_named_tensor("b", std::span(b)),
            make_named_tensor("version", version)};
  }
  void save(std::filesystem::path const& path, std::uint64_t v) {
    version = v;
    std::fill(a.begin(), a.end(), static_cast<float>(v));
    std::fill(b.begin(), b.end(), static_cast<float>(v));
    io::save_checkpoint(path, tensors(), {{"version", std::to_string(v)}});
  }
  std::uint64_t load(std::filesystem::path const& path) {
    auto const metadata = io::load_checkpoint(path, tensors());
    auto const is_version = [&](float x) { return x == static_cast<float>(version); };
    CHECK(std::all_of(a.begin(), a.end(), is_version));
    CHECK(std::all_of(b.begin(), b.end(), is_version));
    CHECK(metadata.at("version") == std::to_string(version));
    return version;
  }
};

}  // namespace

TEST_CASE("a process killed at any moment while it saves leaves a whole checkpoint, the old or the new one") {
  fixture::folder f;
  auto const path = f / "c.safetensors";
  versioned v;
  v.save(path, 1);
  std::uint64_t last = 1;
  int moved_on = 0, left_behind = 0;
  for (std::uint64_t round = 0; round < 60; ++round) {
    pid_t const child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        for (std::uint64_t n = last + 1;; ++n) v.save(path, n);
      } catch (...) {
        ::_exit(1);
      }
    }
    ::usleep(500 + random_stream{11}.word(round) % 15'000);
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));  // the child did not fail to save: it was killed
    left_behind += std::filesystem::exists(path.string() + ".tmp");
    auto const now = v.load(path);
    REQUIRE(now >= last);
    moved_on += now > last;
    last = now;
  }
  // Otherwise nothing was tried: some children must have finished a save, some must have died in the middle of one.
  CHECK(moved_on > 0);
  CHECK(left_behind > 0);
  v.save(path, last + 1);  // what a killed process left is in nobody's way
  CHECK(v.load(path) == last + 1);
  CHECK(!std::filesystem::exists(path.string() + ".tmp"));
}

TEST_CASE("a full disk leaves the old checkpoint, removes the temporary file and says why") {
  fixture::folder f;
  auto const path = f / "c.safetensors";
  versioned v;
  v.save(path, 1);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  auto const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  for (rlim_t const limit : {rlim_t{0}, rlim_t{100}, rlim_t{4096}, rlim_t{150'000}}) {
    rlimit const small{limit, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    auto const what = fixture::thrown<checkpoint_error>([&] { v.save(path, 2); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    CHECK(what.find("cannot be written past byte " + std::to_string(limit) + ": File too large") != std::string::npos);
    CHECK(v.load(path) == 1);
    CHECK(!std::filesystem::exists(path.string() + ".tmp"));
  }
  std::signal(SIGXFSZ, old_handler);
  v.save(path, 3);
  CHECK(v.load(path) == 3);
}

TEST_CASE("a folder that is missing is said, and two writers of one file do not mix") {
  fixture::folder f;
  versioned v;
  CHECK(fixture::thrown<checkpoint_error>([&] { v.save(f / "nowhere" / "c", 1); }).find("No such file or directory") !=
        std::string::npos);
  v.save(f / "c", 1);
  atomic_file<checkpoint_error> other(f / "c");
  other.write("half of something");
  CHECK(fixture::thrown<checkpoint_error>([&] { v.save(f / "c", 2); }).find("another writer is saving this file") !=
        std::string::npos);
  CHECK(v.load(f / "c") == 1);
}

TEST_CASE("a leftover that cannot be removed is said, and not tried for ever") {
  fixture::folder f;
  fixture::write(f / "x.tmp", "what a killed writer left");
  bool const root = ::geteuid() == 0;  // whom no folder refuses anything
  ::uid_t const nobody = 65534;
  if (root) {
    REQUIRE(::chown(f.path.c_str(), nobody, static_cast<::gid_t>(-1)) == 0);
    REQUIRE(::chown((f / "x.tmp").c_str(), nobody, static_cast<::gid_t>(-1)) == 0);
    REQUIRE(::seteuid(nobody) == 0);
  }
  std::filesystem::permissions(f.path, static_cast<std::filesystem::perms>(0555));
  auto const what = fixture::thrown<input_error>([&] { atomic_file file(f / "x"); });
  std::filesystem::permissions(f.path, static_cast<std::filesystem::perms>(0755));
  if (root) REQUIRE(::seteuid(0) == 0);
  CAPTURE(what);
  CHECK(what.find("cannot be removed: Permission denied") != std::string::npos);
}

TEST_CASE("without a commit an atomic file leaves nothing, and after one it is closed") {
  fixture::folder f;
  fixture::write(f / "x", "old");
  {
    atomic_file file(f / "x");
    file.write("new");
  }
  CHECK(fixture::read(f / "x") == "old");
  CHECK(!std::filesystem::exists(f / "x.tmp"));
  fixture::write(f / "x.tmp", "a long leftover of a killed writer");
  atomic_file file(f / "x");
  file.write("new");
  file.commit();
  CHECK(fixture::read(f / "x") == "new");
  CHECK(!std::filesystem::exists(f / "x.tmp"));
  CHECK_THROWS_AS(file.write("more"), input_error);
  CHECK_THROWS_AS(file.commit(), input_error);
}

TEST_CASE("a file is written under its own name or refused: links, FIFOs, folders and devices, of it and beside it") {
  fixture::folder f;
  versioned v;
  auto const refusal = [&](std::filesystem::path const& path) {
    return fixture::thrown<checkpoint_error>([&] { v.save(path, 1); });
  };
  auto const make = [&](std::string const& name) {
    fixture::write(f / "victim", "somebody's");
    REQUIRE(::mkfifo((f / ("fifo" + name)).c_str(), 0666) == 0);
    std::filesystem::create_symlink(f / "victim", f / ("link" + name));
    std::filesystem::create_symlink(f / "nothing", f / ("dangling" + name));
    std::filesystem::create_directories(f / ("folder" + name));
    std::filesystem::create_hard_link(f / "victim", f / ("hard" + name));
  };
  // Both as the target and as its temporary file; a FIFO that nobody reads must not make anybody wait.
  for (std::string const& suffix : {std::string{}, std::string{".tmp"}}) {
    make(suffix);
    CAPTURE(suffix);
    CHECK(refusal(f / "fifo").find("is a FIFO: ") != std::string::npos);
    CHECK(refusal(f / "link").find("is a symbolic link to " + (f / "victim").string() + ": ") != std::string::npos);
    CHECK(refusal(f / "dangling").find("is a symbolic link to ") != std::string::npos);
    CHECK(refusal(f / "folder").find("is a folder: ") != std::string::npos);
    for (std::string const name : {"fifo", "link", "dangling", "folder", "hard"}) {
      CAPTURE(name);
      if (suffix.empty()) {
        CHECK(!std::filesystem::exists(f / (name + ".tmp")));
        std::filesystem::remove_all(f / name);
      } else {
        CHECK(!std::filesystem::exists(std::filesystem::symlink_status(f / name)));
      }
    }
    CHECK(fixture::read(f / "victim") == "somebody's");
    CHECK(!std::filesystem::exists(f / "nothing"));
  }
  CHECK(refusal(f / "hard").find("hard.tmp\" has another name (a hard link): it is in the place of a temporary file") !=
        std::string::npos);
  CHECK(refusal("/dev/null").find("is a device: give the path of a regular file") != std::string::npos);
  CHECK(!std::filesystem::exists("/dev/null.tmp"));
  CHECK(refusal(f.path / "").find("names no file") != std::string::npos);
  CHECK(refusal("").find("names no file") != std::string::npos);
  CHECK(refusal(f.path / std::string("cut\0off", 7)).find("has a byte of zero") != std::string::npos);
  CHECK(!std::filesystem::exists(f / "cut"));
  // A target that is a hard link is replaced under this name: the other name keeps the old contents.
  fixture::write(f / "one", "old");
  std::filesystem::create_hard_link(f / "one", f / "two");
  v.save(f / "one", 7);
  CHECK(v.load(f / "one") == 7);
  CHECK(fixture::read(f / "two") == "old");
}

TEST_CASE("a file that is replaced keeps its mode, and what is written is never readable by more than that") {
  fixture::folder f;
  auto const path = f / "private";
  auto const mode_of = [](std::filesystem::path const& p) {
    return static_cast<unsigned>(std::filesystem::status(p).permissions());
  };
  auto const before = ::umask(022);
  versioned v;
  v.save(path, 1);
  CHECK(mode_of(path) == 0644);
  for (unsigned const mode : {0600u, 0640u, 0666u, 0444u, 0755u}) {
    std::filesystem::permissions(path, static_cast<std::filesystem::perms>(mode));
    {
      atomic_file<checkpoint_error> half(path);
      CHECK(mode_of(path.string() + ".tmp") == (mode | 0200));  // what is left of it must not be in the way
    }
    v.save(path, mode);
    CHECK(mode_of(path) == mode);
    CHECK(v.load(path) == mode);
  }
  ::umask(before);
}

}  // namespace train_io_crash
