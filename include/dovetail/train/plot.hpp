// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dovetail/core/atomic_file.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

namespace dovetail::train {

/// One line of a figure.
struct curve {
  std::string label;
  std::vector<std::pair<double, double>> points;  ///< (x, y)
};

struct plot_options {
  std::string title = {};
  std::string x = "step";
  std::string y = "loss";
  bool log_y = false;
  bool log2_x = false;            ///< for powers of two, like batch sizes
  std::string key = "top right";  ///< where the labels are, in gnuplot's words
};

namespace detail {
inline std::string gnuplot_text(std::string const& s) {
  std::string quoted = "\"";
  for (char const c : s) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c == '\n' ? ' ' : c;
  }
  return quoted + '"';
}
}  // namespace detail

/// Writes <stem>.dat and <stem>.gp, gnuplot's data and script, for the curves; the script writes <stem>.svg and
/// <stem>.png. Points that are not finite leave a gap. Throws input_error with the system's reason.
inline void write_gnuplot(std::filesystem::path const& stem, std::vector<curve> const& curves,
                          plot_options const& options = {}) {
  require(!curves.empty(), "write_gnuplot: there is no curve to draw in ", stem);
  auto const beside = [&](char const* extension) { return stem.string() + extension; };
  std::ostringstream data;
  data.imbue(std::locale::classic());  // a program's locale may write a decimal comma, gnuplot reads a point
  data << std::setprecision(17);
  for (auto const& c : curves) {
    data << "# " << detail::gnuplot_text(c.label) << '\n';
    for (auto const& [x, y] : c.points) {
      if (is_finite(x) && is_finite(y)) data << x << ' ' << y;
      data << '\n';
    }
    data << "\n\n";  // two empty lines end one of gnuplot's indices
  }
  // Names without folders: the three files can be moved together.
  auto const name = detail::gnuplot_text(stem.filename().string() + ".dat");
  std::string plot = "plot ";
  for (std::size_t i = 0; i < curves.size(); ++i)
    plot += message(i ? ", \\\n     " : "", name, " index ", std::to_string(i),
                    " using 1:2 with lines linewidth 2 title ", detail::gnuplot_text(curves[i].label));
  std::string script =
      message("set grid\nset key ", options.key, " noenhanced\nset title ", detail::gnuplot_text(options.title),
              " noenhanced\nset xlabel ", detail::gnuplot_text(options.x), " noenhanced\nset ylabel ",
              detail::gnuplot_text(options.y), " noenhanced\n", options.log_y ? "set logscale y\n" : "",
              options.log2_x ? "set logscale x 2\n" : "");
  for (char const* format : {"svg", "png"})
    script += message("set terminal ", format, " size 800,500\nset output ",
                      detail::gnuplot_text(message(stem.filename().string(), '.', format)), '\n', plot, '\n');
  script += "set output\n";
  std::string const points = data.str();
  for (auto const& [extension, text] : {std::pair<char const*, std::string const&>{".dat", points}, {".gp", script}}) {
    atomic_file<input_error> file(beside(extension));
    file.write(text);
    file.commit();
  }
}

/// Whether gnuplot has drawn, and if not, why.
struct plot_result {
  bool drawn = false;
  std::string reason;
};

/// Runs gnuplot on <stem>.gp, where it is installed; its messages go to <stem>.log. Does not throw when it is missing:
/// a figure is not worth a run.
inline plot_result run_gnuplot(std::filesystem::path const& stem, std::string const& program = "gnuplot") {
  auto const folder = stem.has_parent_path() ? stem.parent_path().string() : std::string(".");
  auto const script = stem.filename().string() + ".gp", log = stem.string() + ".log";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  std::string name = program, argument = script;
  std::array<char*, 3> const arguments{name.data(), argument.data(), nullptr};
  pid_t child = 0;
  int const failed = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed)
    return {false, message("'", program, "' cannot be run: ", std::strerror(failed), ": install gnuplot, or run it on ",
                           stem.string(), ".gp elsewhere")};
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return {false, message("'", program, "' was lost: ", std::strerror(errno))};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {true, {}};
  return {false, message("'", program, "' failed on ", stem.string(), ".gp: see ", log)};
}

}  // namespace dovetail::train
