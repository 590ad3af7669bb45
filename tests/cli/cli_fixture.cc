#include "tests/cli/cli_fixture.h"

#include <regex>

#include "tests/core/test_model.h"

namespace flashelm::test {

TempDirectory* CliFixture::directory_ = nullptr;

void CliFixture::SetUpTestSuite() {
  directory_ = new TempDirectory();
  const auto converted =
      Flashelm({"convert", SampleModelDirectory("tiny-stories"), "-o", Model(),
                "--weights", "f32"});
  ASSERT_EQ(converted.exit_code, 0) << converted.err;
  EXPECT_EQ(converted.out, "") << "results alone go to stdout";
}

void CliFixture::TearDownTestSuite() {
  delete directory_;
  directory_ = nullptr;
}

uint64_t CliFixture::NamedBudget(const CommandResult& refused) {
  std::smatch match;
  EXPECT_TRUE(
      std::regex_search(refused.err, match,
                        std::regex("smallest feasible one is ([0-9]+) bytes")))
      << refused.err;
  return match.empty() ? 0 : std::stoull(match[1]);
}

uint64_t CliFixture::Floor(std::vector<std::string> args) {
  args.insert(args.end(), {"--mem-budget", "1"});
  return NamedBudget(Flashelm(args));
}

}  // namespace flashelm::test
