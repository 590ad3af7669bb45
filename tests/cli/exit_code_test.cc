// Exit codes, and what is left behind after an error.

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

class ExitCodeTest : public CliFixture {};

TEST_F(ExitCodeTest, ExitCodesFollowTheKindOfError) {
  struct Case {
    const char* name;
    std::vector<std::string> args;
    int exit_code;
  };
  WriteFile(File("empty.felm"), "");
  WriteFile(File("text.felm"), std::string(10000, 'x'));
  WriteFile(File("cut.felm"), ReadFile(Model()).substr(0, 100000));
  const std::vector<Case> cases = {
      {"no verb", {}, 2},
      {"unknown verb", {"walk"}, 2},
      {"unknown flag", {"run", "-m", Model(), "-p", "A", "--windows", "3"}, 2},
      {"a reader that nobody wrote",
       {"run", "-m", Model(), "-p", "A", "--io", "aio"},
       2},
      {"SIMD that no machine has",
       {"run", "-m", Model(), "-p", "A", "--simd", "AVX9"},
       2},
      {"a list of SIMD targets", {"run", "--simd", "list"}, 0},
      {"mapped weights, which hold no budget",
       {"run", "-m", Model(), "-p", "A", "--io", "mmap"},
       2},
      {"leave that nothing needs",
       {"run", "-m", Model(), "-p", "A", "--allow-unenforced"},
       2},
      {"no prompt", {"run", "-m", Model()}, 2},
      {"two prompts",
       {"run", "-m", Model(), "-p", "A", "-f", File("empty.felm")},
       2},
      {"budget in words",
       {"run", "-m", Model(), "-p", "A", "--mem-budget", "lots"},
       2},
      {"negative budget",
       {"run", "-m", Model(), "-p", "A", "--mem-budget", "-5M"},
       2},
      {"budget of zero",
       {"run", "-m", Model(), "-p", "A", "--mem-budget", "0"},
       4},
      {"budget below the floor",
       {"run", "-m", Model(), "-p", "A", "--mem-budget", "1%"},
       4},
      {"context beyond the model's",
       {"run", "-m", Model(), "-p", "A", "-c", "513"},
       2},
      {"prompt beyond the context",
       {"run", "-m", Model(), "-p", "A b c d e f", "-c", "4"},
       2},
      {"temperature below zero",
       {"run", "-m", Model(), "-p", "A", "--temp", "-1"},
       2},
      {"no model", {"run", "-m", File("none.felm"), "-p", "A"}, 3},
      {"empty model", {"run", "-m", File("empty.felm"), "-p", "A"}, 3},
      {"text as model", {"inspect", "-m", File("text.felm")}, 3},
      {"model cut short", {"verify", "-m", File("cut.felm")}, 3},
      {"no checkpoint", {"convert", File("nowhere"), "-o", File("x.felm")}, 3},
      {"encoding unknown",
       {"convert", SampleModelDirectory("tiny-stories"), "-o", File("x.felm"),
        "--weights", "q9"},
       2},
      {"encoding of refining planes",
       {"convert", SampleModelDirectory("tiny-stories"), "-o", File("x.felm"),
        "--ffn", "nibble"},
       2},
      {"no encoding",
       {"convert", SampleModelDirectory("tiny-stories"), "-o", File("x.felm"),
        "--embedding", ""},
       2},
      {"token outside the vocabulary",
       {"logits", "-m", Model(), "--tokens", "1,2048", "-o", File("x.npy")},
       2},
      {"more threads than any machine has",
       {"run", "-m", Model(), "-p", "A", "-t", "4294967293"},
       2},
      {"no tokens",
       {"logits", "-m", Model(), "--tokens", "", "-o", File("x.npy")},
       2},
      {"an empty token",
       {"logits", "-m", Model(), "--tokens", "1,,2", "-o", File("x.npy")},
       2},
      {"a hexadecimal token",
       {"logits", "-m", Model(), "--tokens", "0x10", "-o", File("x.npy")},
       2},
      {"an empty stop string",
       {"run", "-m", Model(), "-p", "A", "--stop", ""},
       2},
      {"a stop string of a novel's length",
       {"run", "-m", Model(), "-p", "A", "--stop", std::string(5000, 'x')},
       2},
      {"a prompt that need not be read to its end",
       {"run", "-m", Model(), "-f", Model()},
       2},
      {"windows of one position",
       {"perplexity", "-m", Model(), "-f", File("text.felm"), "-c", "1"},
       2},
      {"text without tokens",
       {"perplexity", "-m", Model(), "-f", File("empty.felm")},
       2},
      {"statistics over the model",
       {"run", "-m", Model(), "-p", "A", "--stats", Model()},
       2},
      {"logits over the model",
       {"logits", "-m", Model(), "-p", "A", "-o", Model()},
       2},
      {"statistics nowhere",
       {"run", "-m", Model(), "-p", "A", "--stats", File("none/s.json")},
       3},
      {"no such text",
       {"perplexity", "-m", Model(), "-f", File("none.txt")},
       3},
      {"no such reference",
       {"perplexity", "-m", Model(), "-f", File("text.felm"), "--reference",
        File("none.felm")},
       3},
      {"too little for a model and its reference",
       {"perplexity", "-m", Model(), "-f", File("text.felm"), "--reference",
        Model(), "--mem-budget", "9M"},
       4},
      {"help", {"--help"}, 0},
      {"help of a verb", {"run", "--help"}, 0},
      {"version", {"--version"}, 0},
  };
  for (const Case& c : cases) {
    const auto result = Flashelm(c.args);
    EXPECT_EQ(result.exit_code, c.exit_code) << c.name << ": " << result.err;
    if (c.exit_code != 0) {
      EXPECT_EQ(result.out, "") << c.name;
      EXPECT_NE(result.err, "") << c.name;
    } else {
      EXPECT_NE(result.out, "") << c.name;
    }
  }
  EXPECT_FALSE(std::filesystem::exists(File("x.npy")));
  EXPECT_FALSE(std::filesystem::exists(File("x.felm")));
}

TEST_F(ExitCodeTest, AFullStandardOutputIsNoSuccess) {
  CommandOptions full;
  full.stdout_path = "/dev/full";
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"inspect", "-m", Model()},
        {"inspect", "-m", Model(), "--json"},
        {"verify", "-m", Model()},
        {"run", "-m", Model(), "-p", "A", "-n", "3"}}) {
    EXPECT_EQ(Flashelm(args, full).exit_code, 6) << args[0];
  }
}

TEST_F(ExitCodeTest, AFullDiskLeavesNothingBehind) {
  const TempDirectory output;
  CommandOptions limit;
  limit.max_file_bytes = 1 << 20;
  const auto converted =
      Flashelm({"convert", SampleModelDirectory("tiny-stories"), "-o",
                output.File("out.felm")},
               limit);
  EXPECT_EQ(converted.exit_code, 6) << converted.err;
  EXPECT_TRUE(output.List().empty());
}

TEST_F(ExitCodeTest, WeightsThatAreNotFiniteAreTakenOnlyWhenTold) {
  const TempDirectory source;
  const CheckpointOptions options;
  WriteCheckpoint(source.path(), options);
  std::vector<RawTensor> tensors = MakeTensors(options);
  const float infinite = std::numeric_limits<float>::infinity();
  std::memcpy(tensors.back().bytes.data(), &infinite, sizeof(infinite));
  WriteTensors(source.path(), tensors, options.num_shards);
  const TempDirectory output;
  std::vector<std::string> args = {"convert", source.path(), "-o",
                                   output.File("out.felm")};
  const auto refused = Flashelm(args);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_NE(refused.err.find(tensors.back().name), std::string::npos)
      << refused.err;
  EXPECT_TRUE(output.List().empty());
  args.push_back("--allow-nonfinite");
  const auto taken = Flashelm(args);
  EXPECT_EQ(taken.exit_code, 0) << taken.err;
  EXPECT_NE(taken.err.find("warning: 1 weights are NaN or infinite"),
            std::string::npos)
      << taken.err;
}

}  // namespace
}  // namespace flashelm::test
