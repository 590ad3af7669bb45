// The report of made-up records: all that can be missing or odd in them.

#include "cli/bench_report.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "cli/bench_from.h"
#include "cli/bench_record.h"
#include "cli/report_rows.h"
#include "tests/temp_directory.h"

namespace flashelm::cli {
namespace {

constexpr double kMiB = 1048576;

// A row that generates, of a model of 100 MiB of which 80 MiB are M.
Json Row(double budget_mib, const std::string& io = "pread") {
  Json row = EmptyRow();
  row["model_path"] = "m.felm";
  row["model_type"] = "OpenELM";
  row["model_size_bytes"] = 100 * kMiB;
  row["test"] = "tg4";
  row["n_gen"] = 4;
  row["n_prompt"] = 0;
  row["io_backend"] = io;
  row["budget_enforced"] = io != "mmap";
  row["mem_budget_bytes"] = budget_mib * kMiB;
  row["config"]["io"] = io;
  row["config"]["sparsity"] = "auto";
  row["config"]["selector"] = "off";
  row["avg_ts"] = budget_mib / 10;
  row["weight_bytes_per_token"] = 80 * kMiB;
  row["compute_ms"] = 20;
  row["ms_per_token"] = 30;
  if (io != "mmap") {
    // 10 MiB of a budget are no weights.
    row["flash_bytes_bound_per_token"] = (80 - (budget_mib - 10)) * kMiB;
    row["flash_read_gbps"] = 1.0;
  }
  return row;
}

Json Failed(double budget_mib, const std::string& error) {
  Json row = Row(budget_mib);
  for (const char* key : {"avg_ts", "compute_ms", "ms_per_token",
                          "flash_bytes_bound_per_token", "flash_read_gbps"}) {
    row[key] = nullptr;
  }
  row["config"]["selector"] = nullptr;
  row["error"] = error;
  return row;
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ReportRowsTest, AModeIsAllThatDiffersBesideTheBudget) {
  std::vector<Json> records = {Row(40), Row(20), Row(20, "mmap"),
                               Failed(1, "too small")};
  const ReportRows rows(records);
  ASSERT_EQ(rows.models().size(), 1u);
  ASSERT_EQ(rows.models()[0].tests.size(), 1u);
  const auto sorted = rows.models()[0].tests[0].rows;
  ASSERT_EQ(sorted.size(), 4u);
  // A failed row is of the mode it would have had.
  EXPECT_EQ(sorted[0].mode, "pread, exact");
  EXPECT_EQ(sorted[0].error, "too small");
  EXPECT_EQ(sorted[1].budget, "20 MiB");
  EXPECT_EQ(sorted[2].budget, "40 MiB");
  EXPECT_EQ(sorted[3].mode, "mmap, exact");
  EXPECT_FALSE(sorted[3].is_held);
  EXPECT_TRUE(sorted[0].is_held);

  records[0]["n_threads"] = 2;
  records[1]["n_threads"] = 1;
  const ReportRows threads(records);
  EXPECT_EQ(threads.models()[0].rows[1].mode.find("pread, exact"), 0u);
  EXPECT_TRUE(Has(threads.models()[0].rows[2].mode, "threads"));
}

TEST(ReportRowsTest, TheBoundIsTheSlowerOfFlashAndRam) {
  const std::vector<Json> records = {Row(40), Row(60)};
  const ReportRows rows(records);
  const SpeedBound& bound = rows.models()[0].tests[0].bound;
  EXPECT_EQ(bound.weight_bytes, 80 * kMiB);
  EXPECT_EQ(bound.fixed_bytes, 10 * kMiB);
  EXPECT_EQ(bound.flash_bytes_per_second, 1e9);
  EXPECT_NEAR(*bound.ram_bytes_per_second, 80 * kMiB / 0.020, 1);
  EXPECT_NEAR(*bound.TokensPerSecond(40 * kMiB), 1e9 / (50 * kMiB), 1e-9);
  EXPECT_NEAR(*bound.TokensPerSecond(1000 * kMiB), 50, 1e-9) << "RAM";
  EXPECT_NEAR(*bound.TokensPerSecond(0), 1e9 / (80 * kMiB), 1e-9)
      << "no more than all weights";
  EXPECT_FALSE(rows.flash()->is_of_profile);

  // No point lies above the bound: neither may a row's fastest repetition.
  std::vector<Json> faster = records;
  faster[1]["samples_ts"] = {1, 40};
  const ReportRows of_repetition(faster);
  EXPECT_NEAR(of_repetition.flash()->bytes_per_second, 40 * 30 * kMiB, 1);
  faster[1]["samples_ts"] = {1, 100};
  EXPECT_NEAR(
      *ReportRows(faster).models()[0].tests[0].bound.ram_bytes_per_second,
      100 * 80 * kMiB, 1);
  faster = records;
  faster[0]["device_read_gbps"] = 2.5;
  const ReportRows of_profile(faster);
  EXPECT_TRUE(of_profile.flash()->is_of_profile);
  EXPECT_EQ(of_profile.flash()->bytes_per_second, 2.5e9);
}

TEST(ReportRowsTest, PromptsAndSparseRowsHaveNoBound) {
  std::vector<Json> records = {Row(40), Row(40), Row(40)};
  records[1]["n_prompt"] = 8;
  records[2]["config"]["selector"] = "gate";
  const ReportRows rows(records);
  int num_bounds = 0;
  for (const ReportRow& row : rows.models()[0].rows) {
    num_bounds += row.BoundOfSpeed().has_value() ? 1 : 0;
  }
  EXPECT_EQ(num_bounds, 1);
}

TEST(BenchReportTest, NoRowAndOneRowAreReports) {
  const std::string none = RenderBenchReport({});
  EXPECT_TRUE(Has(none, "No row was measured."));
  EXPECT_TRUE(Has(none, "</html>"));
  const std::vector<Json> one = {Row(40)};
  const std::string page = RenderBenchReport(one);
  EXPECT_TRUE(Has(page, "id=\"speed-1-t\""));
  EXPECT_TRUE(Has(page, "id=\"time-1-t\""));
  EXPECT_FALSE(Has(page, "id=\"first-token-1-t\"")) << "there is no prompt";
}

TEST(BenchReportTest, ReasonsOfFailuresAreShownAndTextIsNoMarkup) {
  Json named = Row(40);
  named["model_type"] = "a <script>alert(1)</script> & \"b\"";
  named["model_path"] = named["model_type"];
  named["command"] = "flashelm bench -m '<b>.felm'";
  Json failed = Failed(1, "<i>too</i> small & \"odd\"");
  failed["model_path"] = named["model_path"];
  const std::vector<Json> records = {named, failed};
  const std::string page = RenderBenchReport(records);
  EXPECT_FALSE(Has(page, "<script"));
  EXPECT_FALSE(Has(page, "<i>too"));
  EXPECT_FALSE(Has(page, "<b>.felm"));
  EXPECT_TRUE(Has(page, "&lt;i&gt;too&lt;/i&gt; small &amp; &quot;odd&quot;"));
  EXPECT_TRUE(Has(page, "1 of 2 rows failed"));
  EXPECT_TRUE(Has(page, "flashelm bench -m '&lt;b&gt;.felm'"));
}

TEST(BenchReportTest, OddRecordsAreReports) {
  // Each key once with each of these, which no benchmark writes.
  const Json odd[] = {nullptr,
                      "text <&>",
                      -1,
                      1e308,
                      std::numeric_limits<double>::quiet_NaN(),
                      Json::array({1, nullptr, "x", 1e300}),
                      Json::object({{"io", 3}}),
                      true};
  const Json sound = Row(40);
  for (const auto& [key, value] : sound.items()) {
    for (const Json& other : odd) {
      Json row = sound;
      row[key] = other;
      const std::vector<Json> records = {row, sound};
      const std::string page = RenderBenchReport(records);
      EXPECT_TRUE(Has(page, "</html>")) << key << " " << other;
      // With either sign: which one 0/0 has is a matter of the processor.
      for (const char* bad : {"\"nan", "\"-nan", "Mnan", "M-nan"}) {
        EXPECT_FALSE(Has(page, bad)) << key << " " << other;
      }
      EXPECT_FALSE(Has(page, "text <&>")) << key << " " << other;
    }
  }
}

TEST(BenchReportTest, LayersOfSparseRowsHaveHitRates) {
  Json row = Row(40);
  row["layers"]["streamed_bytes_per_token"] = {1048576, 2097152};
  row["layers"]["head_streamed_bytes_per_token"] = 4096;
  EXPECT_FALSE(Has(RenderBenchReport(std::vector<Json>{row}), "layer-hits"));
  row["layers"]["fresh_bytes_per_token"] = {1048576.0, nullptr};
  row["layers"]["cache_hit_rate"] = {0.25, nullptr};
  const std::string page = RenderBenchReport(std::vector<Json>{row});
  EXPECT_TRUE(Has(page, "layer 0: 25.0 %</title>"));
  EXPECT_TRUE(Has(page, "layer 0: 2 MiB</title>")) << "streamed and fresh";
  EXPECT_TRUE(Has(page, "layer 1: not known</title>"));
  EXPECT_TRUE(Has(page, "output head: 4 KiB</title>"));
}

class ReadRecordsTest : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    std::ofstream(directory_.File("rows")) << text;
    return directory_.File("rows");
  }
  test::TempDirectory directory_;
};

TEST_F(ReadRecordsTest, ReadsArraysAndLines) {
  const Json row = Row(40);
  for (const std::string& text :
       {"[\n" + row.dump() + ",\n" + row.dump() + "]\n",
        row.dump() + "\n\n" + row.dump()}) {
    const auto records = ReadRecords(Write(text));
    ASSERT_TRUE(records) << records.error().message();
    ASSERT_EQ(records->size(), 2u);
    EXPECT_EQ((*records)[1], row);
  }
  EXPECT_EQ(ReadRecords(Write("[]"))->size(), 0u);
  EXPECT_EQ(ReadRecords(Write(""))->size(), 0u);
  // Of an earlier version that had fewer keys.
  const auto old = ReadRecords(Write("{\"schema_version\": 1}"));
  ASSERT_TRUE(old);
  EXPECT_EQ((*old)[0].size(), EmptyRow().size());
}

TEST_F(ReadRecordsTest, RefusesWhatIsNoRecord) {
  const std::string deep(100, '[');
  std::string wide = "{\"schema_version\":1";
  for (int i = 0; i < 2000; ++i) wide += ",\"k" + std::to_string(i) + "\":0";
  struct Case {
    std::string text;
    StatusCode code;
  };
  const Case cases[] = {
      {"[1]", StatusCode::kDataLoss},
      {"{}", StatusCode::kDataLoss},
      {"[{\"schema_version\": 1},", StatusCode::kDataLoss},
      {"{\"schema_version\": 99}", StatusCode::kUnimplemented},
      {"{\"schema_version\": 1, \"config\": " + deep, StatusCode::kDataLoss},
      {deep + std::string(100, ']'), StatusCode::kDataLoss},
      {wide + "}", StatusCode::kDataLoss},
      {"model,t/s\n", StatusCode::kDataLoss},
  };
  for (const Case& c : cases) {
    const auto records = ReadRecords(Write(c.text));
    ASSERT_FALSE(records) << c.text.substr(0, 80);
    EXPECT_EQ(records.error().code(), c.code) << records.error().message();
  }
  EXPECT_EQ(ReadRecords(directory_.File("none")).error().code(),
            StatusCode::kNotFound);
}

}  // namespace
}  // namespace flashelm::cli
