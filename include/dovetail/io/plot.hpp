// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dovetail/core/atomic_file.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/regular_file.hpp>
#include <dovetail/io/printable.hpp>

namespace dovetail::io {

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
/// A string for gnuplot, which replaces text within quotes too: backquotes, and, when there was an odd quote before in
/// the line, @macros in strings of either kind. So whatever is not harmless is written as its number.
inline std::string gnuplot_string(std::string_view s) {
  std::string quoted = "\"";
  for (char const c : s) {
    auto const byte = static_cast<unsigned char>(c);
    bool const harmless = byte >= 0x80 || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                          std::string_view(" ._,:/()%+=-").find(c) != std::string_view::npos;
    if (harmless || c == '"' || c == '\\')
      (quoted += harmless ? "" : "\\") += c;
    else
      for (int shift : {9, 6, 3, 0}) quoted += shift == 9 ? '\\' : static_cast<char>('0' + (byte >> shift & 7));
  }
  return quoted + '"';
}
inline std::string gnuplot_text(std::string const& s) { return gnuplot_string(printable(s)); }
/// The file `name` in the folder of the script. With the folder before it, no first character is taken for a pipe ('<',
/// '|') or for the home folder.
inline std::string gnuplot_file(std::string const& name) { return gnuplot_string("./" + name); }
/// Where the key is. These words are not quoted, so only those that gnuplot knows are let through.
inline std::string gnuplot_key(std::string const& words) {
  static constexpr std::array<std::string_view, 16> known{
      "top",     "bottom",  "left",    "right", "center", "inside", "outside", "lmargin",
      "rmargin", "tmargin", "bmargin", "above", "below",  "over",   "under",   "off"};
  std::string key;
  for (std::size_t at = 0; at < words.size();) {
    auto const end = std::min(words.find(' ', at), words.size());
    auto const word = words.substr(at, end - at);
    require(
        word.empty() || std::find(known.begin(), known.end(), word) != known.end(), "write_gnuplot: the key's place '",
        printable(words), "' has the word '", printable(word),
        "': top bottom left right center inside outside lmargin rmargin tmargin bmargin above below over under off are "
        "known");
    if (!word.empty()) key += ' ' + word;
    at = end + 1;
  }
  return key;
}
}  // namespace detail

/// Writes <stem>.dat and <stem>.gp, gnuplot's data and script, for the curves; the script writes <stem>.svg and
/// <stem>.png. Points that are not finite leave a gap. Texts are shown as they are: nothing in them is a command of
/// gnuplot's or markup. Throws input_error with the system's reason.
inline void write_gnuplot(std::filesystem::path const& stem, std::vector<curve> const& curves,
                          plot_options const& options = {}) {
  require(!curves.empty(), "write_gnuplot: there is no curve to draw in ", stem);
  auto const beside = [&](char const* extension) { return stem.string() + extension; };
  std::ostringstream data;
  data.imbue(std::locale::classic());  // a program's locale may write a decimal comma, gnuplot reads a point
  data << std::setprecision(17);
  for (auto const& c : curves) {
    data << "# " << detail::printable(c.label) << '\n';
    for (auto const& [x, y] : c.points) {
      if (is_finite(x) && is_finite(y)) data << x << ' ' << y;
      data << '\n';
    }
    data << "\n\n";  // two empty lines end one of gnuplot's indices
  }
  // Names without folders: the three files can be moved together.
  auto const name = detail::gnuplot_file(stem.filename().string() + ".dat");
  std::string plot = "plot ";
  for (std::size_t i = 0; i < curves.size(); ++i)
    plot += message(i ? ", \\\n     " : "", name, " index ", std::to_string(i),
                    " using 1:2 with lines linewidth 2 title ", detail::gnuplot_text(curves[i].label));
  std::string script =
      message("set grid\nset key", detail::gnuplot_key(options.key), " noenhanced\nset title ",
              detail::gnuplot_text(options.title), " noenhanced\nset xlabel ", detail::gnuplot_text(options.x),
              " noenhanced\nset ylabel ", detail::gnuplot_text(options.y), " noenhanced\n",
              options.log_y ? "set logscale y\n" : "", options.log2_x ? "set logscale x 2\n" : "");
  for (char const* format : {"svg", "png"})
    script += message("set terminal ", format, " noenhanced size 800,500\nset output ",
                      detail::gnuplot_file(stem.filename().string() + '.' + format), '\n', plot, '\n');
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

/// Runs gnuplot on <stem>.gp, where it is installed, without the user's own settings; its messages go to <stem>.log.
/// Does not throw when it is missing: a figure is not worth a run.
inline plot_result run_gnuplot(std::filesystem::path const& stem, std::string const& program = "gnuplot") try {
  auto const folder = stem.has_parent_path() ? stem.parent_path().string() : std::string(".");
  for (char const* drawn : {".svg", ".png"}) regular_or_absent(stem.string() + drawn);  // gnuplot would follow a link
  output_file<> const log(stem.string() + ".log", O_CREAT | O_TRUNC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, log.descriptor(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, log.descriptor(), STDERR_FILENO);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  // The program may wait for signals in a thread and block them everywhere else: gnuplot does not inherit that.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  // A name that begins with '-' is an option only without its folder.
  std::string name = program, no_settings = "-d", script = "./" + stem.filename().string() + ".gp";
  std::array<char*, 4> const arguments{name.data(), no_settings.data(), script.data(), nullptr};
  pid_t child = 0;
  int const failed = ::posix_spawnp(&child, program.c_str(), &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed)
    return {false, message("'", program, "' cannot be run: ", std::strerror(failed), ": install gnuplot, or run it on ",
                           stem.string(), ".gp elsewhere")};
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return {false, message("'", program, "' was lost: ", std::strerror(errno))};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {true, {}};
  return {false, message("'", program, "' failed on ", stem.string(), ".gp: see ", log.path().string())};
} catch (input_error const& e) {
  return {false, e.what()};
}

}  // namespace dovetail::io
