// What tests of the command share: a model file, and the budgets it takes.
#ifndef FLASHELM_TESTS_CLI_CLI_FIXTURE_H_
#define FLASHELM_TESTS_CLI_CLI_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/temp_directory.h"

namespace flashelm::test {

// One model file for all tests of a suite: models/tiny-stories as f32.
class CliFixture : public testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();

  static std::string Model() { return directory_->File("tiny.felm"); }
  static std::string File(const std::string& name) {
    return directory_->File(name);
  }
  // The figure in the message of a budget that is too small.
  static uint64_t NamedBudget(const CommandResult& refused);
  // The smallest budget that `args` can run in, as the command names it. How
  // large it is depends on the build: code counts.
  static uint64_t Floor(std::vector<std::string> args);
  // Enough for all weights of the model besides.
  static std::string Plenty(uint64_t floor) {
    return std::to_string(floor + (64u << 20));
  }

 private:
  static TempDirectory* directory_;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_CLI_FIXTURE_H_
