// run --prompt-cache.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/cli/cli_fixture.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class PromptCacheTest : public CliFixture {
 protected:
  PromptCacheTest() { std::filesystem::remove(Cache()); }

  static std::string Cache() { return File("prompt.session"); }
  static std::vector<std::string> Run(const std::string& prompt,
                                      std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"run",
                                     "-m",
                                     Model(),
                                     "-p",
                                     prompt,
                                     "-n",
                                     "25",
                                     "-t",
                                     "2",
                                     "--stats",
                                     File("stats.json"),
                                     "--temp",
                                     "1",
                                     "-s",
                                     "5"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  // Runs with the cache and without; the tokens that were reused.
  static uint64_t Reused(const std::string& prompt) {
    const auto plain = Flashelm(Run(prompt));
    EXPECT_TRUE(Stats()["n_prompt_reused"].is_null());
    const auto cached = Flashelm(Run(prompt, {"--prompt-cache", Cache()}));
    EXPECT_EQ(cached.exit_code, 0) << cached.err;
    EXPECT_EQ(cached.out, plain.out);
    const uint64_t reused = Stats()["n_prompt_reused"].get<uint64_t>();
    EXPECT_NE(cached.err.find("had " + std::to_string(reused) + " of the "),
              std::string::npos)
        << cached.err;
    return reused;
  }
  static json Stats() { return json::parse(ReadBytes(File("stats.json"))); }
};

TEST_F(PromptCacheTest, ReusesWhatPromptsShareAndGivesTheSameText) {
  const std::string first = "Once upon a time there was a little dog";
  EXPECT_EQ(Reused(first), 0u);
  const uint64_t n_prompt = Stats()["n_prompt"].get<uint64_t>();
  std::string saved = ReadBytes(Cache());
  EXPECT_FALSE(saved.empty());

  // All but the last one, whose logits are wanted; nothing new is saved.
  EXPECT_EQ(Reused(first), n_prompt - 1);
  EXPECT_EQ(Reused("Once upon a time"), 4u);
  EXPECT_EQ(ReadBytes(Cache()), saved);

  // Longer, and other from some place on: what is new is saved.
  EXPECT_EQ(Reused(first + " who liked to play"), n_prompt);
  EXPECT_NE(ReadBytes(Cache()), saved);
  const uint64_t longer = Stats()["n_prompt"].get<uint64_t>();
  EXPECT_EQ(Reused(first + " who liked to play"), longer - 1);
  EXPECT_EQ(Reused("Once upon a time there was a big house"), 8u);
  // BOS alone is shared.
  EXPECT_EQ(Reused("The cat sat"), 1u);
  EXPECT_EQ(Reused("The cat sat"), Stats()["n_prompt"].get<uint64_t>() - 1);
}

TEST_F(PromptCacheTest, SmallAndLargeBudgetsShareAFile) {
  std::vector<std::string> args =
      Run("One day a bird came", {"--prompt-cache", Cache()});
  const auto resident = Flashelm(args);
  ASSERT_EQ(resident.exit_code, 0) << resident.err;
  const uint64_t floor = Floor(args);
  args.insert(args.end(), {"--mem-budget", std::to_string(floor)});
  const auto small = Flashelm(args);
  ASSERT_EQ(small.exit_code, 0) << small.err;
  EXPECT_EQ(small.out, resident.out);
  EXPECT_GT(Stats()["n_prompt_reused"].get<uint64_t>(), 1u);
#ifndef FLASHELM_FOREIGN_MEMORY
  EXPECT_LE(Stats()["peak_rss_bytes"].get<uint64_t>(), floor);
  std::filesystem::remove(Cache());
  const auto saving = Flashelm(args);
  EXPECT_EQ(saving.out, resident.out);
  EXPECT_LE(Stats()["peak_rss_bytes"].get<uint64_t>(), floor);
#endif
}

TEST_F(PromptCacheTest, BadFilesAreRefusedAndLeftAlone) {
  ASSERT_EQ(Reused("Once upon a time"), 0u);
  std::string bytes = ReadBytes(Cache());
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(Cache(), std::ios::binary) << bytes;
  auto result = Flashelm(Run("Once upon a time", {"--prompt-cache", Cache()}));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("damaged"), std::string::npos) << result.err;
  EXPECT_EQ(ReadBytes(Cache()), bytes);

  result = Flashelm(Run("A", {"--prompt-cache", Model()}));
  EXPECT_EQ(result.exit_code, 2);
  result = Flashelm(Run("A", {"--prompt-cache", File("none/x")}));
  EXPECT_EQ(result.exit_code, 3);

  std::filesystem::remove(Cache());
  ASSERT_EQ(Reused("Once upon a time"), 0u);
  result = Flashelm(Run("Once upon a time",
                        {"--prompt-cache", Cache(), "--kv-type", "bf16"}));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--kv-type f32"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace flashelm::test
