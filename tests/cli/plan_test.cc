// flashelm plan: what it says adds up, and holds.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
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
  const double gen_tps = plan["streaming_bytes_per_second"].get<double>() /
                         plan["weight_bytes"].get<double>();
  EXPECT_NEAR(forecast["gen_tps"].get<double>(), gen_tps, gen_tps * 1e-9);
  // Both at once until one has no more to do, the rest of the other alone.
  const double sweep_read_ms = forecast["sweep_read_ms"].get<double>();
  const double compute_ms = forecast["sweep_compute_ms"].get<double>();
  const double slow_read_ms =
      sweep_read_ms * std::max(1.0, plan["read_slowdown"].get<double>());
  const double slow_compute_ms =
      compute_ms * std::max(1.0, plan["compute_slowdown"].get<double>());
  const double both_ms = std::min(slow_read_ms, slow_compute_ms);
  const double sweep_ms =
      std::min(sweep_read_ms + compute_ms,
               both_ms + sweep_read_ms * (1 - both_ms / slow_read_ms) +
                   compute_ms * (1 - both_ms / slow_compute_ms));
  EXPECT_NEAR(forecast["sweep_ms"].get<double>(), sweep_ms, sweep_ms * 1e-6);
  EXPECT_GT(forecast["prompt_tps"].get<double>(), 0);
}

TEST_F(PlanTest, NothingIsReadToMeasureWhatIsNeverRead) {
  const json plan = PlanFor("1000G");  // Above any RAM: takes what it needs.
  EXPECT_EQ(plan["flash_bytes_bound_per_token"], 0);
  EXPECT_TRUE(plan["read_bytes_per_second"].is_null());
  EXPECT_TRUE(plan["streaming_bytes_per_second"].is_null());
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
                          "forecasts",
                          "expected_peak_rss_bytes",
                          "is_converted",
                          "storage",
                          "read_rate_source",
                          "read_slowdown",
                          "compute_slowdown",
                          "streaming_bytes_per_second",
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
  for (const char* words :
       {"KV cache", "planned", "smallest feasible budget", "(M - P)",
        "flash (S)", "RAM (D)", "About", "expected peak", "model file",
        "this device", "SD card"}) {
    EXPECT_NE(text.out.find(words), std::string::npos) << words;
  }
}

// From the config alone, what the converted file is planned to be.
TEST_F(PlanTest, ACheckpointIsPlannedBeforeItIsConverted) {
  const std::string source = FLASHELM_SOURCE_DIR "/models/tiny-stories";
  for (const std::string& path : {source, source + "/config.json"}) {
    const auto result = Flashelm({"plan", "-m", path, "--weights", "f32",
                                  "--mem-budget", "14M,50G", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json planned = json::parse(result.out);
    const json file = PlanFor("14M,50G");
    EXPECT_EQ(planned["is_converted"], false);
    EXPECT_EQ(file["is_converted"], true);
    for (const char* key : {"n_params", "weights", "weight_bytes", "n_ctx",
                            "n_batch", "mem_budget_bytes"}) {
      EXPECT_EQ(planned[key], file[key]) << key;
    }
    EXPECT_NEAR(planned["model_size_bytes"].get<double>(),
                file["model_size_bytes"].get<double>(), 4096);
    EXPECT_EQ(planned["parts"].size(), file["parts"].size());
    for (size_t i = 0; i < planned["parts"].size(); ++i) {
      EXPECT_EQ(planned["parts"][i]["name"], file["parts"][i]["name"]);
      EXPECT_NEAR(planned["parts"][i]["bytes"].get<double>(),
                  file["parts"][i]["bytes"].get<double>(), 16384)
          << planned["parts"][i]["name"];
    }
    // Nothing is there to be measured.
    EXPECT_TRUE(planned["read_bytes_per_second"].is_null());
    EXPECT_FALSE(planned["forecasts"][0]["gen_tps"].contains("device"));
    EXPECT_TRUE(file["forecasts"][0]["gen_tps"].contains("device"));
  }
}

TEST_F(PlanTest, StorageClassesBoundTheSpeed) {
  const auto result =
      Flashelm({"plan", "--shape", "270M", "--attention", "q8", "--ffn", "q4",
                "--embedding", "q8", "--layout", "rows", "-c", "64", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json plan = json::parse(result.out);
  EXPECT_EQ(plan["weights"], "q8+q4");
  std::vector<std::string> budgets;
  double last_flash = 1e300;
  for (const json& row : plan["forecasts"]) {
    budgets.push_back(row["mem_budget"]);
    // A sanitizer's memory does not fit into the smallest.
    if (row["planned_bytes"].is_null()) continue;
    const auto flash = row["flash_bytes_bound_per_token"].get<double>();
    const json& tps = row["gen_tps"];
    const auto is_no_slower = [&tps](const char* faster, const char* slower) {
      // But for the last bits: each is a sum of its own.
      return tps[faster].get<double>() >=
             tps[slower].get<double>() * (1 - 1e-9);
    };
    EXPECT_TRUE(is_no_slower("nvme", "ufs")) << tps;
    EXPECT_TRUE(is_no_slower("ufs", "emmc")) << tps;
    EXPECT_TRUE(is_no_slower("emmc", "sd")) << tps;
    if (flash == 0) continue;
    // The card or this processor: nvme says how fast that is, where it matters.
    const double sd_tps = tps["sd"];
    const double bound = std::min(90e6 / flash, tps["nvme"].get<double>());
    EXPECT_NEAR(sd_tps / bound, 1, 1e-6);
    // "auto" comes first, and is what this machine happens to have.
    if (row["mem_budget"] == "auto") continue;
    EXPECT_LT(flash, last_flash);
    last_flash = flash;
  }
  EXPECT_EQ(budgets,
            (std::vector<std::string>{"auto", "25%", "50%", "75%", "100%"}));
  const auto one = Flashelm({"plan", "--shape", "270M", "--storage", "sd", "-c",
                             "64", "--mem-budget", "25%", "--json"});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const json sd = json::parse(one.out);
  // The slower of the card and this processor, which nothing was told to slow.
  const double read_ms =
      1000 * sd["flash_bytes_bound_per_token"].get<double>() / 90e6;
  const double compute_ms = sd["forecast"]["compute_ms"];
  EXPECT_NEAR(sd["forecast"]["gen_tps"].get<double>(),
              1000 / std::max(read_ms, compute_ms), 1e-6);
  EXPECT_TRUE(sd["read_slowdown"].is_null());
  EXPECT_EQ(sd["storage"], "sd");
  EXPECT_EQ(sd["read_bytes_per_second"], 90000000);
  EXPECT_EQ(sd["read_rate_source"], "storage class");
  EXPECT_EQ(sd["forecast"]["gen_tps"], sd["forecasts"][0]["gen_tps"]["sd"]);
}

TEST_F(PlanTest, TooSmallBudgetsOfAListAreRows) {
  const std::string floor = std::to_string(Floor(Plan()));
  const json plan = PlanFor("1M," + floor);
  EXPECT_EQ(plan["mem_budget_bytes"], std::stoull(floor));
  EXPECT_TRUE(plan["forecasts"][0]["planned_bytes"].is_null());
  EXPECT_TRUE(plan["forecasts"][0]["gen_tps"]["device"].is_null());
  EXPECT_EQ(plan["forecasts"][1]["planned_bytes"], plan["planned_bytes"]);
  std::vector<std::string> args = Plan();
  args.insert(args.end(), {"--mem-budget", "1M,2M"});
  EXPECT_EQ(Flashelm(args).exit_code, 4);
}

// Of a process that has computed, with a prompt that fills its batch.
TEST_F(PlanTest, ExpectedPeakIsNearThatOfARun) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const json plan = PlanFor("24M", {"-c", "128"});
  const auto run = Flashelm({"run", "-m", Model(), "-c", "128", "--mem-budget",
                             "24M", "-n", "4", "-p",
                             "Once upon a time there was a little girl who "
                             "lived in a house near the big woods with a dog "
                             "and a cat and they liked to play all day long"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto expected = plan["expected_peak_rss_bytes"].get<double>();
  EXPECT_LE(expected, plan["planned_bytes"].get<double>());
  EXPECT_NEAR(expected, static_cast<double>(run.peak_rss_bytes), 3e6);
}

TEST_F(PlanTest, RefusesWhatIsNoModelAndNoConfig) {
  const auto code = [](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"plan"};
    args.insert(args.end(), more.begin(), more.end());
    const auto refused = Flashelm(args);
    EXPECT_EQ(refused.out, "");
    EXPECT_NE(refused.err, "");
    return refused.exit_code;
  };
  std::ofstream(File("garbage.json")) << "{\"model_dim\": [[[[";
  std::ofstream(File("empty.json")) << "{}";
  EXPECT_EQ(code({}), 2);
  EXPECT_EQ(code({"-m", File("garbage.json")}), 3);
  EXPECT_EQ(code({"-m", File("empty.json")}), 3);
  EXPECT_EQ(code({"-m", File("none.json")}), 3);
  EXPECT_EQ(code({"--shape", "7B"}), 2);
  EXPECT_EQ(code({"--shape", "270M", "--tokenizer", File("none")}), 3);
  EXPECT_EQ(code({"--shape", "270M", "--sparsity", "random:0.5"}), 2);
  EXPECT_EQ(code({"--shape", "270M", "--storage", "sd", "--io", "mmap",
                  "--allow-unenforced"}),
            2);
  EXPECT_EQ(
      code({"--shape", "270M", "--storage", "sd", "--device-profile", "x"}), 2);
}

TEST_F(PlanTest, WrongUsageIsRefused) {
  const std::vector<std::vector<std::string>> cases = {
      {"--mem-budget", "-1"}, {"--mem-budget", "much"},
      {"--mem-budget", ""},   {"--mem-budget", "1G,,2G"},
      {"--weights", "q4"},    {"--storage", "tape"},
      {"--shape", "3B"},      {"--tokenizer", "none"},
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
