// flashelm bench --ablation: what each part of sparse decoding brings.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

// The three files of an ablation, made once.
class AblationTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TempDirectory;
    Make("rows", "file", {"--layout", "rows"});
    Make("file", "file", {});
    Make("ordered", "co-activation", {});
  }
  static void TearDownTestSuite() { delete directory_; }

  // NAME.felm, and from it NAME_calibrated.felm.
  static void Make(const std::string& name, const std::string& order,
                   const std::vector<std::string>& flags) {
    std::vector<std::string> convert = {
        "convert", SampleModelDirectory("tiny-stories-relu"), "-o", File(name)};
    convert.insert(convert.end(), flags.begin(), flags.end());
    const auto converted = Flashelm(convert);
    ASSERT_EQ(converted.exit_code, 0) << converted.err;
    const auto calibrated = Flashelm(
        {"calibrate", "-m", File(name), "-f",
         FLASHELM_SOURCE_DIR "/tests/data/calibration.txt", "--max-tokens",
         "600", "--order", order, "-o", File(name + "_calibrated")});
    ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  }
  static std::string File(const std::string& name) {
    return directory_->File(name + ".felm");
  }
  static std::vector<std::string> AllFiles() {
    return {"--rows-model", File("rows_calibrated"), "--file-order-model",
            File("file_calibrated")};
  }
  static CommandResult Run(const std::vector<std::string>& more,
                           const std::string& model = "ordered_calibrated") {
    std::vector<std::string> args = {"bench", "--ablation", "-m", File(model),
                                     "-p",    "8",          "-n", "6",
                                     "-r",    "1"};
    args.insert(args.end(), more.begin(), more.end());
    return Flashelm(args);
  }
  static json Rows(std::vector<std::string> more, int exit_code = 0) {
    more.insert(more.end(), {"-o", "json"});
    const auto result = Run(more);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    return json::parse(result.out, nullptr, false);
  }
  // The smallest budget that all rows can run in, and room for some neurons.
  static std::string SmallBudget() {
    std::vector<std::string> args = AllFiles();
    args.insert(args.end(), {"--mem-budget", "1"});
    uint64_t most = 0;
    const std::string key = "smallest feasible one is ";
    for (const json& row : Rows(args, 4)) {
      const auto message = row["error"].get<std::string>();
      most = std::max<uint64_t>(
          most, std::stoull(message.substr(message.find(key) + key.size())));
    }
    return std::to_string(most + (5 << 20));
  }

  static TempDirectory* directory_;
};
TempDirectory* AblationTest::directory_ = nullptr;

TEST_F(AblationTest, EveryRowReadsWhatItSays) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  std::vector<std::string> args = AllFiles();
  const std::string budget = SmallBudget();
  args.insert(args.end(), {"--mem-budget", budget});
  const json rows = Rows(args);
  ASSERT_EQ(rows.size(), 6u);
  const char* const names[] = {"naive",       "half pinned",
                               "+ predictor", "+ window",
                               "+ bundling",  "+ order and merging"};
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(names[i]);
    const json& row = rows[i];
    EXPECT_EQ(row["ablation"], names[i]);
    EXPECT_TRUE(row["error"].is_null()) << row["error"];
    EXPECT_EQ(row["mem_budget_bytes"], std::stoull(budget));
    if (i > 0) {
      EXPECT_LE(row["peak_rss_bytes"], std::stoull(budget));
    }
    const auto value = [&](const char* key) { return row[key].get<double>(); };
    EXPECT_GT(value("flash_bytes_per_token"), 0);
    EXPECT_GT(value("reads_per_token"), 0);
    EXPECT_GT(value("io_busy_ms"), 0);
    EXPECT_NEAR(value("flash_read_gbps") * value("io_busy_ms") * 1e6,
                value("flash_bytes_per_token"),
                1e-3 * value("flash_bytes_per_token"));
    // What is left of the whole, which may be all of it: more than that if the
    // parts were too large.
    EXPECT_GT(value("compute_ms"), 0);
    EXPECT_LE(value("compute_ms"), value("ms_per_token") * (1 + 1e-3));
    if (i >= 2) {
      EXPECT_GT(value("fresh_bytes_per_token"), 0);
      EXPECT_GE(value("flash_bytes_per_token"), value("fresh_bytes_per_token"));
      EXPECT_GE(value("reads_per_token"), value("bundle_reads_per_token"));
    }
    EXPECT_EQ(row["kept_fraction"].is_null(), i < 2);
    EXPECT_EQ(value("memory_ms") > 0, i >= 2);
  }
  const auto at = [&](size_t i, const char* key) {
    return rows[i][key].get<double>();
  };
  // All weights: at least the file's without what no token needs.
  EXPECT_GT(at(0, "flash_bytes_per_token"), 0.9 * at(0, "model_size_bytes"));
  EXPECT_LT(at(1, "flash_bytes_per_token"), at(0, "flash_bytes_per_token"));
  EXPECT_EQ(rows[2]["cache_hit_rate"], 0);
  for (size_t i = 3; i < 6; ++i) EXPECT_GT(at(i, "cache_hit_rate"), 0);
  // The neurons in one order, and so the same ones.
  EXPECT_EQ(rows[2]["kept_fraction"], rows[3]["kept_fraction"]);
  EXPECT_EQ(rows[2]["kept_fraction"], rows[4]["kept_fraction"]);
  EXPECT_LT(at(3, "fresh_bytes_per_token"), at(2, "fresh_bytes_per_token"));
  // A read for each record that is missing, until reads are merged.
  for (size_t i = 2; i < 5; ++i) {
    EXPECT_EQ(rows[i]["bundle_reads_per_token"],
              rows[i]["bundle_misses_per_token"]);
  }
  EXPECT_LT(at(4, "bundle_reads_per_token"), at(3, "bundle_reads_per_token"));
  EXPECT_LT(at(5, "bundle_reads_per_token"), at(5, "bundle_misses_per_token"));
}

TEST_F(AblationTest, SaysWhatMakesTheFilesOfRowsThatAreMissing) {
  const auto result = Run({"--mem-budget", "1G"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part :
       {"| naive |", "| half pinned |", "| + order and merging |"}) {
    std::string name = part;
    name.erase(0, 2);
    EXPECT_NE(result.out.find(name), std::string::npos) << result.out;
  }
  EXPECT_EQ(result.out.find("+ window"), std::string::npos);
  EXPECT_EQ(result.out.find("+ bundling"), std::string::npos);
  for (const char* command :
       {"  flashelm convert SRC --weights bf16 --layout rows -o ROWS.felm\n"
        "  flashelm calibrate -m ROWS.felm -f TEXT --order file -o "
        "ROWS_CALIBRATED.felm\n",
        "  flashelm convert SRC --weights bf16 -o MODEL.felm\n"
        "  flashelm calibrate -m MODEL.felm -f TEXT --order file -o "
        "FILE_ORDER.felm\n"}) {
    EXPECT_NE(result.err.find(command), std::string::npos) << result.err;
  }
}

TEST_F(AblationTest, NamesTheSelectorThatItsFilesNeed) {
  const auto calibrate = [](const std::string& name,
                            const std::vector<std::string>& flags) {
    std::vector<std::string> args = {"calibrate",
                                     "-m",
                                     File("file"),
                                     "-f",
                                     FLASHELM_SOURCE_DIR
                                     "/tests/data/calibration.txt",
                                     "--max-tokens",
                                     "200",
                                     "--selector",
                                     "low-bit",
                                     "-o",
                                     File(name)};
    args.insert(args.end(), flags.begin(), flags.end());
    EXPECT_EQ(Flashelm(args).exit_code, 0);
  };
  calibrate("low_bit", {});
  const auto result =
      Run({"--sparsity", "low-bit", "--mem-budget", "1G"}, "low_bit");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(
      result.err.find("  flashelm calibrate -m MODEL.felm -f TEXT --order "
                      "file --selector low-bit -o FILE_ORDER.felm\n"),
      std::string::npos)
      << result.err;
  EXPECT_EQ(result.err.find("--layout rows"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("a file without bundles has no predictor"),
            std::string::npos)
      << result.err;
  const auto refused = Run({"--sparsity", "low-bit", "--mem-budget", "1G",
                            "--rows-model", File("rows_calibrated")},
                           "low_bit");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("--sparsity gate runs it"), std::string::npos)
      << refused.err;
  // What it advises, it takes.
  calibrate("low_bit_file", {"--order", "file"});
  const auto whole = Run({"--sparsity", "low-bit", "--mem-budget", "1G",
                          "--file-order-model", File("low_bit_file")},
                         "low_bit");
  EXPECT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_NE(whole.out.find(" + bundling |"), std::string::npos) << whole.out;
}

TEST_F(AblationTest, RefusesTheSameShapeOfAnotherCheckpoint) {
  const std::string source = directory_->File("other");
  std::filesystem::copy(SampleModelDirectory("tiny-stories-relu"), source);
  const std::string weights = source + "/model.safetensors";
  std::filesystem::permissions(weights, std::filesystem::perms::owner_write,
                               std::filesystem::perm_options::add);
  std::string bytes = ReadFile(weights);
  bytes[bytes.size() - 2] ^= 1;
  WriteFile(weights, bytes);
  ASSERT_EQ(Flashelm({"convert", source, "-o", File("other")}).exit_code, 0);
  ASSERT_EQ(Flashelm({"calibrate", "-m", File("other"), "-f",
                      FLASHELM_SOURCE_DIR "/tests/data/calibration.txt",
                      "--max-tokens", "50", "--order", "file", "-o",
                      File("other_calibrated")})
                .exit_code,
            0);
  const auto refused = Run({"--file-order-model", File("other_calibrated")});
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_NE(refused.err.find("made from other files"), std::string::npos)
      << refused.err;
}

TEST_F(AblationTest, AFileThatIsNotCalibratedHasItsDenseRows) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const auto result = Run({"--mem-budget", "14M", "-o", "json"}, "ordered");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("flashelm calibrate -m " + File("ordered")),
            std::string::npos)
      << result.err;
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["ablation"], "naive");
  EXPECT_EQ(rows[1]["ablation"], "half pinned");
  EXPECT_GT(rows[0]["flash_bytes_per_token"], rows[1]["flash_bytes_per_token"]);
}

TEST_F(AblationTest, RefusesFilesThatMakeNoRow) {
  struct Case {
    std::string model;
    std::vector<std::string> args;
    int exit_code;
    std::string part;
  };
  const std::string main = "ordered_calibrated";
  const std::string q8 = File("q8");
  ASSERT_EQ(Flashelm({"convert", SampleModelDirectory("tiny-stories-relu"),
                      "--weights", "q8", "-o", q8})
                .exit_code,
            0);
  ASSERT_EQ(Flashelm({"calibrate", "-m", q8, "-f",
                      FLASHELM_SOURCE_DIR "/tests/data/calibration.txt",
                      "--max-tokens", "50", "--order", "file", "-o",
                      File("q8_calibrated")})
                .exit_code,
            0);
  const std::vector<Case> cases = {
      {"ordered", {"--sparsity", "gate"}, 3, "flashelm calibrate -m"},
      {"ordered", AllFiles(), 3, "flashelm calibrate -m"},
      {"file_calibrated", {}, 2, "--order file"},
      {"rows_calibrated", {}, 2, "has no bundles"},
      {main, {"--rows-model", File(main)}, 2, "--layout rows"},
      {main, {"--rows-model", File("rows")}, 3, "flashelm calibrate -m"},
      {main, {"--file-order-model", File(main)}, 2, "expected file"},
      {main, {"--file-order-model", File("q8_calibrated")}, 2, "other weights"},
      {main, {"--mem-budget", "1G,2G"}, 2, "one budget"},
      {main, {"--io", "mmap", "--allow-unenforced"}, 2, "mmap"},
      {main, {"--sparsity", "off"}, 2, "gate:0.5"}};
  for (const Case& c : cases) {
    const auto result = Run(c.args, c.model);
    EXPECT_EQ(result.exit_code, c.exit_code) << c.model << c.part << result.err;
    EXPECT_NE(result.err.find(c.part), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(Flashelm({"bench", "-m", File(main), "--rows-model",
                      File("rows_calibrated")})
                .exit_code,
            2);
}

TEST_F(AblationTest, RowsRunAsBundlesDo) {
  EXPECT_EQ(Flashelm({"verify", "-m", File("rows_calibrated")}).exit_code, 0);
  const auto facts =
      Flashelm({"inspect", "-m", File("rows_calibrated"), "--json"});
  ASSERT_EQ(facts.exit_code, 0) << facts.err;
  EXPECT_EQ(json::parse(facts.out)["layout"], "rows");
  EXPECT_EQ(json::parse(facts.out)["bytes_per_gate_row"], 512);
  std::string expected;
  for (const char* name : {"file", "rows", "rows_calibrated"}) {
    const auto run = Flashelm({"run", "-m", File(name), "-p", "Once upon", "-n",
                               "20", "--temp", "0"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    if (expected.empty()) expected = run.out;
    EXPECT_EQ(run.out, expected) << name;
  }
}

}  // namespace
}  // namespace flashelm::test
