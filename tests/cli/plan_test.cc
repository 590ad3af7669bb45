// flashelm plan: what it says adds up, and holds.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/cli/cli_fixture.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class PlanTest : public CliFixture {
 protected:
  static json PlanFor(const std::string& budget,
                      std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"plan",         "-m",   Model(),
                                     "--mem-budget", budget, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
  static std::vector<std::string> Plan() { return {"plan", "-m", Model()}; }
};

TEST_F(PlanTest, PartsAddUpToTheTotalAndStayInTheBudget) {
  const uint64_t floor = Floor(Plan());
  for (const std::string& budget :
       {std::to_string(floor), std::to_string(floor + (4u << 20)),
        Plenty(floor)}) {
    const json plan = PlanFor(budget);
    uint64_t sum = 0;
    for (const json& part : plan["parts"]) {
      EXPECT_TRUE(part["name"].is_string());
      sum += part["bytes"].get<uint64_t>();
    }
    EXPECT_EQ(plan["planned_bytes"], sum);
    EXPECT_LE(sum, std::stoull(budget));
    EXPECT_EQ(plan["minimum_budget_bytes"], floor);
    EXPECT_EQ(plan["weight_bytes"], 16333312);
    EXPECT_EQ(plan["pinned_bytes"].get<uint64_t>() +
                  plan["flash_bytes_bound_per_token"].get<uint64_t>(),
              plan["weight_bytes"]);
  }
}

TEST_F(PlanTest, ForecastFollowsFromItsRates) {
  const json plan = PlanFor(std::to_string(Floor(Plan())));
  const json& forecast = plan["forecast"];
  const auto streamed = plan["flash_bytes_bound_per_token"].get<double>();
  const double read_ms =
      1000 * streamed / plan["read_bytes_per_second"].get<double>();
  EXPECT_NEAR(forecast["read_ms"].get<double>(), read_ms, read_ms * 1e-9);
  const double token_ms =
      std::max(read_ms, forecast["compute_ms"].get<double>());
  EXPECT_NEAR(forecast["gen_tps"].get<double>(), 1000 / token_ms,
              1e-6 / token_ms);
  EXPECT_GT(forecast["prompt_tps"].get<double>(), 0);
}

TEST_F(PlanTest, NothingIsReadToMeasureWhatIsNeverRead) {
  const json plan = PlanFor("1000G");  // Above any RAM: takes what it needs.
  EXPECT_EQ(plan["flash_bytes_bound_per_token"], 0);
  EXPECT_TRUE(plan["read_bytes_per_second"].is_null());
  EXPECT_EQ(plan["forecast"]["read_ms"], 0);
  EXPECT_GT(plan["forecast"]["gen_tps"].get<double>(), 0);
}

TEST_F(PlanTest, HasTheAgreedKeys) {
  const json plan = PlanFor("50G", {"-c", "64", "--kv-type", "bf16"});
  for (const char* key : {"model_path",
                          "model_size_bytes",
                          "n_params",
                          "weights",
                          "n_threads",
                          "mem_budget_bytes",
                          "budget_enforced",
                          "planned_bytes",
                          "minimum_budget_bytes",
                          "io_backend",
                          "direct_io",
                          "n_ctx",
                          "n_batch",
                          "kv_type",
                          "parts",
                          "weight_bytes",
                          "pinned_bytes",
                          "flash_bytes_bound_per_token",
                          "read_bytes_per_second",
                          "compute_bytes_per_second",
                          "batch_compute_bytes_per_second",
                          "forecast",
                          "kept_fraction",
                          "cached_bundles",
                          "streamed_layers",
                          "fresh_bytes_per_token",
                          "simd"}) {
    EXPECT_TRUE(plan.contains(key)) << key;
  }
  EXPECT_EQ(plan["n_ctx"], 64);
  EXPECT_EQ(plan["kv_type"], "bf16");
}

TEST_F(PlanTest, RunTakesTheSmallestBudgetThatPlanNames) {
  const std::string floor = std::to_string(Floor(Plan()));
  const auto run = Flashelm({"run", "-m", Model(), "-p", "Once upon a time",
                             "-n", "3", "--temp", "1", "--mem-budget", floor});
  EXPECT_EQ(run.exit_code, 0) << run.err;
}

TEST_F(PlanTest, ABudgetTooSmallLeavesStandardOutputEmpty) {
  for (const char* budget : {"0", "1", "1%"}) {
    for (const bool as_json : {false, true}) {
      std::vector<std::string> args = Plan();
      args.insert(args.end(), {"--mem-budget", budget});
      if (as_json) args.push_back("--json");
      const auto refused = Flashelm(args);
      EXPECT_EQ(refused.exit_code, 4) << budget;
      EXPECT_EQ(refused.out, "");
      EXPECT_GT(NamedBudget(refused), 1u << 20);
    }
  }
}

TEST_F(PlanTest, MappedWeightsAreNotPlannedFor) {
  const json plan = PlanFor("1M", {"--io", "mmap", "--allow-unenforced"});
  EXPECT_EQ(plan["budget_enforced"], false);
  EXPECT_TRUE(plan["forecast"].is_null());
  EXPECT_TRUE(plan["flash_bytes_bound_per_token"].is_null());
}

TEST_F(PlanTest, TextSaysWhatJsonSays) {
  std::vector<std::string> args = Plan();
  args.insert(args.end(), {"--mem-budget", std::to_string(Floor(Plan()))});
  const auto text = Flashelm(args);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  for (const char* words : {"KV cache", "planned", "smallest feasible budget",
                            "(M - P)", "flash (S)", "RAM (D)", "At best"}) {
    EXPECT_NE(text.out.find(words), std::string::npos) << words;
  }
}

TEST_F(PlanTest, WrongUsageIsRefused) {
  const std::vector<std::vector<std::string>> cases = {
      {"--mem-budget", "-1"}, {"--mem-budget", "much"},
      {"--mem-budget", ""},   {"--mem-budget", "1G,2G"},
      {"--io", "mmap"},       {"--allow-unenforced"},
      {"--io", "aio"},        {"-c", "513"},
      {"--kv-type", "f16"},   {"-t", "5000"},
      {"--windows", "3"}};
  for (const std::vector<std::string>& more : cases) {
    std::vector<std::string> args = Plan();
    args.insert(args.end(), more.begin(), more.end());
    const auto refused = Flashelm(args);
    EXPECT_EQ(refused.exit_code, 2) << more[0] << ": " << refused.err;
    EXPECT_EQ(refused.out, "");
    EXPECT_NE(refused.err, "");
  }
}

}  // namespace
}  // namespace flashelm::test
