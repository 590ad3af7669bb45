// flashelm logits and perplexity: what they write.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class ScoreTest : public CliFixture {};

TEST_F(ScoreTest, LogitsOfTokensAreThoseOfTheirText) {
  ASSERT_EQ(Flashelm({"logits", "-m", Model(), "-p", "Once upon a time", "-o",
                      File("text.npy")})
                .exit_code,
            0);
  ASSERT_EQ(Flashelm({"logits", "-m", Model(), "--tokens", "1,509,491,261,424",
                      "-o", File("ids.npy")})
                .exit_code,
            0);
  EXPECT_EQ(ReadFile(File("text.npy")), ReadFile(File("ids.npy")));
}

TEST_F(ScoreTest, PerplexityPrintsTheAgreedKeys) {
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto result = Flashelm({"perplexity", "-m", Model(), "-f",
                                File("short.txt"), "-c", "8", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json printed = json::parse(result.out);
  for (const char* key :
       {"perplexity", "mean_nll", "stderr_nll", "n_tokens", "n_ctx"}) {
    EXPECT_TRUE(printed.contains(key)) << key;
  }
  EXPECT_EQ(printed["n_ctx"], 8);
  EXPECT_NE(Flashelm({"perplexity", "-m", Model(), "-f", File("short.txt")})
                .out.find("perplexity "),
            std::string::npos);
}

TEST_F(ScoreTest, PerplexityComparesWithAReference) {
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto result =
      Flashelm({"perplexity", "-m", Model(), "-f", File("short.txt"),
                "--reference", Model(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json printed = json::parse(result.out);
  EXPECT_EQ(printed["mean_kl"], 0);
  EXPECT_EQ(printed["same_top"], 1);
  EXPECT_TRUE(printed.contains("stderr_kl"));
}

}  // namespace
}  // namespace flashelm::test
