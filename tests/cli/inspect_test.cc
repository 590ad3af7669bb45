// flashelm inspect and verify: what they say of a file, also of what convert
// was asked for.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/convert/calibrated_file.h"
#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class InspectTest : public CliFixture {};

TEST_F(InspectTest, InspectPrintsTheSameFactsAsTextAndJson) {
  const auto text = Flashelm({"inspect", "-m", Model()});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  const auto printed = Flashelm({"inspect", "-m", Model(), "--json"});
  ASSERT_EQ(printed.exit_code, 0) << printed.err;
  const json facts = json::parse(printed.out);
  EXPECT_EQ(facts["n_params"], 4083328);
  EXPECT_EQ(facts["weights"], "f32");
  EXPECT_EQ(facts["config"]["layers"].size(), 6u);
  EXPECT_EQ(facts["config"]["layers"][5]["ffn_dim"], 1024);
  EXPECT_EQ(facts["provenance"]["files"].size(), 3u);
  EXPECT_NE(text.out.find("4083328"), std::string::npos);
  EXPECT_NE(text.out.find(facts["weights_xxh3"].get<std::string>()),
            std::string::npos);
}

TEST_F(InspectTest, ConvertTakesAnEncodingForEachKindAndInspectShowsThem) {
  const std::string source = SampleModelDirectory("tiny-stories");
  const std::string q4 = File("q4.felm");
  const auto converted =
      Flashelm({"convert", source, "-o", q4, "--weights", "q4", "-t", "1"});
  ASSERT_EQ(converted.exit_code, 0) << converted.err;
  EXPECT_EQ(Flashelm({"verify", "-m", q4}).exit_code, 0);
  const auto printed = Flashelm({"inspect", "-m", q4, "--json"});
  ASSERT_EQ(printed.exit_code, 0) << printed.err;
  const json facts = json::parse(printed.out);
  EXPECT_EQ(facts["weights"], "q4+q8");
  EXPECT_EQ(facts["encodings"]["embedding"], "q8");
  EXPECT_EQ(facts["encodings"]["attention"], "q4");
  EXPECT_EQ(facts["encodings"]["ffn"], "q4");
  EXPECT_EQ(facts["encodings"]["norms"], "f32");
  // 3 rows of 256: 432 bytes in 448.
  EXPECT_EQ(facts["bytes_per_bundle"], 448);
  EXPECT_DOUBLE_EQ(facts["bits_per_weight"]["ffn"], 8 * 448 / 768.0);
  EXPECT_GT(facts["bits_per_weight"]["all"], 4.5);
  EXPECT_LT(facts["bits_per_weight"]["all"], 6);
  for (const char* kind : {"embedding", "attention", "ffn"}) {
    const bool is_q8 = facts["encodings"][kind] == "q8";
    EXPECT_GT(facts["quantization_mse"][kind], 0);
    EXPECT_GT(facts["quantization_relative_error"][kind], is_q8 ? 1e-5 : 3e-3);
    EXPECT_LT(facts["quantization_relative_error"][kind], is_q8 ? 4e-5 : 1e-2);
  }
  EXPECT_TRUE(facts["quantization_mse"]["norms"].is_null());
  const auto text = Flashelm({"inspect", "-m", q4});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("bits/weight"), std::string::npos);

  const auto mixed = Flashelm({"convert", source, "-o", q4, "--embedding",
                               "f32", "--attention", "q8", "--ffn", "q4"});
  ASSERT_EQ(mixed.exit_code, 0) << mixed.err;
  const json kinds = json::parse(Flashelm({"inspect", "-m", q4, "--json"}).out);
  EXPECT_EQ(kinds["weights"], "q8+q4+f32");
  EXPECT_TRUE(kinds["quantization_mse"]["embedding"].is_null());
  EXPECT_FALSE(kinds["quantization_mse"]["ffn"].is_null());
}

TEST_F(InspectTest, InspectHasNoErrorsOfWeightsThatWereNotQuantised) {
  const json model =
      json::parse(Flashelm({"inspect", "-m", Model(), "--json"}).out);
  for (const char* kind : {"embedding", "attention", "ffn", "norms"}) {
    EXPECT_TRUE(model["quantization_mse"][kind].is_null());
    EXPECT_EQ(model["bits_per_weight"][kind], 32);
  }
}

TEST_F(InspectTest, InspectShowsWhatACalibratedFileHasBesides) {
  const auto model = ModelFile::Open(Model());
  ASSERT_TRUE(model) << model.error().message();
  const std::string path = File("calibrated.felm");
  const auto written = WriteCalibratedFile(*model, path, {});
  ASSERT_TRUE(written) << written.error().message();
  const auto printed = Flashelm({"inspect", "-m", path, "--json"});
  ASSERT_EQ(printed.exit_code, 0) << printed.err;
  const json facts = json::parse(printed.out);
  EXPECT_EQ(facts["bytes_per_bundle"], 2048);
  EXPECT_EQ(facts["bytes_per_gate_row"], 1024);
  // Of 3456 neurons.
  EXPECT_EQ(facts["bytes"]["ffn"], 3456 * 3072);
  EXPECT_EQ(facts["bytes"]["predictor"], 3456 * 2 * 4);
  EXPECT_TRUE(facts["provenance"]["calibration"]["weights_hash"].is_string());
  const auto text = Flashelm({"inspect", "-m", path});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("gate rows of 1024 bytes apart"), std::string::npos);

  const json before =
      json::parse(Flashelm({"inspect", "-m", Model(), "--json"}).out);
  EXPECT_FALSE(before.contains("bytes_per_gate_row"));
  EXPECT_FALSE(before["bytes"].contains("predictor"));
}

TEST_F(InspectTest, VerifyNamesWhatIsDamaged) {
  EXPECT_EQ(Flashelm({"verify", "-m", Model()}).exit_code, 0);
  std::string bytes = ReadFile(Model());
  bytes[bytes.size() / 2] ^= 1;
  WriteFile(File("bad.felm"), bytes);
  const auto verified = Flashelm({"verify", "-m", File("bad.felm")});
  EXPECT_EQ(verified.exit_code, 3);
  EXPECT_NE(verified.err.find("layer "), std::string::npos) << verified.err;
  EXPECT_NE(verified.err.find("byte "), std::string::npos) << verified.err;
  // Running into it is a failed read.
  const std::vector<std::string> run = {"run", "-m", File("bad.felm"), "-p",
                                        "A"};
  std::vector<std::string> at_floor = run;
  at_floor.insert(at_floor.end(), {"--mem-budget", std::to_string(Floor(run))});
  EXPECT_EQ(Flashelm(run).exit_code, 5);
  EXPECT_EQ(Flashelm(at_floor).exit_code, 5);
}

}  // namespace
}  // namespace flashelm::test
