// flashelm bench: a row for each combination and test, each on its own.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "tests/cli/cli_fixture.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class BenchTest : public CliFixture {
 protected:
  // A short benchmark of one test, prompt and generation, but for what `more`
  // says.
  static std::vector<std::string> Bench(std::vector<std::string> more) {
    std::vector<std::string> args = {"bench", "-m", Model()};
    const auto has = [&](const char* flag) {
      return std::find(more.begin(), more.end(), flag) != more.end();
    };
    if (!has("-p") && !has("-n")) {
      args.insert(args.end(), {"-p", "0", "-n", "0", "--pg", "16,4"});
    }
    if (!has("-r")) args.insert(args.end(), {"-r", "2"});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static json Rows(const std::vector<std::string>& more, int exit_code = 0) {
    std::vector<std::string> args = Bench(more);
    args.insert(args.end(), {"-o", "json"});
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    return json::parse(result.out, nullptr, false);
  }
  static uint64_t BenchFloor() {
    const json rows = Rows({"--mem-budget", "1"}, 4);
    CommandResult refused;
    refused.err = rows[0]["error"].get<std::string>();
    return NamedBudget(refused);
  }
  // Means and deviations are those of the samples.
  static void ExpectRatesOfSamples(const json& row) {
    const auto ns = row["samples_ns"].get<std::vector<double>>();
    const auto rates = row["samples_ts"].get<std::vector<double>>();
    ASSERT_EQ(ns.size(), row["n_repetitions"].get<size_t>());
    ASSERT_EQ(rates.size(), ns.size());
    const double num_tokens =
        row["n_prompt"].get<double>() + row["n_gen"].get<double>();
    double mean = 0;
    for (size_t i = 0; i < ns.size(); ++i) {
      EXPECT_NEAR(rates[i], num_tokens * 1e9 / ns[i], 1e-6 * rates[i]);
      mean += rates[i] / static_cast<double>(ns.size());
    }
    EXPECT_NEAR(row["avg_ts"].get<double>(), mean, 1e-9 * mean);
    EXPECT_EQ(row["stddev_ts"].is_null(), ns.size() < 2);
    if (ns.size() == 2) {
      EXPECT_NEAR(row["stddev_ts"].get<double>(),
                  std::abs(rates[0] - rates[1]) / std::sqrt(2.0), 1e-9 * mean);
    }
  }
  static std::set<std::string> Keys(const json& row) {
    std::set<std::string> keys;
    for (const auto& [key, value] : row.items()) keys.insert(key);
    return keys;
  }
};

TEST_F(BenchTest, EveryRowHasEveryKeyFailedOnesToo) {
  const json rows = Rows({"--mem-budget", "1,1000G"}, 4);
  ASSERT_EQ(rows.size(), 2u);
  for (const char* key :
       {"model_path", "model_size_bytes", "n_params", "weights", "n_threads",
        "mem_budget_bytes", "peak_rss_bytes", "io_backend", "direct_io",
        "n_prompt", "n_gen", "prompt_tps", "gen_tps", "ttft_ms", "itl_p50_ms",
        "itl_p95_ms", "flash_bytes_per_token", "flash_bytes_bound_per_token",
        "flash_bytes_over_bound", "kernel_read_bytes_per_token",
        "kernel_write_bytes", "flash_read_gbps", "io_busy_ms", "io_wait_ms",
        "compute_ms", "cache_hit_rate", "simd", "budget_enforced", "samples",
        "cgroup", "version", "mem_available_bytes", "error",
        // llama-bench's names.
        "model_filename", "model_type", "model_size", "model_n_params",
        "n_batch", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts",
        "samples_ns", "samples_ts", "cpu_info", "build_commit",
        // What that has not.
        "rss_anon_bytes", "rss_file_bytes", "swap_bytes", "majflt", "minflt",
        "bytes_read", "read_ops", "itl_p90_ms", "itl_p99_ms", "overhead_ms",
        "cpu_util", "cache_state", "cgroup_limit_bytes", "kernel", "fs_type",
        "storage_model", "energy_j", "config", "schema_version"}) {
    EXPECT_TRUE(rows[0].contains(key)) << key;
  }
  EXPECT_EQ(Keys(rows[0]), Keys(rows[1]));
  EXPECT_TRUE(rows[0]["error"].is_string());
  EXPECT_TRUE(rows[0]["gen_tps"].is_null());
  EXPECT_EQ(rows[0]["mem_budget_bytes"], 1);
  EXPECT_EQ(Keys(rows[0]["config"]), Keys(rows[1]["config"]));
  EXPECT_TRUE(rows[1]["error"].is_null());
}

TEST_F(BenchTest, CountsWhatItMeasured) {
  const json rows = Rows({"--mem-budget", std::to_string(BenchFloor())});
  const json& row = rows[0];
  EXPECT_EQ(row["samples"].size(), 8u);
  EXPECT_EQ(row["prompt_samples"].size(), 2u);
  EXPECT_EQ(row["n_ctx"], 20);
  EXPECT_EQ(row["n_prompt"], 16);
  EXPECT_EQ(row["n_gen"], 4);
  EXPECT_EQ(row["n_repetitions"], 2);
  EXPECT_EQ(row["test"], "pp16+tg4");
  for (const char* key :
       {"prompt_tps", "gen_tps", "ttft_ms", "itl_p50_ms", "itl_p90_ms",
        "itl_p95_ms", "itl_p99_ms", "load_ms", "overhead_ms", "cpu_util",
        "rss_anon_bytes", "rss_file_bytes", "minflt", "read_ops"}) {
    EXPECT_GE(row[key].get<double>(), 0) << key;
  }
  EXPECT_LE(row["rss_anon_bytes"].get<uint64_t>() +
                row["rss_file_bytes"].get<uint64_t>(),
            row["peak_rss_bytes"].get<uint64_t>());
  ExpectRatesOfSamples(row);
  const auto flash = row["flash_bytes_per_token"].get<double>();
  const auto bound = row["flash_bytes_bound_per_token"].get<double>();
  EXPECT_GT(bound, 0.8 * 16333312);
  EXPECT_NEAR(row["flash_bytes_over_bound"].get<double>(), flash / bound, 1e-9);
  if (row["kernel_write_bytes"].is_number()) {
    EXPECT_EQ(row["kernel_write_bytes"], 0) << "generating is read-only";
  }
}

TEST_F(BenchTest, TheLastRowIsUnaffectedByTheRowsBefore) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const std::string floor = std::to_string(BenchFloor());
  const json rows = Rows({"--mem-budget", "1G," + floor});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["flash_bytes_per_token"], 0);
  EXPECT_GT(rows[0]["peak_rss_bytes"].get<uint64_t>(), 16333312u);
  EXPECT_LE(rows[1]["peak_rss_bytes"].get<uint64_t>(), std::stoull(floor));
}

TEST_F(BenchTest, PromptOrGenerationAloneWillDo) {
  const json prompt = Rows({"-p", "16", "-n", "0"})[0];
  EXPECT_EQ(prompt["test"], "pp16");
  EXPECT_GT(prompt["prompt_tps"].get<double>(), 0);
  EXPECT_TRUE(prompt["gen_tps"].is_null());
  EXPECT_TRUE(prompt["flash_bytes_per_token"].is_null());
  const json generation = Rows({"-p", "0", "-n", "4"})[0];
  EXPECT_EQ(generation["test"], "tg4");
  EXPECT_TRUE(generation["prompt_tps"].is_null());
  EXPECT_TRUE(generation["ttft_ms"].is_null());
  EXPECT_GT(generation["gen_tps"].get<double>(), 0);
}

TEST_F(BenchTest, TheTableHasARowForEachBudgetAndReader) {
  const auto result = Flashelm(Bench({"--mem-budget", "1000G,900G", "--io",
                                      "pread,mmap", "--allow-unenforced"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  size_t num_lines = 0;
  for (size_t at = result.out.find("\n|"); at != std::string::npos;
       at = result.out.find("\n|", at + 1)) {
    ++num_lines;
  }
  EXPECT_EQ(num_lines, 2u + 4u) << result.out;
  EXPECT_NE(result.out.find("900G"), std::string::npos);
}

TEST_F(BenchTest, MappedWeightsHoldNoBudgetAndSaySo) {
  const json row =
      Rows({"--mem-budget", "1000G", "--io", "mmap", "--allow-unenforced"})[0];
  EXPECT_EQ(row["io_backend"], "mmap");
  EXPECT_EQ(row["budget_enforced"], false);
  EXPECT_EQ(row["direct_io"], false);
  EXPECT_TRUE(row["flash_bytes_per_token"].is_null());
  EXPECT_TRUE(row["flash_bytes_bound_per_token"].is_null());
  EXPECT_GE(row["minor_faults_per_token"].get<double>() +
                row["major_faults_per_token"].get<double>(),
            0);
}

TEST_F(BenchTest, ACgroupOfTheBudgetsSizeHoldsTheRow) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const uint64_t floor = BenchFloor();
  std::vector<std::string> args = Bench(
      {"--cgroup", "-o", "json", "--mem-budget", "1," + std::to_string(floor)});
  const auto result = Flashelm(args);
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(result.exit_code, 4) << result.err;
  // Refused by the plan, with a figure, not killed.
  EXPECT_NE(rows[0]["error"].get<std::string>().find("smallest feasible"),
            std::string::npos);
  EXPECT_TRUE(rows[1]["error"].is_null()) << rows[1]["error"];
  const json& cgroup = rows[1]["cgroup"];
  if (cgroup.is_null()) {
    EXPECT_NE(result.err.find("runs without a limit"), std::string::npos);
    GTEST_SKIP() << "no memory cgroup may be made here: " << result.err;
  }
  EXPECT_LE(cgroup["limit_bytes"].get<uint64_t>(), floor);
  EXPECT_LE(cgroup["peak_bytes"].get<uint64_t>(), floor);
  EXPECT_EQ(cgroup["oom_kills"], 0);
}

TEST_F(BenchTest, WithoutTheFlagThereIsNoCgroup) {
  EXPECT_TRUE(Rows({})[0]["cgroup"].is_null());
}

TEST_F(BenchTest, AnInterruptKeepsTheRowsBeforeAndLeavesNothingBehind) {
  // The first row is refused at once, the second would take hours.
  std::vector<std::string> args =
      Bench({"--mem-budget", "1", "-r", "100000", "--cgroup"});
  const std::string first_row = Flashelm(args).out;
  args[std::find(args.begin(), args.end(), "1") - args.begin()] = "1,1000G";
  CommandOptions interrupt;
  interrupt.interrupt_after_bytes = first_row.size();
  const auto result = Flashelm(args, interrupt);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_EQ(result.out, first_row);
  const std::string group = "flashelm-bench-" + std::to_string(result.pid);
  std::error_code error;
  for (fs::recursive_directory_iterator
           at("/sys/fs/cgroup", fs::directory_options::skip_permission_denied,
              error),
       end;
       !error && at != end; at.increment(error)) {
    EXPECT_NE(at->path().filename(), group) << at->path();
  }
}

TEST_F(BenchTest, WrongUsageIsRefusedBeforeAnythingRuns) {
  const std::vector<std::vector<std::string>> cases = {
      {"--mem-budget", "1000G,-1"},
      {"--mem-budget", "1000G,much"},
      {"--mem-budget", "1000G,,1000G"},
      {"--mem-budget", ""},
      {"--io", "pread,aio"},
      {"--io", "pread,mmap"},
      {"--io", "pread", "--allow-unenforced"},
      {"-p", "0", "-n", "0"},
      {"-p", "513", "-n", "0"},
      {"-p", "0", "-n", "0", "--pg", "509,4"},
      {"-c", "19"},
      {"-c", "513"},
      {"-r", "0"},
      {"-o", "xml"},
      {"-o", "csv="},
      {"-o", "csv", "-o", "json"},
      {"-o", "csv=" + File("x"), "-o", "json=" + File("x")},
      {"-o", "csv=" + Model()},
      {"-p", "-1"},
      {"-p", "16,"},
      {"-p", "16,x"},
      {"-n", "4.5"},
      {"-t", "1,1025"},
      {"-b", "0,1"},
      {"--pg", "16"},
      {"--pg", "16,0"},
      {"--kv-type", "f32,f16"},
      {"--sparsity", "off,some"},
      {"--window", "auto,-1"},
      {"--window", "65536"},
      {"--cache-state", "tepid"},
      {"--cache-state", "warm", "--cgroup"},
      {"--sparsity", "off,auto", "--max-skipped", "1"},
      {"--windows", "3"}};
  for (const std::vector<std::string>& more : cases) {
    const auto refused = Flashelm(Bench(more));
    EXPECT_EQ(refused.exit_code, 2) << more[1] << ": " << refused.err;
    EXPECT_EQ(refused.out, "") << more[1];
    EXPECT_NE(refused.err, "");
  }
  EXPECT_EQ(Flashelm({"bench", "-m", File("none.felm")}).exit_code, 3);
  EXPECT_EQ(Flashelm({"bench"}).exit_code, 2);
}

TEST_F(BenchTest, EveryCombinationIsARowOfItsOwn) {
  const json rows =
      Rows({"-p", "3,5", "-n", "2", "--pg", "2,1", "-r", "1", "-t", "1,2", "-b",
            "2,512", "-c", "0,20", "--kv-type", "f32,bf16", "--no-warmup"});
  ASSERT_EQ(rows.size(), 4u * 16);
  std::set<std::string> seen;
  for (const json& row : rows) {
    EXPECT_TRUE(row["error"].is_null()) << row["error"];
    const json& config = row["config"];
    seen.insert(row["test"].get<std::string>() + row["n_threads"].dump() +
                config["batch_size"].dump() + row["n_ctx"].dump() +
                row["kv_type"].dump());
    EXPECT_EQ(config["threads"], row["n_threads"]);
    EXPECT_EQ(config["warmup"], false);
  }
  EXPECT_EQ(seen.size(), rows.size());
  EXPECT_EQ(rows[0]["test"], "pp3");
  EXPECT_EQ(rows[1]["test"], "pp5");
  EXPECT_EQ(rows[2]["test"], "tg2");
  EXPECT_EQ(rows[3]["test"], "pp2+tg1");
}

TEST_F(BenchTest, ACombinationThatCannotRunLeavesTheOthers) {
  const auto result =
      Flashelm(Bench({"-o", "json", "-p", "16,600", "-n", "0"}));
  EXPECT_EQ(result.exit_code, 2) << result.err;
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(rows[0]["error"].is_null()) << rows[0]["error"];
  EXPECT_NE(rows[1]["error"].get<std::string>().find("-p 600"),
            std::string::npos);
  EXPECT_TRUE(rows[1]["avg_ts"].is_null());
  EXPECT_NE(result.err.find("pp600"), std::string::npos) << result.err;

  const auto table = Flashelm(Bench({"-p", "16,600", "-n", "0"}));
  EXPECT_EQ(table.exit_code, 2) << table.err;
  EXPECT_NE(table.out.find("| failed: -p 600"), std::string::npos) << table.out;

  const auto none = Flashelm(Bench({"-p", "600", "-n", "700"}));
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_EQ(none.out, "") << "no row can run";
}

TEST_F(BenchTest, AMissingModelIsARowBesideOthers) {
  const auto result = Flashelm(Bench({"-m", File("none.felm"), "-o", "json"}));
  EXPECT_EQ(result.exit_code, 3) << result.err;
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(rows[0]["error"].is_null());
  EXPECT_EQ(rows[1]["model_filename"], File("none.felm"));
  EXPECT_TRUE(rows[1]["error"].is_string());
}

TEST_F(BenchTest, RepetitionsInTurnMakeOneRecord) {
  const std::string floor = std::to_string(BenchFloor());
  const auto result = Flashelm(Bench(
      {"--interleave", "-r", "2", "-o", "json", "--mem-budget", "1," + floor}));
  EXPECT_EQ(result.exit_code, 4) << result.err;
  const json rows = json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(rows[0]["error"].is_string());
  const json& row = rows[1];
  EXPECT_TRUE(row["error"].is_null()) << row["error"];
  EXPECT_EQ(row["n_repetitions"], 2);
  EXPECT_EQ(row["samples"].size(), 8u);
  ExpectRatesOfSamples(row);
  EXPECT_EQ(row["config"]["interleave"], true);
  // Of what two processes did, what is per token is no sum.
  EXPECT_NEAR(row["flash_bytes_over_bound"].get<double>(), 1, 0.02);
  EXPECT_EQ(row["itl_p99_ms"],
            *std::max_element(row["samples"].begin(), row["samples"].end()));
#ifndef FLASHELM_FOREIGN_MEMORY
  EXPECT_LE(row["peak_rss_bytes"].get<uint64_t>(), std::stoull(floor));
#endif
}

TEST_F(BenchTest, SaysWhatThePageCacheHeld) {
  const json row = Rows({})[0];
  EXPECT_EQ(row["cache_state"], "as-is");

  const json cold = Rows({"--cache-state", "cold"})[0];
  EXPECT_EQ(cold["config"]["warmup"], false);
  EXPECT_EQ(cold["samples"].size(), 8u);
  // A file system in memory has no other place for the pages.
  EXPECT_EQ(cold["cache_state"],
            cold["cached_bytes"] == 0 ? "cold" : "cold-incomplete");

  const json warm = Rows({"--cache-state", "warm"})[0];
  if (warm["cached_bytes"].is_null()) {
    GTEST_SKIP() << "this system does not say what is cached";
  }
  EXPECT_EQ(warm["cache_state"],
            warm["cached_bytes"] >= warm["model_size_bytes"]
                ? "warm"
                : "warm-incomplete");
  EXPECT_GT(warm["cached_bytes"].get<uint64_t>(), 0u);
}

TEST_F(BenchTest, AFileOfRecordsIsWholeAfterAnInterrupt) {
  const std::string file = File("interrupted.json");
  std::vector<std::string> args =
      Bench({"-r", "100000", "-o", "jsonl", "-o", "json=" + file,
             "--mem-budget", "1,1000G"});
  CommandOptions interrupt;
  interrupt.interrupt_after_bytes = 1000;
  const auto result = Flashelm(args, interrupt);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  const json rows = json::parse(ReadFile(file));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0], json::parse(result.out));
}

TEST_F(BenchTest, AMeasuredDeviceShapesReads) {
  const std::string saved = File("device.json");
  const auto measured = Flashelm({"bench", "io", "-m", Model(), "--time", "1",
                                  "--save", saved, "-o", "json"});
  ASSERT_EQ(measured.exit_code, 0) << measured.err;
  EXPECT_EQ(measured.out, ReadFile(saved));
  EXPECT_EQ(json::parse(measured.out)["path"], Model());

  const json row = Rows({"--mem-budget", std::to_string(2 * BenchFloor()),
                         "--io", "pread", "--device-profile", saved})[0];
  EXPECT_TRUE(row["error"].is_null()) << row["error"];
  EXPECT_EQ(row["io_backend"], "pread");

  const auto plan = Flashelm({"plan", "-m", Model(), "--json", "--io", "pread",
                              "--device-profile", saved});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  const json printed = json::parse(plan.out);
  EXPECT_EQ(printed["read_rate_source"], "profile");
  const json best = json::parse(measured.out)["best"].back();
  EXPECT_EQ(best["backend"], "pread");
  EXPECT_EQ(printed["read_bytes_per_second"], best["bytes_per_second"]);
}

TEST_F(BenchTest, AProfileThatCannotBeUsedIsRefused) {
  WriteFile(File("empty.json"), "{}");
  struct Case {
    std::vector<std::string> args;
    int exit_code;
  };
  const std::vector<Case> cases = {
      {{"--device-profile", File("empty.json")}, 3},
      {{"--device-profile", File("none.json")}, 3},
      {{"--device-profile", Model()}, 2},
      {{"--device-profile", File("empty.json"), "--io", "mmap",
        "--allow-unenforced"},
       2}};
  for (const Case& c : cases) {
    EXPECT_EQ(Flashelm(Bench(c.args)).exit_code, c.exit_code) << c.args[1];
  }
}

TEST_F(BenchTest, TheDeviceIsMeasuredWithItsOwnFlags) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"bench", "io"},
        {"bench", "-p", "5", "io", "-m", Model()},
        {"bench", "-m", Model(), "io", "-m", Model()},
        {"bench", "io", "-m", Model(), "-r", "2"},
        {"bench", "io", "-m", Model(), "--time", "0"},
        {"bench", "io", "-m", Model(), "--save", Model()}}) {
    const auto refused = Flashelm(args);
    EXPECT_EQ(refused.exit_code, 2) << args.back() << ": " << refused.err;
    EXPECT_EQ(refused.out, "");
  }
  EXPECT_EQ(Flashelm({"bench", "io", "-m", File("none")}).exit_code, 3);
}

}  // namespace
}  // namespace flashelm::test
