// flashelm calibrate with predictors.

#include "core/calibrate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model_file.h"
#include "tests/cli/cli_fixture.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class CalibrateTest : public CliFixture {
 protected:
  static void SetUpTestSuite() {
    CliFixture::SetUpTestSuite();
    const auto converted =
        Flashelm({"convert", FLASHELM_SOURCE_DIR "/models/tiny-stories-relu",
                  "-o", Relu()});
    EXPECT_EQ(converted.exit_code, 0) << converted.err;
  }

  static std::string Relu() { return File("relu.felm"); }
  static std::vector<std::string> Calibrate(const std::string& model,
                                            const std::string& output,
                                            std::vector<std::string> more) {
    std::vector<std::string> args = {"calibrate",
                                     "-m",
                                     model,
                                     "-f",
                                     FLASHELM_SOURCE_DIR
                                     "/tests/data/calibration.txt",
                                     "-o",
                                     output,
                                     "--max-tokens",
                                     "700"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

TEST_F(CalibrateTest, LowBitHasWhatItPrints) {
  const auto made = Flashelm(Calibrate(
      Relu(), File("low-bit.felm"), {"--selector", "low-bit", "--bits", "1"}));
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_NE(made.out.find("| all | "), std::string::npos);
  const auto model = ModelFile::Open(File("low-bit.felm"));
  ASSERT_TRUE(model);
  EXPECT_FALSE(model->has_split_gates());
  for (const LayerWeights& layer : model->weights().layers) {
    EXPECT_TRUE(layer.predictor);
    EXPECT_TRUE(layer.importance);
  }
  const json shown = json::parse(
      Flashelm({"inspect", "-m", File("low-bit.felm"), "--json"}).out);
  const json& calibration = shown["provenance"]["calibration"];
  EXPECT_EQ(calibration["selector"], "low-bit");
  EXPECT_EQ(calibration["bits"], 1);
  EXPECT_EQ(calibration["recall_target"], 0.95);
  EXPECT_EQ(calibration["layers"]["recall"].size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(calibration["layers"]["recall"][i], 0.95, 0.05);
    EXPECT_LT(calibration["layers"]["kept_fraction"][i], 0.7);
    EXPECT_LE(calibration["layers"]["selector_bytes"][i],
              0.07 * calibration["layers"]["bf16_ffn_bytes"][i].get<double>());
  }
}

TEST_F(CalibrateTest, TheSameBytesAgain) {
  for (const char* output : {"first.felm", "second.felm"}) {
    const auto made = Flashelm(Calibrate(
        Relu(), File(output),
        {"--selector", "low-rank", "--epochs", "1", "--recall", "0.9",
         "--max-predictor-bytes", "4", "--max-samples", "300", "--json"}));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const json layers = json::parse(made.out)["layers"];
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_NEAR(layers["recall"][i], 0.9, 0.1);
      EXPECT_LE(layers["selector_bytes"][i],
                0.04 * layers["bf16_ffn_bytes"][i].get<double>());
    }
  }
  EXPECT_EQ(ReadFile(File("first.felm")), ReadFile(File("second.felm")));
  // A calibrated file is no input, in whatever form.
  const auto refused =
      Flashelm(Calibrate(File("first.felm"), File("third.felm"), {}));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("calibrated already"), std::string::npos);
}

TEST_F(CalibrateTest, SwiGluLearnsWhatMattersMost) {
  const auto made =
      Flashelm(Calibrate(Model(), File("swiglu.felm"),
                         {"--selector", "low-bit", "--kept", "0.2", "--json"}));
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const json layers = json::parse(made.out)["layers"];
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(layers["active_fraction"][i], 0.2, 0.01);
  }
}

TEST_F(CalibrateTest, AFlagOfAnotherSelectorIsAnError) {
  struct Case {
    std::string flag;  // That the message names.
    std::vector<std::string> flags;
  };
  const std::vector<Case> wrong = {
      {"--bits", {"--bits", "1"}},
      {"--recall", {"--recall", "0.9"}},
      {"--max-samples", {"--max-samples", "500"}},
      {"--rank", {"--selector", "low-bit", "--rank", "8"}},
      {"--epochs", {"--selector", "low-bit", "--epochs", "1"}},
      {"--seed", {"--selector", "low-bit", "--seed", "1"}},
      {"--max-predictor-bytes",
       {"--selector", "low-bit", "--max-predictor-bytes", "5"}},
      {"--bits", {"--selector", "low-rank", "--bits", "1"}},
      {"--max-predictor-bytes",
       {"--selector", "low-rank", "--rank", "8", "--max-predictor-bytes", "5"}},
      {"--kept", {"--selector", "low-rank", "--kept", "0.4"}},  // Of SwiGLU.
  };
  for (const Case& c : wrong) {
    const auto refused =
        Flashelm(Calibrate(Relu(), File("none.felm"), c.flags));
    EXPECT_EQ(refused.exit_code, 2) << c.flag;
    EXPECT_NE(refused.err.find(c.flag), std::string::npos) << refused.err;
    EXPECT_FALSE(std::filesystem::exists(File("none.felm")));
  }
}

TEST_F(CalibrateTest, AFileWithoutBundlesTakesNoPredictor) {
  ASSERT_EQ(
      Flashelm({"convert", FLASHELM_SOURCE_DIR "/models/tiny-stories-relu",
                "--layout", "rows", "-o", File("rows.felm")})
          .exit_code,
      0);
  for (const char* selector : {"low-bit", "low-rank"}) {
    // Before anything else: not even the budget is looked at.
    const auto refused =
        Flashelm(Calibrate(File("rows.felm"), File("none.felm"),
                           {"--selector", selector, "--mem-budget", "1"}));
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("convert with --layout bundles"),
              std::string::npos)
        << refused.err;
    EXPECT_FALSE(std::filesystem::exists(File("none.felm")));
  }
}

// The text is gone when training begins, so that its bytes and tokens leave
// room for it, and all phases stay within the budget.
TEST_F(CalibrateTest, ALongTextLeavesItsRoomToTheTraining) {
  const std::string piece =
      ReadFile(FLASHELM_SOURCE_DIR "/tests/data/calibration.txt");
  std::string text;
  while (text.size() < (4u << 20)) text += piece;
  WriteFile(File("long.txt"), text);
  const std::vector<std::string> flags = {"--selector", "low-rank", "--rank",
                                          "8",          "--epochs", "1"};
  std::vector<std::string> args = Calibrate(Relu(), File("long.felm"), flags);
  args.insert(args.end(), {"--mem-budget", "1"});
  const auto refused = Flashelm(args);
  const std::string key = "making predictors takes up to ";
  const size_t at = refused.err.find(key);
  ASSERT_NE(at, std::string::npos) << refused.err;
  // What a process takes varies a little.
  const uint64_t budget =
      std::stoull(refused.err.substr(at + key.size())) + (1u << 20);
  args.back() = std::to_string(budget);
  *std::ranges::find(args, FLASHELM_SOURCE_DIR "/tests/data/calibration.txt") =
      File("long.txt");
  const auto made = Flashelm(args);
  EXPECT_EQ(made.exit_code, 0) << made.err;
#ifndef FLASHELM_FOREIGN_MEMORY
  EXPECT_LE(made.peak_rss_bytes, budget);
#endif
}

// What is found while the engine still has its memory.
TEST_F(CalibrateTest, ChargesTheOrderOfTheNeurons) {
  const std::string text = "Once upon a time there was a dog.";
  WriteFile(File("short.txt"), text);
  const auto model = ModelFile::Open(Relu());
  ASSERT_TRUE(model);
  const ModelConfig& config = model->config();
  uint64_t expected =
      text.size() + model->tokenizer().EncodeScratchBytes(text) +
      ActivationRecorder::NumBytes(config) + OrderBytes(config) +
      2 * sizeof(uint32_t) * 2 * config.max_context;
  for (const LayerConfig& layer : config.layers) {
    expected += layer.ffn_dim * sizeof(float);
  }
  const auto refused =
      Flashelm({"calibrate", "-m", Relu(), "-f", File("short.txt"), "-o",
                File("none.felm"), "--mem-budget", "1"});
  EXPECT_EQ(refused.exit_code, 4) << refused.err;
  const std::string key = "caller ";
  const size_t at = refused.err.find(key);
  ASSERT_NE(at, std::string::npos) << refused.err;
  const std::string caller = refused.err.substr(at + key.size(), 16);
  EXPECT_NE(caller.find(" KiB"), std::string::npos) << caller;
  // In whole pages, after what the tokens take.
  const double bytes = 1024 * std::stod(caller);
  EXPECT_GE(bytes, static_cast<double>(expected));
  EXPECT_LE(bytes, static_cast<double>(expected) + 2 * 4096);
}

TEST_F(CalibrateTest, TooSmallABudgetIsToldBeforeTheRun) {
  const auto refused =
      Flashelm(Calibrate(Relu(), File("none.felm"),
                         {"--selector", "low-rank", "--mem-budget", "24M"}));
  EXPECT_EQ(refused.exit_code, 4) << refused.err;
  EXPECT_NE(refused.err.find("making predictors takes"), std::string::npos)
      << refused.err;
}

}  // namespace
}  // namespace flashelm::test
