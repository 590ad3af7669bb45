// What predictors of a real model are worth, by the command's own figures, with
// the settings that it has unless it is told otherwise.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/cli/command.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

struct Quality {
  std::string selector;
  double most_bytes;  // Of the FFN's in bf16.
};

class PredictorQualityTest : public testing::TestWithParam<Quality> {};

TEST_P(PredictorQualityTest, KeepsFewNeuronsAndLosesLittle) {
  const TempDirectory directory;
  const std::string dense = directory.File("dense.felm");
  const std::string sparse = directory.File("sparse.felm");
  const std::string texts = FLASHELM_SOURCE_DIR "/tests/data/";
  const auto converted = Flashelm(
      {"convert", SampleModelDirectory("tiny-stories-relu"), "-o", dense});
  ASSERT_EQ(converted.exit_code, 0) << converted.err;
  const auto made =
      Flashelm({"calibrate", "-m", dense, "-f", texts + "calibration.txt", "-o",
                sparse, "--selector", GetParam().selector, "--json"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const json layers = json::parse(made.out)["layers"];
  ASSERT_EQ(layers["kept_fraction"].size(), 6u);
  int num_that_keep_much = 0;
  for (size_t i = 0; i < 6; ++i) {
    const double kept = layers["kept_fraction"][i];
    const double active = layers["active_fraction"][i];
    if (kept > 2 * active || kept > 0.3) ++num_that_keep_much;
    EXPECT_LT(kept, 2.2 * active) << i;
    EXPECT_NEAR(layers["recall"][i], 0.95, 0.02) << i;
    EXPECT_LE(layers["selector_bytes"][i],
              GetParam().most_bytes * layers["bf16_ffn_bytes"][i].get<double>())
        << i;
  }
  EXPECT_LE(num_that_keep_much, 1);
  for (const char* text : {"stories.txt", "books.txt"}) {
    const auto scored =
        Flashelm({"perplexity", "-m", sparse, "-f", texts + text, "--sparsity",
                  GetParam().selector, "--against", "dense", "--json"});
    ASSERT_EQ(scored.exit_code, 0) << scored.err;
    const json printed = json::parse(scored.out);
    EXPECT_NEAR(printed["perplexity"].get<double>() /
                    printed["reference_perplexity"].get<double>(),
                1, 0.01)
        << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Selectors, PredictorQualityTest,
                         testing::Values(Quality{"low-bit", 0.07},
                                         Quality{"low-rank", 0.05}),
                         [](const testing::TestParamInfo<Quality>& quality) {
                           return quality.param.selector == "low-bit"
                                      ? "LowBit"
                                      : "LowRank";
                         });

}  // namespace
}  // namespace flashelm::test
