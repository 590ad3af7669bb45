// The command as a user sees it: output, exit codes, files, memory.

#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

#include "core/convert/calibrated_file.h"
#include "tests/cli/cli_fixture.h"
#include "tests/cli/command.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class CliTest : public CliFixture {
 protected:
  static CommandOptions Input(std::string text) {
    CommandOptions options;
    options.input = std::move(text);
    return options;
  }
  static CommandOptions Interrupted(size_t after_bytes) {
    CommandOptions options;
    options.interrupt_after_bytes = after_bytes;
    return options;
  }
};

TEST_F(CliTest, RunWritesTheGoldenTextAndNothingElseToStdout) {
  const Golden golden = ReadGolden("tiny-stories");
  for (const GoldenPrompt& prompt : golden.prompts) {
    const auto result = Flashelm({"run", "-m", Model(), "-p", prompt.text, "-n",
                                  std::to_string(prompt.greedy_ids.size()),
                                  "--ignore-eos", "--echo"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, prompt.greedy_text + "\n");
  }
}

TEST_F(CliTest, PromptComesFromArgumentFileAndStandardInputAlike) {
  const std::string prompt = "The king had";
  WriteFile(File("prompt.txt"), prompt);
  const auto from_argument =
      Flashelm({"run", "-m", Model(), "-p", prompt, "-n", "12"});
  ASSERT_EQ(from_argument.exit_code, 0) << from_argument.err;
  const auto from_file =
      Flashelm({"run", "-m", Model(), "-f", File("prompt.txt"), "-n", "12"});
  const auto from_stdin =
      Flashelm({"run", "-m", Model(), "-p", "-", "-n", "12"}, Input(prompt));
  EXPECT_EQ(from_file.out, from_argument.out);
  EXPECT_EQ(from_stdin.out, from_argument.out);
}

TEST_F(CliTest, TheBudgetNamedOnRefusalWorksAndIsKept) {
  const std::vector<std::string> run = {
      "run", "-m", Model(), "-p",      "Once upon a time", "-t",
      "2",   "-n", "100",   "--stats", File("stats.json"), "--mem-budget"};
  const auto with_budget = [&](const std::string& budget) {
    std::vector<std::string> args = run;
    args.push_back(budget);
    return Flashelm(args);
  };
  const auto refused = with_budget("1");
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_EQ(refused.out, "");
  const uint64_t least = NamedBudget(refused);
  EXPECT_EQ(with_budget(std::to_string(least - 1)).exit_code, 4);

  const auto resident = with_budget(Plenty(least));
  ASSERT_EQ(resident.exit_code, 0) << resident.err;
  const json resident_stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_EQ(resident_stats["flash_bytes_per_token"], 0);

  const auto floor = with_budget(std::to_string(least));
  ASSERT_EQ(floor.exit_code, 0) << floor.err;
  EXPECT_EQ(floor.out, resident.out);
  const json stats = json::parse(ReadFile(File("stats.json")));
  EXPECT_GE(stats["flash_bytes_per_token"].get<double>(), 0.8 * 16333312);
  EXPECT_GE(stats["flash_bytes_per_token"].get<double>(),
            stats["flash_bytes_bound_per_token"].get<double>());
#ifndef FLASHELM_SANITIZED
  EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), least);
  EXPECT_LE(resident_stats["peak_rss_bytes"].get<uint64_t>(),
            std::stoull(Plenty(least)));
  // The promise for this model: weights of 15.6 MiB, in f32.
  EXPECT_LE(least, 12u << 20);
#endif
}

TEST_F(CliTest, ThePlanIsCloseToThePeak) {
#ifdef FLASHELM_SANITIZED
  GTEST_SKIP() << "a sanitizer takes memory of its own";
#endif
  // Room that no budget gets back: what is planned and never taken.
  constexpr uint64_t kMostSlack = 4 << 20;
  std::vector<std::string> run = {"run",
                                  "-m",
                                  Model(),
                                  "-p",
                                  "Once upon a time",
                                  "-t",
                                  "2",
                                  "-n",
                                  "-1",
                                  "-c",
                                  "64",
                                  "--ignore-eos",
                                  "--stats",
                                  File("slack.json")};
  const uint64_t floor = Floor(run);
  run.insert(run.end(), {"--mem-budget", ""});
  for (const uint64_t more : {0u, 7u << 20, 64u << 20}) {
    SCOPED_TRACE(more);
    run.back() = std::to_string(floor + more);
    const auto result = Flashelm(run);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json stats = json::parse(ReadFile(File("slack.json")));
    const auto planned = stats["planned_bytes"].get<uint64_t>();
    const auto peak = stats["peak_rss_bytes"].get<uint64_t>();
    EXPECT_LE(planned, stats["mem_budget_bytes"].get<uint64_t>());
    EXPECT_LE(peak, planned);
    EXPECT_LE(planned - peak, kMostSlack);
  }
}

TEST_F(CliTest, LogitsAreTheSameFileAtTheFloorAndResident) {
  const std::vector<std::string> base = {"logits", "-m", Model(), "-p",
                                         "Tom and Sam went to the park."};
  const auto logits = [&](const std::string& budget, const std::string& file) {
    std::vector<std::string> args = base;
    args.insert(args.end(), {"-o", File(file), "--mem-budget", budget,
                             "--stats", File("logits.json")});
    return Flashelm(args);
  };
  const auto refused = logits("1", "refused.npy");
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_FALSE(std::filesystem::exists(File("refused.npy")));
  const uint64_t least = NamedBudget(refused);
  ASSERT_EQ(logits(Plenty(least), "resident.npy").exit_code, 0);
  const auto floor = logits(std::to_string(least), "floor.npy");
  ASSERT_EQ(floor.exit_code, 0) << floor.err;
  EXPECT_EQ(ReadFile(File("floor.npy")), ReadFile(File("resident.npy")));
#ifndef FLASHELM_SANITIZED
  const json stats = json::parse(ReadFile(File("logits.json")));
  EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), least);
#endif
  const NpyMatrix matrix = ReadNpy(File("floor.npy"));
  EXPECT_EQ(matrix.cols, 2048u);
}

TEST_F(CliTest, LogitsOfTokensAreThoseOfTheirText) {
  ASSERT_EQ(Flashelm({"logits", "-m", Model(), "-p", "Once upon a time", "-o",
                      File("text.npy")})
                .exit_code,
            0);
  ASSERT_EQ(Flashelm({"logits", "-m", Model(), "--tokens", "1,509,491,261,424",
                      "-o", File("ids.npy")})
                .exit_code,
            0);
  EXPECT_EQ(ReadFile(File("text.npy")), ReadFile(File("ids.npy")));
}

TEST_F(CliTest, PerplexityPrintsTheAgreedKeys) {
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto result = Flashelm({"perplexity", "-m", Model(), "-f",
                                File("short.txt"), "-c", "8", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json printed = json::parse(result.out);
  for (const char* key :
       {"perplexity", "mean_nll", "stderr_nll", "n_tokens", "n_ctx"}) {
    EXPECT_TRUE(printed.contains(key)) << key;
  }
  EXPECT_EQ(printed["n_ctx"], 8);
  EXPECT_NE(Flashelm({"perplexity", "-m", Model(), "-f", File("short.txt")})
                .out.find("perplexity "),
            std::string::npos);
}

TEST_F(CliTest, PerplexityComparesWithAReference) {
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto result =
      Flashelm({"perplexity", "-m", Model(), "-f", File("short.txt"),
                "--reference", Model(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json printed = json::parse(result.out);
  EXPECT_EQ(printed["mean_kl"], 0);
  EXPECT_EQ(printed["same_top"], 1);
  EXPECT_TRUE(printed.contains("stderr_kl"));
}

TEST_F(CliTest, ACalibratedReluModelLosesNothing) {
  const std::string dense = File("relu.felm");
  const std::string sparse = File("sparse.felm");
  ASSERT_EQ(
      Flashelm({"convert", FLASHELM_SOURCE_DIR "/models/tiny-stories-relu",
                "-o", dense})
          .exit_code,
      0);
  const std::string text = FLASHELM_SOURCE_DIR "/tests/data/calibration.txt";
  const auto refused = Flashelm(
      {"run", "-m", dense, "-p", "Once", "--sparsity", "gate", "-n", "3"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("flashelm calibrate -m " + dense),
            std::string::npos);
  const auto calibrated = Flashelm({"calibrate", "-m", dense, "-f", text, "-o",
                                    sparse, "--max-tokens", "1000"});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  EXPECT_NE(calibrated.out.find("| 5 | 1024 | "), std::string::npos);
  // Sparse where nothing is said.
  std::string text_of_single;
  const auto stats_of = [&](const std::string& reads) {
    const auto run = Flashelm({"run", "-m", sparse, "-p", "Once upon a time",
                               "-n", "20", "--temp", "0", "--neuron-reads",
                               reads, "--stats", File("sparse.json")});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    const json stats = json::parse(ReadFile(File("sparse.json")));
    EXPECT_GT(stats["kept_fraction"], 0.01);
    EXPECT_LT(stats["kept_fraction"], 0.3);
    EXPECT_EQ(stats["max_skipped"], 0);
    EXPECT_EQ(stats["layers"]["streamed"],
              json(std::vector<bool>(6, reads != "single")));
    if (text_of_single.empty()) text_of_single = run.out;
    EXPECT_EQ(run.out, text_of_single);
    return stats;
  };
  const json single = stats_of("single");
  EXPECT_GT(single["cache_hit_rate"], 0.2);
  EXPECT_TRUE(single["dense_fetches"].is_number_unsigned());
  EXPECT_GT(single["layers"]["fresh_bytes"][5], 0);
  const json streamed = stats_of("streamed");
  EXPECT_TRUE(streamed["layers"]["fresh_bytes"][5].is_null());
  EXPECT_EQ(streamed["kept_fraction"], single["kept_fraction"]);
  // There is room for all of them.
  EXPECT_EQ(stats_of("auto")["flash_bytes_per_token"], 0);
  const auto plan_of = [&](const std::string& reads) {
    const auto planned =
        Flashelm({"plan", "-m", sparse, "--json", "--neuron-reads", reads});
    EXPECT_EQ(planned.exit_code, 0) << planned.err;
    const json plan = json::parse(planned.out);
    EXPECT_GT(plan["kept_fraction"], 0.01);
    EXPECT_LT(plan["kept_fraction"], 0.3);
    EXPECT_EQ(plan["fresh_bytes_per_token"], 0);
    EXPECT_EQ(plan["forecast"]["token_ms"], plan["forecast"]["compute_ms"]);
    EXPECT_TRUE(plan["forecast"]["prompt_tps"].is_null());
    return plan;
  };
  const json single_plan = plan_of("single");
  EXPECT_EQ(single_plan["cached_bundles"], 3456);
  EXPECT_EQ(single_plan["streamed_layers"], 0);
  const json auto_plan = plan_of("auto");
  EXPECT_EQ(auto_plan["cached_bundles"], 0);
  EXPECT_EQ(auto_plan["streamed_layers"], 6);
  const auto told =
      Flashelm({"plan", "-m", sparse, "--neuron-reads", "single"});
  EXPECT_NE(told.out.find("3456 are cached, and 0 B are read"),
            std::string::npos)
      << told.out;
  EXPECT_NE(Flashelm({"plan", "-m", sparse}).out.find("In 6 of 6 layers"),
            std::string::npos);
  EXPECT_EQ(Flashelm({"run", "-m", sparse, "-p", "Once upon a time", "-n", "20",
                      "--temp", "0", "--sparsity", "off"})
                .out,
            text_of_single);
  WriteFile(File("short.txt"), "Once upon a time there was a little dog. ");
  const auto compared =
      Flashelm({"perplexity", "-m", sparse, "-f", File("short.txt"),
                "--against", "dense", "--json"});
  ASSERT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_EQ(json::parse(compared.out)["mean_kl"], 0);
}

TEST_F(CliTest, StatsHaveEveryAgreedKey) {
  ASSERT_EQ(Flashelm({"run", "-m", Model(), "-p", "A", "-n", "3", "--stats",
                      File("keys.json")})
                .exit_code,
            0);
  const json stats = json::parse(ReadFile(File("keys.json")));
  for (const char* key : {"model_path",
                          "model_size_bytes",
                          "n_params",
                          "weights",
                          "n_threads",
                          "mem_budget_bytes",
                          "budget_enforced",
                          "peak_rss_bytes",
                          "io_backend",
                          "direct_io",
                          "n_prompt",
                          "n_gen",
                          "prompt_tps",
                          "gen_tps",
                          "ttft_ms",
                          "itl_p50_ms",
                          "itl_p95_ms",
                          "flash_bytes_per_token",
                          "flash_bytes_bound_per_token",
                          "flash_read_gbps",
                          "io_busy_ms",
                          "io_wait_ms",
                          "compute_ms",
                          "cache_hit_rate",
                          "dense_fetches",
                          "simd"}) {
    EXPECT_TRUE(stats.contains(key)) << key;
  }
  EXPECT_EQ(stats["n_gen"], 3);
  EXPECT_EQ(stats["n_prompt"], 2);
  EXPECT_TRUE(stats["cache_hit_rate"].is_null());
  EXPECT_TRUE(stats["dense_fetches"].is_null());
}

TEST_F(CliTest, SimdIsWhatWasAskedFor) {
  const auto list = Flashelm({"run", "--simd", "list"});
  ASSERT_EQ(list.exit_code, 0) << list.err;
  std::istringstream targets(list.out);
  std::set<std::string> texts;
  std::string target;
  while (std::getline(targets, target)) {
    SCOPED_TRACE(target);
    // In either case.
    std::string name = target;
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    const std::string file = File(target + ".json");
    const auto result = Flashelm({"run", "-m", Model(), "-p", "Once upon", "-n",
                                  "8", "--simd", name, "--stats", file});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(json::parse(ReadFile(file))["simd"], target);
    texts.insert(result.out);
  }
  EXPECT_EQ(texts.size(), 1u);

  const auto unknown =
      Flashelm({"run", "-m", Model(), "-p", "A", "--simd", ""});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_NE(unknown.err.find(target), std::string::npos)
      << unknown.err << " does not say what there is";
}

TEST_F(CliTest, InspectPrintsTheSameFactsAsTextAndJson) {
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

TEST_F(CliTest, ConvertTakesAnEncodingForEachKindAndInspectShowsThem) {
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

TEST_F(CliTest, InspectHasNoErrorsOfWeightsThatWereNotQuantised) {
  const json model =
      json::parse(Flashelm({"inspect", "-m", Model(), "--json"}).out);
  for (const char* kind : {"embedding", "attention", "ffn", "norms"}) {
    EXPECT_TRUE(model["quantization_mse"][kind].is_null());
    EXPECT_EQ(model["bits_per_weight"][kind], 32);
  }
}

TEST_F(CliTest, InspectShowsWhatACalibratedFileHasBesides) {
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

TEST_F(CliTest, VerifyNamesWhatIsDamaged) {
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

TEST_F(CliTest, ExitCodesFollowTheKindOfError) {
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

TEST_F(CliTest, AFullStandardOutputIsNoSuccess) {
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

TEST_F(CliTest, EveryVerbKeepsTheBudgetThatItNames) {
#ifdef FLASHELM_SANITIZED
  GTEST_SKIP() << "a sanitizer takes memory of its own";
#endif
  const std::string bf16 = File("bf16.felm");
  ASSERT_EQ(
      Flashelm({"convert", SampleModelDirectory("tiny-stories"), "-o", bf16})
          .exit_code,
      0);
  std::string text;
  while (text.size() < 300) text += "The dog and the cat saw a bird. ";
  WriteFile(File("long.txt"), text);
  for (const std::string& model : {Model(), bf16}) {
    for (const char* threads : {"1", "4"}) {
      const std::vector<std::string> shared = {
          "-m", model, "-t", threads, "-f", File("long.txt")};
      std::vector<std::vector<std::string>> commands = {
          {"run", "-n", "4", "--temp", "1", "--stats", File("peak.json")},
          {"logits", "-o", File("peak.npy"), "--stats", File("peak.json")},
          {"perplexity", "-c", "64", "--json"},
          {"perplexity", "-c", "64", "--reference", Model(), "--json"}};
      for (std::vector<std::string>& args : commands) {
        args.insert(args.end(), shared.begin(), shared.end());
        const uint64_t floor = Floor(args);
        args.insert(args.end(), {"--mem-budget", std::to_string(floor)});
        const auto result = Flashelm(args);
        ASSERT_EQ(result.exit_code, 0) << args[0] << ": " << result.err;
        const json stats = json::parse(
            args[0] == "perplexity" ? result.out : ReadFile(File("peak.json")));
        EXPECT_LE(stats["peak_rss_bytes"].get<uint64_t>(), floor)
            << args[0] << " with " << threads << " threads";
      }
    }
  }
}

TEST_F(CliTest, GenerationStopsWhereItIsTold) {
  const std::vector<std::string> run = {"run",
                                        "-m",
                                        Model(),
                                        "-p",
                                        "Once upon a time",
                                        "--stats",
                                        File("stop.json")};
  const auto reason = [&](std::vector<std::string> more) {
    std::vector<std::string> args = run;
    args.insert(args.end(), more.begin(), more.end());
    const auto result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const json stats = json::parse(ReadFile(File("stop.json")));
    return std::pair(stats["stop_reason"].get<std::string>(), result);
  };
  const auto by_count = reason({"-n", "5"});
  EXPECT_EQ(by_count.first, "n_predict");
  const auto nothing = reason({"-n", "0"});
  EXPECT_EQ(nothing.first, "n_predict");
  EXPECT_EQ(nothing.second.out, "\n");
  const auto by_string = reason({"--stop", " girl", "--stop", "Lily"});
  EXPECT_EQ(by_string.first, "stop_string");
  EXPECT_EQ(by_string.second.out, ", there was a little\n");
  const auto by_context = reason({"-n", "-1", "-c", "16", "--ignore-eos"});
  EXPECT_EQ(by_context.first, "context_full");
  EXPECT_NE(by_context.second.err.find("context of 16 positions is full"),
            std::string::npos);
}

TEST_F(CliTest, TheSameSeedWritesTheSameText) {
  const auto run = [&](const char* seed) {
    return Flashelm({"run", "-m", Model(), "-p", "One day", "-n", "40",
                     "--temp", "1", "-s", seed})
        .out;
  };
  EXPECT_EQ(run("7"), run("7"));
  EXPECT_NE(run("7"), run("8"));
}

TEST_F(CliTest, InterruptStopsGenerationCleanly) {
  std::vector<std::string> run = {
      "run", "-m", Model(),        "-p",      "Once upon a time",
      "-n",  "-1", "--ignore-eos", "--stats", File("int.json")};
  run.insert(run.end(), {"--mem-budget", std::to_string(Floor(run))});
  const auto result = Flashelm(run, Interrupted(20));
  EXPECT_EQ(result.exit_code, 130) << result.err;
  ASSERT_FALSE(result.out.empty());
  EXPECT_EQ(result.out.back(), '\n');
  const json stats = json::parse(ReadFile(File("int.json")));
  EXPECT_EQ(stats["stop_reason"], "cancelled");
}

TEST_F(CliTest, AFullDiskLeavesNothingBehind) {
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

TEST_F(CliTest, AHalfWrittenCodePointIsNeverPrinted) {
  // The prompt's emoji makes the model continue with byte pieces.
  const Golden golden = ReadGolden("tiny-stories-relu");
  const GoldenPrompt& prompt = golden.prompts.back();
  const std::string relu = File("relu.felm");
  ASSERT_EQ(Flashelm({"convert", SampleModelDirectory("tiny-stories-relu"),
                      "-o", relu})
                .exit_code,
            0);
  for (int n = 1; n <= 6; ++n) {
    const auto result = Flashelm({"run", "-m", relu, "-p", prompt.text, "-n",
                                  std::to_string(n), "--echo"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NO_THROW(json(result.out).dump()) << "not UTF-8: " << result.out;
  }
}

}  // namespace
}  // namespace flashelm::test
