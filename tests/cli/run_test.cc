// flashelm run: the text, where it comes from, and where it ends.

#include <gtest/gtest.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class RunTest : public CliFixture {
 protected:
  static CommandOptions Input(std::string text) {
    CommandOptions options;
    options.input = std::move(text);
    return options;
  }
  static CommandOptions Interrupted(size_t after_bytes) {
    CommandOptions options;
    options.interrupt_after_bytes = after_bytes;
    return options;
  }
};

TEST_F(RunTest, RunWritesTheGoldenTextAndNothingElseToStdout) {
  const Golden golden = ReadGolden("tiny-stories");
  for (const GoldenPrompt& prompt : golden.prompts) {
    const auto result = Flashelm({"run", "-m", Model(), "-p", prompt.text, "-n",
                                  std::to_string(prompt.greedy_ids.size()),
                                  "--ignore-eos", "--echo"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, prompt.greedy_text + "\n");
  }
}

TEST_F(RunTest, PromptComesFromArgumentFileAndStandardInputAlike) {
  const std::string prompt = "The king had";
  WriteFile(File("prompt.txt"), prompt);
  const auto from_argument =
      Flashelm({"run", "-m", Model(), "-p", prompt, "-n", "12"});
  ASSERT_EQ(from_argument.exit_code, 0) << from_argument.err;
  const auto from_file =
      Flashelm({"run", "-m", Model(), "-f", File("prompt.txt"), "-n", "12"});
  const auto from_stdin =
      Flashelm({"run", "-m", Model(), "-p", "-", "-n", "12"}, Input(prompt));
  EXPECT_EQ(from_file.out, from_argument.out);
  EXPECT_EQ(from_stdin.out, from_argument.out);
}

TEST_F(RunTest, StatsHaveEveryAgreedKey) {
  ASSERT_EQ(Flashelm({"run", "-m", Model(), "-p", "A", "-n", "3", "--stats",
                      File("keys.json")})
                .exit_code,
            0);
  const json stats = json::parse(ReadFile(File("keys.json")));
  for (const char* key : {"model_path",
                          "model_size_bytes",
                          "n_params",
                          "weights",
                          "n_threads",
                          "mem_budget_bytes",
                          "budget_enforced",
                          "peak_rss_bytes",
                          "io_backend",
                          "direct_io",
                          "n_prompt",
                          "n_gen",
                          "prompt_tps",
                          "gen_tps",
                          "ttft_ms",
                          "itl_p50_ms",
                          "itl_p95_ms",
                          "flash_bytes_per_token",
                          "flash_bytes_bound_per_token",
                          "flash_read_gbps",
                          "io_busy_ms",
                          "io_wait_ms",
                          "compute_ms",
                          "cache_hit_rate",
                          "dense_fetches",
                          "simd"}) {
    EXPECT_TRUE(stats.contains(key)) << key;
  }
  EXPECT_EQ(stats["n_gen"], 3);
  EXPECT_EQ(stats["n_prompt"], 2);
  EXPECT_TRUE(stats["cache_hit_rate"].is_null());
  EXPECT_TRUE(stats["dense_fetches"].is_null());
}

TEST_F(RunTest, SimdIsWhatWasAskedFor) {
  const auto list = Flashelm({"run", "--simd", "list"});
  ASSERT_EQ(list.exit_code, 0) << list.err;
  std::istringstream targets(list.out);
  std::set<std::string> texts;
  std::string target;
  while (std::getline(targets, target)) {
    SCOPED_TRACE(target);
    // In either case.
    std::string name = target;
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    const std::string file = File(target + ".json");
    const auto result = Flashelm({"run", "-m", Model(), "-p", "Once upon", "-n",
                                  "8", "--simd", name, "--stats", file});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(json::parse(ReadFile(file))["simd"], target);
    texts.insert(result.out);
  }
  EXPECT_EQ(texts.size(), 1u);

  const auto unknown =
      Flashelm({"run", "-m", Model(), "-p", "A", "--simd", ""});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_NE(unknown.err.find(target), std::string::npos)
      << unknown.err << " does not say what there is";
}

TEST_F(RunTest, GenerationStopsWhereItIsTold) {
  const std::vector<std::string> run = {"run",
                                        "-m",
                                        Model(),
                                        "-p",
                                        "Once upon a time",
                                        "--stats",
                                        File("stop.json")};
  const auto reason = [&](std::vector<std::string> more) {
    std::vector<std::string> args = run;
    args.insert(args.end(), more.begin(), more.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const json stats = json::parse(ReadFile(File("stop.json")));
    return std::pair(stats["stop_reason"].get<std::string>(), result);
  };
  const auto by_count = reason({"-n", "5"});
  EXPECT_EQ(by_count.first, "n_predict");
  const auto nothing = reason({"-n", "0"});
  EXPECT_EQ(nothing.first, "n_predict");
  EXPECT_EQ(nothing.second.out, "\n");
  const auto by_string = reason({"--stop", " girl", "--stop", "Lily"});
  EXPECT_EQ(by_string.first, "stop_string");
  EXPECT_EQ(by_string.second.out, ", there was a little\n");
  const auto by_context = reason({"-n", "-1", "-c", "16", "--ignore-eos"});
  EXPECT_EQ(by_context.first, "context_full");
  EXPECT_NE(by_context.second.err.find("context of 16 positions is full"),
            std::string::npos);
}

TEST_F(RunTest, TheSameSeedWritesTheSameText) {
  const auto run = [&](const char* seed) {
    return Flashelm({"run", "-m", Model(), "-p", "One day", "-n", "40",
                     "--temp", "1", "-s", seed})
        .out;
  };
  EXPECT_EQ(run("7"), run("7"));
  EXPECT_NE(run("7"), run("8"));
}

TEST_F(RunTest, InterruptStopsGenerationCleanly) {
  std::vector<std::string> run = {
      "run", "-m", Model(),        "-p",      "Once upon a time",
      "-n",  "-1", "--ignore-eos", "--stats", File("int.json")};
  run.insert(run.end(), {"--mem-budget", std::to_string(Floor(run))});
  const auto result = Flashelm(run, Interrupted(20));
  EXPECT_EQ(result.exit_code, 130) << result.err;
  ASSERT_FALSE(result.out.empty());
  EXPECT_EQ(result.out.back(), '\n');
  const json stats = json::parse(ReadFile(File("int.json")));
  EXPECT_EQ(stats["stop_reason"], "cancelled");
}

TEST_F(RunTest, AHalfWrittenCodePointIsNeverPrinted) {
  // The prompt's emoji makes the model continue with byte pieces.
  const Golden golden = ReadGolden("tiny-stories-relu");
  const GoldenPrompt& prompt = golden.prompts.back();
  const std::string relu = File("relu.felm");
  ASSERT_EQ(Flashelm({"convert", SampleModelDirectory("tiny-stories-relu"),
                      "-o", relu})
                .exit_code,
            0);
  for (int n = 1; n <= 6; ++n) {
    const auto result = Flashelm({"run", "-m", relu, "-p", prompt.text, "-n",
                                  std::to_string(n), "--echo"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NO_THROW(json(result.out).dump()) << "not UTF-8: " << result.out;
  }
}

}  // namespace
}  // namespace flashelm::test
