// Models for tests of the engine.
#ifndef FLASHELM_TESTS_CORE_TEST_MODEL_H_
#define FLASHELM_TESTS_CORE_TEST_MODEL_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/session.h"
#include "storage/weight_format.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {

// models/NAME of the repository.
std::string SampleModelDirectory(const std::string& name);

// What a test of the engine that goes through all encodings is given. With the
// thread sanitizer, the one with the largest records and the one with the
// smallest: threads do the same with the others.
inline std::vector<Encoding> TestedEncodings() {
#ifdef FLASHELM_THREAD_SANITIZED
  return {Encoding::kF32, Encoding::kQ4};
#else
  return {Encoding::kF32, Encoding::kBf16, Encoding::kQ8, Encoding::kQ4};
#endif
}

// A checkpoint converted into a directory of its own, which goes with it.
class ConvertedModel {
 public:
  // Fails the test, and path() is useless, when conversion does. With `rows`,
  // without bundles.
  ConvertedModel(const std::string& source_directory, Encoding weights,
                 bool rows = false);
  // The same for a random checkpoint.
  ConvertedModel(const CheckpointOptions& checkpoint, Encoding weights,
                 bool rows = false);

  const std::string& path() const { return path_; }

 private:
  void Convert(const std::string& source_directory, Encoding weights,
               bool rows);

  TempDirectory directory_;
  std::string path_;
};

// An engine with its session; fails the test and stays empty on error.
struct Running {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
};
// The plan leaves the process out, so that it is the same in every build.
Running Start(const std::string& path, EngineOptions options);

// The smallest budget that the plan accepts.
uint64_t SmallestBudget(const std::string& path, EngineOptions options);

// Logits of every token, [tokens, vocab_size], in calls of at most `chunk`
// tokens; 0: as many as one call takes. Fails the test on error.
std::vector<float> AllLogits(Session& session, std::span<const TokenId> tokens,
                             uint32_t vocab_size, uint32_t chunk = 0);

// The `count` likeliest tokens after a prompt, one by one. Fails the test on
// error.
std::vector<TokenId> GreedyIds(Session& session,
                               std::span<const TokenId> prompt, size_t count,
                               uint32_t vocab_size);

// tests/data/NAME as the engine's tokens, without BOS. Fails the test on error.
std::vector<TokenId> TokensOfText(const Engine& engine,
                                  const std::string& name);

// A fixed sequence of `count` ids below `vocab_size`.
std::vector<TokenId> SomeTokens(size_t count, uint32_t vocab_size);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_TEST_MODEL_H_
