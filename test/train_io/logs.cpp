// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/io/folder_lock.hpp>
#include <dovetail/io/metrics.hpp>
#include <dovetail/io/plot.hpp>
#include <dovetail/io/tensorboard.hpp>
#include <dovetail/io/trace.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <limits>
#include <locale>
#include <string>
#include <vector>

#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <data/folder.hpp>

namespace train_io_logs {

using namespace dovetail;
using namespace std::chrono_literals;
using fixture::thrown;

namespace {

std::vector<std::int64_t> steps(std::filesystem::path const& path) {
  std::vector<std::int64_t> s;
  for (auto const& r : io::read_metrics(path)) s.push_back(r.step);
  return s;
}

}  // namespace

TEST_CASE("metrics are JSON lines that read back as they were written") {
  fixture::folder f;
  {
    io::metrics_log log(f / "m.jsonl");
    log.write(7, 1, {{"loss", 0.1}, {"tab\"\t", -1e300}, {"lost", std::numeric_limits<double>::infinity()}});
    log.write(8, 1, {});
  }
  auto const line = fixture::read(f / "m.jsonl");
  CHECK(line.starts_with(R"({"step":7,"epoch":1,"wall_time":)"));
  CHECK(line.find(R"("loss":0.1,"tab\"\t":-1e+300,"lost":null})"
                  "\n") != std::string::npos);
  auto const r = io::read_metrics(f / "m.jsonl");
  REQUIRE(r.size() == 2);
  CHECK(r[0].epoch == 1);
  CHECK(r[0].wall_time > 1.6e9);
  REQUIRE(r[0].values.size() == 3);
  CHECK(r[0].values[0] == io::metric{"loss", 0.1});
  CHECK(r[0].values[1] == io::metric{"tab\"\t", -1e300});
  CHECK(std::isnan(r[0].values[2].value));
  CHECK(r[1].step == 8);
}

TEST_CASE("a resumed log drops the records from the resumed step on, and the line that a crash cut") {
  fixture::folder f;
  auto const path = f / "m.jsonl";
  {
    io::metrics_log log(path);
    for (std::int64_t s = 0; s < 10; ++s) log.write(s, 0, {{"loss", 1}});
  }
  fixture::write(path, fixture::read(path) + R"({"step":10,"epo)");
  CHECK(steps(path).size() == 10);
  io::metrics_log(path, {.resume_at = 12}).write(12, 0, {});
  CHECK(steps(path) == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12});
  io::metrics_log(path, {.resume_at = 4}).write(4, 0, {});
  CHECK(steps(path) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  io::metrics_log(path).write(0, 0, {});  // a new run starts anew
  CHECK(steps(path) == std::vector<std::int64_t>{0});
}

TEST_CASE("a flush interval of 0 puts every record into the file at once, a long one waits for flush()") {
  fixture::folder f;
  io::metrics_log eager(f / "eager", {.flush_every = 0ms}), lazy(f / "lazy", {.flush_every = 1h});
  eager.write(0, 0, {});
  lazy.write(0, 0, {});
  CHECK(steps(f / "eager").size() == 1);
  CHECK(steps(f / "lazy").empty());
  lazy.flush();
  CHECK(steps(f / "lazy").size() == 1);
}

TEST_CASE("a log does not cut a file that is none, nor take a name twice, and says when it cannot write") {
  fixture::folder f;
  fixture::write(f / "thesis.txt", "{\"step\":1}\nnot a record\n");
  CHECK(thrown<input_error>([&] {
          io::metrics_log(f / "thesis.txt", {.resume_at = 5});
        }).find("line 2 is no record of a metrics log") != std::string::npos);
  for (auto const* beyond : {R"({"step":18446744073709551615})", R"({"step":1,"epoch":9223372036854775808})"}) {
    fixture::write(f / "beyond", std::string(beyond) + '\n');
    CHECK_THROWS_AS(io::read_metrics(f / "beyond"), input_error);  // and no step of -1
  }
  CHECK(fixture::read(f / "thesis.txt").size() == 24);
  io::metrics_log log(f / "m");
  CHECK_THROWS_AS(log.write(0, 0, {{"a", 1}, {"a", 2}}), argument_error);
  CHECK_THROWS_AS(log.write(0, 0, {{"step", 1}}), argument_error);
  CHECK(thrown<input_error>([&] { io::metrics_log(f / "nowhere" / "m"); }).find("No such file") != std::string::npos);
  CHECK(thrown<input_error>([&] { io::metrics_log(f / "m"); }).find("is being written by another log") !=
        std::string::npos);
  fixture::write(f / "note", "one line, and no end");
  CHECK(thrown<input_error>([&] { io::metrics_log(f / "note"); }).find("line 1 is no record") != std::string::npos);
  CHECK(fixture::read(f / "note") == "one line, and no end");
}

TEST_CASE("a log whose disk is full says so, by write or by flush, and writes nothing more") {
  fixture::folder f;
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  auto const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  io::metrics_log eager(f / "eager", {.flush_every = 0ms}), lazy(f / "lazy", {.flush_every = 1h});
  io::tensorboard_log board(f / "board");
  rlimit const small{100, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  auto const failed = [&](auto&& g) { return thrown<input_error>(g).find("File too large") != std::string::npos; };
  eager.write(0, 0, {});
  CHECK(failed([&] { eager.write(1, 0, {{"loss", 1}}); }));
  lazy.write(0, 0, {});
  lazy.write(1, 0, {{"loss", 1}});
  CHECK(failed([&] { lazy.flush(); }));
  board.write(1, "a", 1);
  board.write(2, "a long tag that takes the file past its limit", 1);
  CHECK(failed([&] { board.flush(); }));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  CHECK(thrown<input_error>([&] { eager.write(2, 0, {}); }).find("nothing can be written after") != std::string::npos);
}

TEST_CASE("logs are regular files of their own names: no link is followed, nobody waits for a FIFO") {
  fixture::folder f;
  fixture::write(f / "victim", "{\"step\":1}\n");
  std::filesystem::create_symlink(f / "victim", f / "link");
  REQUIRE(::mkfifo((f / "fifo").c_str(), 0666) == 0);
  CHECK(thrown<input_error>([&] { io::metrics_log(f / "link"); }).find("is a symbolic link to") != std::string::npos);
  CHECK(thrown<input_error>([&] { io::metrics_log(f / "fifo"); }).find("is a FIFO") != std::string::npos);
  CHECK(thrown<input_error>([&] { io::read_metrics(f / "fifo"); }).find("is a FIFO") != std::string::npos);
  CHECK(thrown<input_error>([&] { io::metrics_log("/dev/full"); }).find("is a device") != std::string::npos);
  CHECK(io::read_metrics(f / "link").size() == 1);  // to read through a link changes nothing
  CHECK(fixture::read(f / "victim") == "{\"step\":1}\n");
  for (auto const* extension : {".log", ".svg", ".png"}) {
    io::write_gnuplot(f / "p", {{"x", {{0, 1}, {1, 0}}}});
    std::filesystem::create_symlink(f / "victim", f / (std::string("p") + extension));
    auto const result = io::run_gnuplot(f / "p");
    CHECK(!result.drawn);
    CHECK(result.reason.find("is a symbolic link to") != std::string::npos);
    std::filesystem::remove(f / (std::string("p") + extension));
  }
  CHECK(fixture::read(f / "victim") == "{\"step\":1}\n");
}

TEST_CASE("a trace is JSON that Perfetto reads: a process per rank, complete events in microseconds") {
  fixture::folder f;
  trace t;
  auto const origin = t.origin();
  t.record("forward \"x\"", "nn", 0, origin + 1500ns, origin + 2s, 0);
  t.record("all_reduce", "comm", 1, origin + 2us, origin + 3us, 77);
  io::write_trace(f / "t.json", t);
  auto const j = nlohmann::json::parse(fixture::read(f / "t.json"));
  auto const& events = j["traceEvents"];
  REQUIRE(events.size() == 4);
  CHECK(events[0]["ph"] == "M");
  CHECK(events[1]["args"]["name"] == "rank 1");
  CHECK(events[2]["name"] == "forward \"x\"");
  CHECK(events[2]["ph"] == "X");
  CHECK(events[2]["pid"] == 0);
  CHECK(events[2]["dur"].get<double>() == doctest::Approx(1'999'998.5));
  CHECK(!events[2].contains("args"));
  CHECK(events[3]["args"]["bytes"] == 77);
  CHECK(events[3]["ts"].get<double>() - events[2]["ts"].get<double>() == doctest::Approx(0.5).epsilon(0.5));
  CHECK(j["otherData"]["dropped"] == 0);
  CHECK(nlohmann::json::parse(io::trace_json(trace{}))["traceEvents"].empty());
}

TEST_CASE("files do not depend on the program's locale") {
  struct german : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  auto const before = std::locale::global(std::locale(std::locale::classic(), new german));
  fixture::folder f;
  trace t;
  t.record("x", "y", 12345, t.origin(), t.origin() + 2s, 1'000'000);
  auto const json = io::trace_json(t);
  io::metrics_log(f / "m").write(1'000'000, 0, {{"loss", 1234.5}});
  io::write_gnuplot(f / "p", {{"x", {{12345, 0.5}}}});
  std::locale::global(before);
  CHECK(nlohmann::json::parse(json)["traceEvents"][1]["args"]["bytes"] == 1'000'000);
  CHECK(io::read_metrics(f / "m").at(0).step == 1'000'000);
  CHECK(fixture::read(f / "p.dat") == "# x\n12345 0.5\n\n\n");
}

TEST_CASE("curves become a data file and a script, and gnuplot draws them where it is installed") {
  fixture::folder f;
  auto const stem = f / "loss curve";
  io::write_gnuplot(stem,
                    {{"dense \"fp32\"", {{0, 2.5}, {1, std::nan("")}, {2, 1.5}}}, {"top_k_1%", {{0, 2.5}, {2, 1.75}}}},
                    {.title = "LeNet_1", .y = "loss (nats)", .log_y = true, .log2_x = true, .key = "bottom left"});
  auto const data = fixture::read(f / "loss curve.dat");
  CHECK(data == "# dense \"fp32\"\n0 2.5\n\n2 1.5\n\n\n# top_k_1%\n0 2.5\n2 1.75\n\n\n");
  auto const script = fixture::read(f / "loss curve.gp");
  CHECK(script.find("index 1 using 1:2") != std::string::npos);
  CHECK(script.find("set key bottom left noenhanced\n") != std::string::npos);
  CHECK(script.find("set logscale y\nset logscale x 2\n") != std::string::npos);
  CHECK(script.find("title \"dense \\\"fp32\\\"\"") != std::string::npos);
  auto const result = io::run_gnuplot(stem);
  if (result.drawn) {
    CHECK(fixture::read(f / "loss curve.svg").find("<svg") != std::string::npos);
    CHECK(fixture::read(f / "loss curve.png").starts_with("\x89PNG"));
  } else {
    MESSAGE(result.reason);
    CHECK(result.reason.find("cannot be run") != std::string::npos);  // not installed is no failure, a bad script is
  }
  auto const missing = io::run_gnuplot(stem, "no-such-gnuplot");
  CHECK(!missing.drawn);
  CHECK(missing.reason.find("'no-such-gnuplot' cannot be run: No such file or directory") != std::string::npos);
  sigset_t interrupt, before;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, &before);  // as a program does that waits for signals in a thread
  // In Perl, because a shell clears what it inherits.
  fixture::write(f / "unblocked",
                 "#!/usr/bin/perl\nopen(F, '</proc/self/status'); exit(!grep { /^SigBlk:\\s*0*$/ } <F>);\n");
  std::filesystem::permissions(f / "unblocked", std::filesystem::perms::owner_all);
  if (std::filesystem::exists("/usr/bin/perl"))
    CHECK(io::run_gnuplot(stem, (f / "unblocked").string()).drawn);
  else
    MESSAGE("not seen what gnuplot inherits: no perl");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  auto const failing = io::run_gnuplot(stem, "false");
  CHECK(!failing.drawn);
  CHECK(failing.reason.find("failed on") != std::string::npos);
  CHECK_THROWS_AS(io::write_gnuplot(stem, {}), argument_error);
}

TEST_CASE("no text in a figure is a command of gnuplot's: titles, labels, legends, names of files") {
  fixture::folder f;
  auto const out = f / "|touch owned; `touch owned`";
  std::filesystem::create_directories(out);
  // Every text comes with what gnuplot would replace, run or end a string by.
  std::string const text =
      "`touch owned` $(touch owned) @MACRO 'quoted' \"twice\" \\n {/=40 big}\nsystem 'touch owned'\n\r\t\x01 \xff \\";
  for (std::string const name :
       {"<touch owned; echo 1 2", "|touch owned", "`touch owned`", "-e", "-", "~", "it's \"so\"", "@x", "$x", "a\\",
        "#x", "%s", " ", "'+system('touch owned')+'", "a\nsystem 'touch owned'\n", "{", "\"; system 'touch owned'"}) {
    CAPTURE(name);
    io::write_gnuplot(out / name,
                      {{text, {{0, 1}, {1, 2}}},
                       {"''; system('touch owned') #", {{0, 2}, {1, 1}}},
                       {"'", {{0, 2}, {1, 1}}},
                       {"", {{0, 2}, {1, 1}}}},
                      {.title = text, .x = "'" + text, .y = "''"});
    auto const result = io::run_gnuplot(out / name);
    if (!result.drawn && result.reason.find("cannot be run") != std::string::npos) {
      MESSAGE(result.reason);
    } else {
      CHECK(result.reason == "");
      auto const figure = fixture::read(out / (name + ".svg"));
      CHECK(figure.find("`touch owned` $(touch owned) @MACRO 'quoted'") != std::string::npos);
      CHECK(figure.find("\\n {/=40 big} system 'touch owned'") != std::string::npos);
      CHECK(fixture::read(out / (name + ".log")) == "");
    }
    auto const script = fixture::read(out / (name + ".gp"));
    CHECK(std::count(script.begin(), script.end(), '\n') == 18);  // no text began a line
    std::size_t files = 0;
    for (auto const& left : std::filesystem::directory_iterator(out)) {
      files += 1;
      CHECK(left.path().filename().string().starts_with(name));
      std::filesystem::remove(left.path());
    }
    CHECK(files <= 5);
  }
  CHECK(!std::filesystem::exists("owned"));
  CHECK(thrown<argument_error>([&] {
          io::write_gnuplot(f / "p", {{"x", {}}}, {.key = "top right\nsystem 'touch owned'"});
        }).find("the word 'right system'") != std::string::npos);
  CHECK_THROWS_AS(io::write_gnuplot(f / "p", {{"x", {}}}, {.key = "`touch owned`"}), argument_error);
  CHECK_THROWS_AS(io::write_gnuplot(f / "p", {{"x", {}}}, {.key = "top;quit"}), argument_error);
  CHECK(!std::filesystem::exists(f / "p.gp"));
}

TEST_CASE("a folder is one run's: another is refused, of this process or another, and a killed one is no obstacle") {
  fixture::folder f;
  auto const out = f / "runs" / "a";
  auto const refused = [&] { return thrown<input_error>([&] { io::folder_lock{out}; }); };
  {
    io::folder_lock const mine(out);
    CHECK(refused().find("is used by another run: give this one a folder of its own") != std::string::npos);
    io::folder_lock const elsewhere(f / "runs" / "b");
  }
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    io::folder_lock const theirs(out);
    (void)!::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(refused().find("is used by another run") != std::string::npos);
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(refused() == "nothing was thrown");
  std::filesystem::remove(out / ".lock");
  fixture::write(f / "victim", "somebody's");
  std::filesystem::create_symlink(f / "victim", out / ".lock");
  CHECK(refused().find("is a symbolic link") != std::string::npos);
}

}  // namespace train_io_logs
