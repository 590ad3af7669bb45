// The verb `synth` as a user sees it.

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

bool Mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(SynthCliTest, WritesAModelAndSaysThatItIsRandom) {
  const TempDirectory parent;
  const std::string out = parent.File("model");
  const auto result = Flashelm({"synth", "--shape", "270M", "-o", out,
                                "--activation", "relu", "--active-fraction",
                                "0.2", "--locality", "0.4", "--seed", "7"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(Mentions(result.err, "271527168 RANDOM weights")) << result.err;
  EXPECT_TRUE(Mentions(result.err, "About 0.2")) << result.err;
  EXPECT_EQ(result.err.find('\r'), std::string::npos) << "no terminal, no bar";
  EXPECT_TRUE(Mentions(ReadFile(out + "/README.md"), "Random weights"));
  EXPECT_TRUE(Mentions(ReadFile(out + "/config.json"), "\"seed\": 7"));
  EXPECT_GT(std::filesystem::file_size(out + "/model.safetensors"),
            2u * 271'527'168);
  const auto again = Flashelm({"synth", "--shape", "270M", "-o", out});
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_TRUE(Mentions(again.err, "not empty")) << again.err;
}

TEST(SynthCliTest, RefusesWhatCannotBeHonoured) {
  const TempDirectory parent;
  const std::string out = parent.File("model");
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"--shape", "7B"},
      {"--shape", "270M", "--dtype", "f16"},
      {"--shape", "270M", "--activation", "gelu"},
      {"--shape", "270M", "--seed", "-1"},
      {"--shape", "270M", "--seed", "18446744073709551616"},
      {"--shape", "270M", "--active-fraction", "0.1"},
      {"--shape", "270M", "--locality", "0.3"},
      {"--shape", "270M", "--activation", "relu", "--active-fraction", "1"},
      {"--shape", "270M", "--activation", "relu", "--active-fraction", "x"},
      {"--shape", "270M", "--activation", "relu", "--active-fraction", ""},
      {"--shape", "270M", "--activation", "relu", "--locality", "0.01"},
  };
  for (const auto& flags : cases) {
    std::vector<std::string> args = {"synth", "-o", out};
    args.insert(args.end(), flags.begin(), flags.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 2) << testing::PrintToString(flags);
    EXPECT_NE(result.err, "");
    EXPECT_TRUE(parent.List().empty());
  }
  EXPECT_EQ(Flashelm({"synth", "--shape", "270M"}).exit_code, 2);
}

TEST(SynthCliTest, AFullDiskLeavesNothing) {
  const TempDirectory parent;
  CommandOptions small;
  small.max_file_bytes = 1 << 20;
  const auto result =
      Flashelm({"synth", "--shape", "270M", "-o", parent.File("model")}, small);
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_TRUE(parent.List().empty());
}

#ifndef FLASHELM_FOREIGN_MEMORY
// Segments as large as these are written block by block.
TEST(SynthCliTest, CalibrateHoldsItsBudgetWhileItWrites) {
  const TempDirectory directory;
  CheckpointOptions options;
  options.num_layers = 2;
  options.model_dim = 1024;
  options.head_dim = 64;
  options.activation = "relu";
  options.dtype = "BF16";
  const std::string source = directory.File("source");
  std::filesystem::create_directory(source);
  WriteCheckpoint(source, options);
  WriteFile(directory.File("text"),
            "Once upon a time there was a little dog. His name was Max.");
  for (const std::string layout : {"bundles", "rows"}) {
    SCOPED_TRACE(layout);
    const std::string model = directory.File(layout);
    ASSERT_EQ(Flashelm({"convert", source, "--layout", layout, "-o", model})
                  .exit_code,
              0);
    std::vector<std::string> args = {"calibrate",
                                     "-m",
                                     model,
                                     "-f",
                                     directory.File("text"),
                                     "-o",
                                     directory.File("out"),
                                     "-c",
                                     "32",
                                     "--order",
                                     "frequency"};
    args.insert(args.end(), {"--mem-budget", "1"});
    const auto refused = Flashelm(args);
    const std::string key = "smallest feasible one is ";
    const size_t at = refused.err.find(key);
    ASSERT_NE(at, std::string::npos) << refused.err;
    args.back() =
        std::to_string(std::stoull(refused.err.substr(at + key.size())));
    const auto made = Flashelm(args);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    EXPECT_LE(made.peak_rss_bytes, std::stoull(args.back()));
  }
}
#endif

}  // namespace
}  // namespace flashelm::test
