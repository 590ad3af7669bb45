// Flags of one verb that have nothing to do together: none is parsed and then
// ignored.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

class FlagPairsTest : public CliFixture {
 protected:
  static void SetUpTestSuite() {
    CliFixture::SetUpTestSuite();
    WriteFile(File("text.txt"), "Once upon a time there was a little girl.");
    const auto calibrated =
        Flashelm({"calibrate", "-m", Model(), "-o", Sparse(), "-f",
                  FLASHELM_SOURCE_DIR "/tests/data/calibration.txt",
                  "--max-tokens", "100"});
    ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  }
  static std::string Sparse() { return File("sparse.felm"); }

  // Each verb that computes, with what it needs.
  static std::vector<Words> Engines() {
    return {{"run", "-m", Sparse(), "-p", "A", "-n", "1"},
            {"chat", "-m", Sparse(), "-n", "1"},
            {"logits", "-m", Sparse(), "-p", "A", "-o", File("logits.npy")},
            {"perplexity", "-m", Sparse(), "-f", File("text.txt")},
            {"plan", "-m", Sparse()},
            {"bench", "-m", Sparse(), "-p", "2", "-n", "0", "-r", "1"}};
  }

  static void ExpectRefused(const Words& verb, const Words& pair,
                            const std::string& named) {
    Words args = verb;
    args.insert(args.end(), pair.begin(), pair.end());
    const auto refused = Flashelm(args);
    const std::string what = testing::PrintToString(args);
    EXPECT_EQ(refused.exit_code, 2) << what << ": " << refused.err;
    EXPECT_EQ(refused.out, "") << what;
    EXPECT_NE(refused.err.find(named), std::string::npos)
        << what << ": " << refused.err;
  }
};

TEST_F(FlagPairsTest, EnginesRefuseFlagsThatWouldChangeNothing) {
  const struct {
    Words flags;
    std::string named;
  } pairs[] = {
      {{"--sparsity", "off", "--window", "2"}, "--window 2"},
      {{"--sparsity", "off", "--neuron-reads", "single"}, "--neuron-reads"},
      // Which is off for this model.
      {{"--window", "2"}, "--window 2"},
      {{"--neuron-reads", "streamed"}, "--neuron-reads streamed"},
      {{"--sparsity", "gate:0.5", "--neuron-reads", "streamed", "--window",
        "2"},
       "--window 2"},
      {{"--sparsity", "gate:0.5", "--max-skipped", "1"}, "--max-skipped"},
      {{"--sparsity", "off", "--max-skipped", "1"}, "--max-skipped"},
      {{"--io", "mmap"}, "--allow-unenforced"},
      {{"--allow-unenforced"}, "--allow-unenforced"},
      {{"--io", "mmap", "--allow-unenforced", "--device-profile", "x"},
       "--device-profile"},
      {{"--io", "mmap", "--allow-unenforced", "--sparsity", "gate:0.5"},
       "--io mmap"},
      // Of a file that has no predictor.
      {{"--sparsity", "low-rank"}, "low-rank"},
  };
  for (const Words& verb : Engines()) {
    for (const auto& pair : pairs) {
      ExpectRefused(verb, pair.flags, pair.named);
    }
  }
}

TEST_F(FlagPairsTest, VerbsRefuseTheirOwnPairs) {
  const Words run = Engines()[0];
  const Words chat = Engines()[1];
  const Words bench = Engines().back();
  const Words calibrate = {"calibrate",      "-m", Model(),       "-f",
                           File("text.txt"), "-o", File("x.felm")};
  const struct {
    Words verb;
    Words flags;
    std::string named;
  } pairs[] = {
      {run, {"-f", File("text.txt")}, "--prompt"},
      {chat, {"--keep", "3"}, "--ctx-full shift"},
      {chat, {"--keep", "1", "--ctx-full", "stop"}, "--ctx-full shift"},
      {{"logits", "-m", Model(), "-o", File("x.npy"), "--tokens", "1"},
       {"-p", "A"},
       "--prompt"},
      {{"perplexity", "-m", Model(), "-f", File("text.txt")},
       {"--against", "dense", "--reference", Model()},
       "--reference"},
      {calibrate, {"--bits", "2"}, "--bits"},
      {calibrate, {"--selector", "low-bit", "--rank", "4"}, "--rank"},
      {calibrate, {"--allow-unenforced"}, "--allow-unenforced"},
      {{"synth", "--shape", "270M", "-o", File("synth")},
       {"--locality", "0.5"},
       "locality"},
      {{"synth", "--shape", "270M", "-o", File("synth")},
       {"--active-fraction", "0.5"},
       "active"},
      {bench, {"--rows-model", Model()}, "--ablation"},
      {bench, {"--sparsity", "off", "--window", "auto,2"}, "--window 2"},
      {{"bench", "-m", Sparse(), "-p", "1", "-n", "1"},
       {"--ablation", "--neuron-reads", "streamed"},
       "--neuron-reads"},
      {bench, {"--cgroup", "--cache-state", "warm"}, "--cgroup"},
  };
  for (const auto& pair : pairs) {
    ExpectRefused(pair.verb, pair.flags, pair.named);
  }
}

// What is for some rows of a benchmark is left out of the others, and their
// records say so.
TEST_F(FlagPairsTest, RowsTakeWhatIsForThem) {
  const auto result =
      Flashelm({"bench", "-m", Sparse(), "-p", "0", "-n", "2", "-r", "1",
                "--sparsity", "off,gate:0.5", "--window", "2", "--neuron-reads",
                "single", "-o", "json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["config"]["sparsity"], "off");
  EXPECT_EQ(rows[0]["config"]["window"], "auto");
  EXPECT_EQ(rows[0]["config"]["neuron_reads"], "auto");
  EXPECT_EQ(rows[1]["config"]["window"], "2");
  EXPECT_EQ(rows[1]["config"]["neuron_reads"], "single");
  EXPECT_EQ(rows[1]["config"]["window_tokens"], 2);
}

TEST_F(FlagPairsTest, AReferenceComputesItsOwnWay) {
  const std::vector<Words> references = {{"--against", "dense"},
                                         {"--reference", Sparse()}};
  for (const Words& reference : references) {
    Words args = {"perplexity", "-m",       Sparse(),   "-f", File("text.txt"),
                  "--sparsity", "gate:0.5", "--window", "2",  "--neuron-reads",
                  "single"};
    args.insert(args.end(), reference.begin(), reference.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

}  // namespace
}  // namespace flashelm::test
