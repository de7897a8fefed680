// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <filesystem>
#include <system_error>

#include <fcntl.h>

#include <dovetail/core/error.hpp>
#include <dovetail/core/regular_file.hpp>

namespace dovetail::io {

/// Keeps a folder for one run while this object lives: two that write checkpoints and logs of the same names would
/// leave a mixture. The lock is the system's, on the file `.lock` in the folder; it ends with the process, however that
/// ends, and the file that stays is in nobody's way. Makes the folder where it is missing. Throws input_error if
/// another run, of this process or of another one, has the folder. Of a job's processes one takes it.
class folder_lock {
 public:
  explicit folder_lock(std::filesystem::path const& folder) : file_(lock_file(folder), O_CREAT), lock_(file_.lock()) {
    require<input_error>(lock_ != file_lock::of_another, folder,
                         " is used by another run: give this one a folder of its own, or end that one");
  }
  /// False where the file system has no locks: a second run is not kept out then, and a program should say so.
  bool holds() const { return lock_ == file_lock::ours; }

 private:
  static std::filesystem::path lock_file(std::filesystem::path const& folder) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    require<input_error>(!failed, folder, " cannot be created: ", failed.message());
    return folder / ".lock";
  }

  output_file<> file_;
  file_lock lock_;
};

}  // namespace dovetail::io
