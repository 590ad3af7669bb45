// --sparsity as a user sees it: which selectors a file has, and what they cost.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/predicted_model.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class SparsityTest : public testing::Test {
 protected:
  std::string File(const std::string& name) { return directory_.File(name); }

  static void ExpectRefused(const PredictedModel& model,
                            const std::string& sparsity,
                            const std::string& message) {
    SCOPED_TRACE(sparsity);
    const auto result = Flashelm({"run", "-m", model.path(), "-p", "Once", "-n",
                                  "1", "--sparsity", sparsity});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  }

  json PerplexityAgainstDense(const PredictedModel& model,
                              const std::string& sparsity,
                              const std::vector<std::string>& flags = {}) {
    WriteFile(File("text.txt"), "Once upon a time there was a little dog. ");
    std::vector<std::string> args = {
        "perplexity",     "-m",        model.path(), "-f",
        File("text.txt"), "--against", "dense",      "--sparsity",
        sparsity,         "-c",        "32",         "--json"};
    args.insert(args.end(), flags.begin(), flags.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }

 private:
  TempDirectory directory_;
};

TEST_F(SparsityTest, APredictorOfASwigluModelSelectsAPart) {
  PredictedModelOptions options;
  options.activation = "swish";
  const PredictedModel model(options);
  ExpectRefused(model, "low-bit", "--sparsity low-bit:0.5");
  ExpectRefused(model, "low-rank:0.5", "has a low-bit predictor");
  ExpectRefused(model, "gate:0.5", "its gates in the bundles");
  const auto run = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(),
                 {"run", "-m", model.path(), "-p", "Once upon a time", "-n",
                  "8", "--temp", "0", "--stats", File("stats.json")});
    const auto result = Flashelm(flags);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  // The dense model is what runs by itself, however the file is read.
  const std::string dense = run({});
  const json without = json::parse(ReadFile(File("stats.json")));
  EXPECT_EQ(run({"--io", "mmap", "--allow-unenforced"}), dense);
  EXPECT_EQ(run({"--sparsity", "low-bit:1"}), dense);
  const json stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_EQ(stats["kept_fraction"], 1);
  for (const char* key : {"max_skipped", "recall", "precision"}) {
    ASSERT_TRUE(stats.contains(key) && without.contains(key)) << key;
    EXPECT_TRUE(stats[key].is_null() && without[key].is_null()) << key;
  }
  EXPECT_TRUE(without["kept_fraction"].is_null());

  EXPECT_EQ(PerplexityAgainstDense(model, "low-bit:1")["mean_kl"], 0);
  EXPECT_GT(PerplexityAgainstDense(model, "low-bit:0.2")["mean_kl"], 0);
}

TEST_F(SparsityTest, ReluSaysHowWellNeuronsWereChosen) {
  PredictedModelOptions options;
  options.has_predictors = false;
  options.split_gate = true;
  const PredictedModel model(options);
  const json exact = PerplexityAgainstDense(model, "auto");
  EXPECT_EQ(exact["mean_kl"], 0);
  EXPECT_EQ(exact["max_skipped"], 0);
  EXPECT_EQ(exact["recall"], 1);
  EXPECT_EQ(exact["precision"], 1);
  for (const std::string baseline : {"random:0.5", "magnitude:0.5"}) {
    const json measured = PerplexityAgainstDense(model, baseline);
    EXPECT_EQ(measured["kept_fraction"], 0.5);
    EXPECT_TRUE(measured["max_skipped"].is_null());
    EXPECT_GT(measured["mean_kl"], 0);
    // Half of the gates are positive.
    EXPECT_NEAR(measured["recall"], 0.5, 0.1);
    EXPECT_NEAR(measured["precision"], 0.5, 0.1);
  }
  ExpectRefused(model, "low-bit",
                "flashelm calibrate -m ORIGINAL -f TEXT -o OUT.felm "
                "--selector low-bit");
  ExpectRefused(model, "low-rank:0.3", "--selector low-rank");
  ExpectRefused(model, "random", "--sparsity random:0.5");
  ExpectRefused(model, "magnitude", "--sparsity magnitude:0.5");
  ExpectRefused(model, "magnitude:0", "no part of the neurons");
  ExpectRefused(model, "auto:0.5", "no selector");
  ExpectRefused(model, "low", "low-rank, low-bit");
}

TEST_F(SparsityTest, AutoTakesNothingThatCouldLoseSomething) {
  PredictedModelOptions options;
  options.activation = "relu";
  const PredictedModel model(options);
  const auto result = Flashelm({"run", "-m", model.path(), "-p", "Once", "-n",
                                "1", "--stats", File("stats.json")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_TRUE(stats["kept_fraction"].is_null());
  EXPECT_TRUE(stats["layers"].is_null());
}

TEST_F(SparsityTest, WhatIsSkippedKeepsToABound) {
  PredictedModelOptions options;
  options.activation = "swish";
  options.has_predictors = false;
  options.split_gate = true;
  const PredictedModel model(options);
  const double half =
      PerplexityAgainstDense(model, "gate:0.5")["max_skipped"].get<double>();
  ASSERT_GT(half, 0);
  double kept = 1;
  for (const double part : {0.25, 1.0}) {
    const json measured = PerplexityAgainstDense(
        model, "gate", {"--max-skipped", std::to_string(part * half)});
    EXPECT_LE(measured["max_skipped"], 1.000001 * part * half);
    EXPECT_GT(measured["max_skipped"], 0);
    EXPECT_LT(measured["kept_fraction"], kept);
    kept = measured["kept_fraction"];
  }
  // Half of them go with the worst token, more with others.
  EXPECT_LT(kept, 0.5);
  for (const std::vector<std::string>& flags :
       {std::vector<std::string>{"--max-skipped", "1"},
        {"--max-skipped", "1", "--sparsity", "gate:0.5"},
        {"--max-skipped", "0", "--sparsity", "gate"}}) {
    std::vector<std::string> args = {"run", "-m", model.path(), "-p", "Once"};
    args.insert(args.end(), flags.begin(), flags.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find("--max-skipped"), std::string::npos)
        << result.err;
  }
}

TEST_F(SparsityTest, ACalibratedReluModelLosesNothing) {
  const std::string dense = File("relu.felm");
  const std::string sparse = File("sparse.felm");
  ASSERT_EQ(
      Flashelm({"convert", FLASHELM_SOURCE_DIR "/models/tiny-stories-relu",
                "-o", dense})
          .exit_code,
      0);
  const std::string text = FLASHELM_SOURCE_DIR "/tests/data/calibration.txt";
  const auto refused = Flashelm(
      {"run", "-m", dense, "-p", "Once", "--sparsity", "gate", "-n", "3"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("flashelm calibrate -m " + dense),
            std::string::npos);
  const auto calibrated = Flashelm({"calibrate", "-m", dense, "-f", text, "-o",
                                    sparse, "--max-tokens", "1000"});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  EXPECT_NE(calibrated.out.find("| 5 | 1024 | "), std::string::npos);
  // Sparse where nothing is said.
  std::string text_of_single;
  const auto stats_of = [&](const std::string& reads) {
    const auto run = Flashelm({"run", "-m", sparse, "-p", "Once upon a time",
                               "-n", "20", "--temp", "0", "--neuron-reads",
                               reads, "--stats", File("sparse.json")});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    const json stats = json::parse(ReadFile(File("sparse.json")));
    EXPECT_GT(stats["kept_fraction"], 0.01);
    EXPECT_LT(stats["kept_fraction"], 0.3);
    EXPECT_EQ(stats["max_skipped"], 0);
    EXPECT_EQ(stats["layers"]["streamed"],
              json(std::vector<bool>(6, reads != "single")));
    if (text_of_single.empty()) text_of_single = run.out;
    EXPECT_EQ(run.out, text_of_single);
    return stats;
  };
  const json single = stats_of("single");
  EXPECT_GT(single["cache_hit_rate"], 0.2);
  EXPECT_TRUE(single["dense_fetches"].is_number_unsigned());
  EXPECT_GT(single["layers"]["fresh_bytes"][5], 0);
  const json streamed = stats_of("streamed");
  EXPECT_TRUE(streamed["layers"]["fresh_bytes"][5].is_null());
  EXPECT_EQ(streamed["kept_fraction"], single["kept_fraction"]);
  // There is room for all of them.
  EXPECT_EQ(stats_of("auto")["flash_bytes_per_token"], 0);
  const auto plan_of = [&](const std::string& reads) {
    const auto planned =
        Flashelm({"plan", "-m", sparse, "--json", "--neuron-reads", reads});
    EXPECT_EQ(planned.exit_code, 0) << planned.err;
    const json plan = json::parse(planned.out);
    EXPECT_GT(plan["kept_fraction"], 0.01);
    EXPECT_LT(plan["kept_fraction"], 0.3);
    EXPECT_EQ(plan["fresh_bytes_per_token"], 0);
    EXPECT_EQ(plan["forecast"]["token_ms"], plan["forecast"]["compute_ms"]);
    EXPECT_TRUE(plan["forecast"]["prompt_tps"].is_null());
    return plan;
  };
  const json single_plan = plan_of("single");
  EXPECT_EQ(single_plan["cached_bundles"], 3456);
  EXPECT_EQ(single_plan["streamed_layers"], 0);
  const json auto_plan = plan_of("auto");
  EXPECT_EQ(auto_plan["cached_bundles"], 0);
  EXPECT_EQ(auto_plan["streamed_layers"], 6);
  const auto told =
      Flashelm({"plan", "-m", sparse, "--neuron-reads", "single"});
  EXPECT_NE(told.out.find("3456 are cached, and 0 B are read"),
            std::string::npos)
      << told.out;
  EXPECT_NE(Flashelm({"plan", "-m", sparse}).out.find("In 6 of 6 layers"),
            std::string::npos);
  EXPECT_EQ(Flashelm({"run", "-m", sparse, "-p", "Once upon a time", "-n", "20",
                      "--temp", "0", "--sparsity", "off"})
                .out,
            text_of_single);
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto compared =
      Flashelm({"perplexity", "-m", sparse, "-f", File("short.txt"),
                "--against", "dense", "--json"});
  ASSERT_EQ(compared.exit_code, 0) << compared.err;
  const json printed = json::parse(compared.out);
  EXPECT_EQ(printed["mean_kl"], 0);
  EXPECT_EQ(printed["reference_perplexity"], printed["perplexity"]);
}

}  // namespace
}  // namespace flashelm::test
