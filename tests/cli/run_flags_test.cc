// What flags for sampling do, by settings that have to give the same text, or
// another; and others that only name a file.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

namespace fs = std::filesystem;

const fs::path& Checkpoint() {
  static const fs::path path =
      fs::path(FLASHELM_SOURCE_DIR) / "models" / "tiny-stories";
  return path;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class RunFlagsTest : public testing::Test {
 protected:
  void SetUp() override {
    const CommandResult converted =
        Flashelm({"convert", Checkpoint(), "-o", Model()});
    ASSERT_EQ(converted.exit_code, 0) << converted.err;
  }

  std::string Model() const { return place_.File("tiny.felm"); }

  std::string Text(const std::vector<std::string>& flags) const {
    std::vector<std::string> args = {
        "run", "-m", Model(), "-n", "16", "-s", "7", "-p", "Once upon a time"};
    args.insert(args.end(), flags.begin(), flags.end());
    const CommandResult result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_GT(result.out.size(), 16u);
    return result.out;
  }

  TempDirectory place_;
};

TEST_F(RunFlagsTest, SamplingFromOneTokenTakesTheLikeliest) {
  const std::string likeliest = Text({"--temp", "0"});
  const std::vector<std::string> hot = {"--temp", "1.5", "--top-k", "0"};
  const auto sampled = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> all = hot;
    all.insert(all.end(), flags.begin(), flags.end());
    return Text(all);
  };
  // All tokens: else what follows would show nothing.
  EXPECT_NE(sampled({"--top-p", "1", "--min-p", "0"}), likeliest);
  EXPECT_EQ(Text({"--temp", "1.5", "--top-k", "1"}), likeliest);
  EXPECT_EQ(sampled({"--top-p", "0.000001", "--min-p", "0"}), likeliest);
  EXPECT_EQ(sampled({"--top-p", "1", "--min-p", "1"}), likeliest);
}

TEST_F(RunFlagsTest, RepeatPenaltyChangesTheText) {
  const std::string plain = Text({});
  EXPECT_EQ(Text({"--repeat-penalty", "1"}), plain);
  EXPECT_NE(Text({"--repeat-penalty", "2"}), plain);
}

TEST_F(RunFlagsTest, TraceHasLayersAndDoesNotChangeTheText) {
  const std::string path = place_.File("trace.json");
  EXPECT_EQ(Text({"--trace", path}), Text({}));
  const std::string trace = ReadText(path);
  EXPECT_EQ(trace.compare(0, 1, "{"), 0);
  EXPECT_NE(trace.find("\"layer 0\""), std::string::npos);
}

TEST_F(RunFlagsTest, TokenizerMayStandElsewhere) {
  // A model file tells the name of its source.
  const fs::path bare = place_.File(Checkpoint().filename().string());
  fs::create_directory(bare);
  for (const auto& entry : fs::directory_iterator(Checkpoint())) {
    const fs::path name = entry.path().filename();
    if (name != "tokenizer.model") fs::create_symlink(entry, bare / name);
  }
  const std::string output = place_.File("other.felm");
  EXPECT_EQ(Flashelm({"convert", bare, "-o", output}).exit_code, 3);
  const CommandResult converted =
      Flashelm({"convert", bare, "-o", output, "--tokenizer",
                Checkpoint() / "tokenizer.model"});
  EXPECT_EQ(converted.exit_code, 0) << converted.err;
  EXPECT_TRUE(ReadText(output) == ReadText(Model()));
}

}  // namespace
}  // namespace flashelm::test
