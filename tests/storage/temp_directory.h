// A directory that a test has to itself.
#ifndef FLASHELM_TESTS_STORAGE_TEMP_DIRECTORY_H_
#define FLASHELM_TESTS_STORAGE_TEMP_DIRECTORY_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace flashelm {

// Removed with all it holds. Tests that run at one time get different ones.
class TempDirectory {
 public:
  explicit TempDirectory(std::string parent = testing::TempDir())
      : path_(std::move(parent) + "/flashelm-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) path_.clear();
    EXPECT_FALSE(path_.empty());
  }
  ~TempDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_TEMP_DIRECTORY_H_
