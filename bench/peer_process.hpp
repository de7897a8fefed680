// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

/// A program that is asked for so many repetitions by a line on its input, and answers with their seconds in a line on
/// its output: so a peer in another language takes its turns in our run.
class peer_process {
 public:
  explicit peer_process(std::vector<std::string> const& command) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) return;
    child_ = fork();
    if (child_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      std::vector<char*> words;
      for (auto const& w : command) words.push_back(const_cast<char*>(w.c_str()));
      words.push_back(nullptr);
      execvp(words[0], words.data());
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    to_ = fdopen(to[1], "w");
    from_ = fdopen(from[0], "r");
    version = line();  // once it is ready it says what it is
  }
  peer_process(peer_process const&) = delete;
  peer_process& operator=(peer_process const&) = delete;
  ~peer_process() { end(); }

  /// Ends it; whether it ended well.
  bool end() {
    if (to_) std::fclose(std::exchange(to_, nullptr));  // the end of its input is its end
    if (from_) std::fclose(std::exchange(from_, nullptr));
    int status = -1;
    pid_t const child = std::exchange(child_, -1);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
  }
  /// The next line of its output, without its end; empty also when there is none any more.
  std::string line() {
    char text[256];
    if (!from_ || !std::fgets(text, sizeof text, from_)) return {};
    std::string s = text;
    while (!s.empty() && s.back() == '\n') s.pop_back();
    return s;
  }

  /// Its answer to one line; empty if it has died.
  std::string ask(std::string const& question) {
    if (std::fprintf(to_, "%s\n", question.c_str()) < 0 || std::fflush(to_) != 0) return {};
    return line();
  }
  /// Seconds of `count` repetitions; negative if it has died.
  double seconds(long count) { return seconds(std::to_string(count)); }
  double seconds(std::string const& question) {
    auto const answer = ask(question);
    return answer.empty() ? -1 : std::atof(answer.c_str());
  }

  std::string version;

 private:
  pid_t child_ = -1;
  std::FILE *to_ = nullptr, *from_ = nullptr;
};

/// The Python of DOVETAIL_PEER_PYTHON, or one of the machine that has PyTorch, or nothing. Says which on stderr:
/// PyTorch of a distribution is often years old, and a claim against it says little.
inline std::string python_with_torch() {
  auto const has_torch = [](std::string const& python) {
    return peer_process({python, "-c", "try:\n import torch.distributed\n print('yes')\nexcept Exception: pass"})
               .version == "yes";
  };
  if (auto const* named = std::getenv("DOVETAIL_PEER_PYTHON"); named && *named) {
    if (has_torch(named)) return named;
    std::fprintf(stderr, "bench: DOVETAIL_PEER_PYTHON is %s, which cannot import torch: no peer is measured\n", named);
    return {};
  }
  for (std::string const python : {"python3", "/usr/bin/python3"})
    if (has_torch(python)) {
      std::fprintf(stderr, "bench: PyTorch is that of %s; DOVETAIL_PEER_PYTHON names the python of another\n",
                   python.c_str());
      return python;
    }
  std::fprintf(stderr,
               "bench: no PyTorch was found, so no peer is measured: python3 -m venv DIR, DIR/bin/pip install torch, "
               "and DOVETAIL_PEER_PYTHON=DIR/bin/python\n");
  return {};
}

}  // namespace bench
