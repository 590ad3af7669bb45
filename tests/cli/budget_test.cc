// --mem-budget: what is refused, what is named as the least, and that it holds.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class BudgetTest : public CliFixture {};

TEST_F(BudgetTest, TheBudgetNamedOnRefusalWorksAndIsKept) {
  const std::vector<std::string> run = {
      "run", "-m", Model(), "-p",      "Once upon a time", "-t",
      "2",   "-n", "100",   "--stats", File("stats.json"), "--mem-budget"};
  const auto with_budget = [&](const std::string& budget) {
    std::vector<std::string> args = run;
    args.push_back(budget);
    return Flashelm(args);
  };
  const auto refused = with_budget("1");
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_EQ(refused.out, "");
  const uint64_t least = NamedBudget(refused);
  EXPECT_EQ(with_budget(std::to_string(least - 1)).exit_code, 4);

  const auto resident = with_budget(Plenty(least));
  ASSERT_EQ(resident.exit_code, 0) << resident.err;
  const json resident_stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_EQ(resident_stats["flash_bytes_per_token"], 0);

  const auto floor = with_budget(std::to_string(least));
  ASSERT_EQ(floor.exit_code, 0) << floor.err;
  EXPECT_EQ(floor.out, resident.out);
  const json stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_GE(stats["flash_bytes_per_token"].get<double>(), 0.8 * 16333312);
  EXPECT_GE(stats["flash_bytes_per_token"].get<double>(),
            stats["flash_bytes_bound_per_token"].get<double>());
#ifndef FLASHELM_FOREIGN_MEMORY
  EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), least);
  EXPECT_LE(resident_stats["peak_rss_bytes"].get<uint64_t>(),
            std::stoull(Plenty(least)));
  // The promise for this model: weights of 15.6 MiB, in f32.
  EXPECT_LE(least, 12u << 20);
#endif
}

TEST_F(BudgetTest, ThePlanIsCloseToThePeak) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  // Room that no budget gets back: what is planned and never taken.
  constexpr uint64_t kMostSlack = 4 << 20;
  std::vector<std::string> run = {"run",
                                  "-m",
                                  Model(),
                                  "-p",
                                  "Once upon a time",
                                  "-t",
                                  "2",
                                  "-n",
                                  "-1",
                                  "-c",
                                  "64",
                                  "--ignore-eos",
                                  "--stats",
                                  File("slack.json")};
  const uint64_t floor = Floor(run);
  run.insert(run.end(), {"--mem-budget", ""});
  for (const uint64_t more : {0u, 7u << 20, 64u << 20}) {
    SCOPED_TRACE(more);
    run.back() = std::to_string(floor + more);
    const auto result = Flashelm(run);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json stats = json::parse(ReadFile(File("slack.json")));
    const auto planned = stats["planned_bytes"].get<uint64_t>();
    const auto peak = stats["peak_rss_bytes"].get<uint64_t>();
    EXPECT_LE(planned, stats["mem_budget_bytes"].get<uint64_t>());
    EXPECT_LE(peak, planned);
    EXPECT_LE(planned - peak, kMostSlack);
  }
}

TEST_F(BudgetTest, LogitsAreTheSameFileAtTheFloorAndResident) {
  const std::vector<std::string> base = {"logits", "-m", Model(), "-p",
                                         "Tom and Sam went to the park."};
  const auto logits = [&](const std::string& budget, const std::string& file) {
    std::vector<std::string> args = base;
    args.insert(args.end(), {"-o", File(file), "--mem-budget", budget,
                             "--stats", File("logits.json")});
    return Flashelm(args);
  };
  const auto refused = logits("1", "refused.npy");
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_FALSE(std::filesystem::exists(File("refused.npy")));
  const uint64_t least = NamedBudget(refused);
  ASSERT_EQ(logits(Plenty(least), "resident.npy").exit_code, 0);
  const auto floor = logits(std::to_string(least), "floor.npy");
  ASSERT_EQ(floor.exit_code, 0) << floor.err;
  EXPECT_EQ(ReadFile(File("floor.npy")), ReadFile(File("resident.npy")));
#ifndef FLASHELM_FOREIGN_MEMORY
  const json stats = json::parse(ReadFile(File("logits.json")));
  EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), least);
#endif
  const NpyMatrix matrix = ReadNpy(File("floor.npy"));
  EXPECT_EQ(matrix.cols, 2048u);
}

TEST_F(BudgetTest, EveryVerbKeepsTheBudgetThatItNames) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const std::string bf16 = File("bf16.felm");
  ASSERT_EQ(
      Flashelm({"convert", SampleModelDirectory("tiny-stories"), "-o", bf16})
          .exit_code,
      0);
  std::string text;
  while (text.size() < 300) text += "The dog and the cat saw a bird. ";
  WriteFile(File("long.txt"), text);
  for (const std::string& model : {Model(), bf16}) {
    for (const char* threads : {"1", "4"}) {
      const std::vector<std::string> shared = {
          "-m", model, "-t", threads, "-f", File("long.txt")};
      std::vector<std::vector<std::string>> commands = {
          {"run", "-n", "4", "--temp", "1", "--stats", File("peak.json")},
          {"logits", "-o", File("peak.npy"), "--stats", File("peak.json")},
          {"perplexity", "-c", "64", "--json"},
          {"perplexity", "-c", "64", "--reference", Model(), "--json"}};
      for (std::vector<std::string>& args : commands) {
        args.insert(args.end(), shared.begin(), shared.end());
        const uint64_t floor = Floor(args);
        args.insert(args.end(), {"--mem-budget", std::to_string(floor)});
        const auto result = Flashelm(args);
        ASSERT_EQ(result.exit_code, 0) << args[0] << ": " << result.err;
        const json stats = json::parse(
            args[0] == "perplexity" ? result.out : ReadFile(File("peak.json")));
        EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), floor)
            << args[0] << " with " << threads << " threads";
      }
    }
  }
}

}  // namespace
}  // namespace flashelm::test
