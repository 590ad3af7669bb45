#include "tests/core/test_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "core/convert/convert.h"
#include "core/sampler.h"
#include "core/text_file.h"

namespace flashelm::test {

std::string SampleModelDirectory(const std::string& name) {
  return std::string(FLASHELM_SOURCE_DIR "/models/") + name;
}

ConvertedModel::ConvertedModel(const std::string& source_directory,
                               Encoding weights, bool rows) {
  Convert(source_directory, weights, rows);
}

ConvertedModel::ConvertedModel(const CheckpointOptions& checkpoint,
                               Encoding weights, bool rows) {
  const TempDirectory source;
  WriteCheckpoint(source.path(), checkpoint);
  Convert(source.path(), weights, rows);
}

void ConvertedModel::Convert(const std::string& source_directory,
                             Encoding weights, bool rows) {
  path_ = directory_.File("model.felm");
  ConvertOptions options;
  options.weights = weights;
  options.rows = rows;
  const auto report = flashelm::Convert(source_directory, path_, options);
  ASSERT_TRUE(report) << report.error().message();
}

Running Start(const std::string& path, EngineOptions options) {
  options.plan.whole_process = false;
  Running running;
  const auto start = [&]() -> Status {
    FLASHELM_ASSIGN_OR_RETURN(ModelFile model, ModelFile::Open(path));
    FLASHELM_ASSIGN_OR_RETURN(running.engine,
                              Engine::Create(std::move(model), options));
    FLASHELM_ASSIGN_OR_RETURN(running.session,
                              Session::Create(*running.engine));
    return OkStatus();
  };
  const Status status = start();
  EXPECT_TRUE(status.ok()) << status.message();
  return running;
}

uint64_t SmallestBudget(const std::string& path, EngineOptions options) {
  options.plan.whole_process = false;
  auto model = ModelFile::Open(path);
  EXPECT_TRUE(model) << model.error().message();
  auto plan = MakePlan(*model, options.plan);
  EXPECT_TRUE(plan) << plan.error().message();
  return plan->minimum_bytes;
}

std::vector<float> AllLogits(Session& session, std::span<const TokenId> tokens,
                             uint32_t vocab_size, uint32_t chunk) {
  if (chunk == 0) chunk = session.max_logit_rows();
  std::vector<uint32_t> wanted(chunk);
  std::iota(wanted.begin(), wanted.end(), 0u);
  std::vector<float> all;
  all.reserve(tokens.size() * vocab_size);
  const CancelToken never;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const size_t count = std::min<size_t>(chunk, tokens.size() - at);
    const Status status =
        session.Run(tokens.subspan(at, count),
                    std::span<const uint32_t>(wanted).first(count), never);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) return all;
    for (size_t i = 0; i < count; ++i) {
      const auto logits = session.logits(i);
      all.insert(all.end(), logits.begin(), logits.end());
    }
  }
  return all;
}

std::vector<TokenId> GreedyIds(Session& session,
                               std::span<const TokenId> prompt, size_t count,
                               uint32_t vocab_size) {
  Sampler sampler(SamplerOptions{}, vocab_size);
  const CancelToken never;
  std::vector<TokenId> generated;
  std::span<const TokenId> next = prompt;
  while (generated.size() < count) {
    const auto last = static_cast<uint32_t>(next.size() - 1);
    const Status status = session.Run(next, {&last, 1}, never);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) return generated;
    generated.push_back(sampler.Sample(session.logits(0)));
    next = std::span<const TokenId>(generated).last(1);
  }
  return generated;
}

std::vector<TokenId> TokensOfText(const Engine& engine,
                                  const std::string& name) {
  const auto text = ReadTextFile(
      std::string(FLASHELM_SOURCE_DIR "/tests/data/") + name, UINT64_MAX);
  EXPECT_TRUE(text) << text.error().message();
  if (!text) return {};
  return engine.tokenizer().Encode(*text, /*add_bos=*/false);
}

std::vector<TokenId> SomeTokens(size_t count, uint32_t vocab_size) {
  std::mt19937 random(7);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = random() % vocab_size;
  return tokens;
}

}  // namespace flashelm::test
