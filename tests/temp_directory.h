// A directory that a test has to itself.
#ifndef FLASHELM_TESTS_TEMP_DIRECTORY_H_
#define FLASHELM_TESTS_TEMP_DIRECTORY_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace flashelm::test {

// Removed with all it holds. Tests that run at one time get different ones.
// Stays where it was made.
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
  std::string File(std::string_view name) const {
    return path_ + "/" + std::string(name);
  }
  // Names of what is in it, sorted.
  std::vector<std::string> List() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_TEMP_DIRECTORY_H_
