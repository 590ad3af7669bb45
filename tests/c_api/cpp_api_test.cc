// The C++ owners, as an application uses them.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <type_traits>

#include "flashelm/flashelm.hpp"
#include "tests/c_api/sample_model.h"

namespace {

using flashelm::Engine;
using flashelm::Error;
using flashelm::Session;

static_assert(!std::is_copy_constructible_v<Engine>);
static_assert(!std::is_copy_constructible_v<Session>);
static_assert(std::is_nothrow_move_constructible_v<Engine>);
static_assert(std::is_nothrow_move_constructible_v<Session>);
static_assert(std::is_nothrow_move_assignable_v<Session>);

class CppApiTest : public testing::Test {
 protected:
  flashelm::GenerateOptions Greedy() const {
    flashelm::GenerateOptions options;
    options.max_tokens = model_.num_tokens();
    options.ignore_eos = 1;
    return options;
  }
  void ExpectGolden(const Engine& engine) const {
    Session session(engine);
    EXPECT_EQ(model_.prompt() + session.Generate(model_.prompt(), Greedy()),
              model_.text());
  }

  const SampleModel model_;
};

TEST_F(CppApiTest, EverySourceGivesTheRecordedText) {
  ExpectGolden(Engine::Open(model_.path()));
  const int fd = open(model_.path().c_str(), O_RDONLY | O_CLOEXEC);
  ExpectGolden(Engine::Open(flashelm::Source::Descriptor(fd)));
  close(fd);
  std::ifstream file(model_.path(), std::ios::binary);
  std::stringstream contents;
  contents << file.rdbuf();
  const std::string bytes = contents.str();
  ExpectGolden(Engine::Open(flashelm::Source::Callback(
      bytes.size(), [&bytes](uint64_t offset, void* target, size_t num_bytes) {
        const size_t count =
            std::min<uint64_t>(num_bytes, bytes.size() - offset);
        std::copy_n(bytes.data() + offset, count, static_cast<char*>(target));
        return static_cast<int64_t>(count);
      })));
}

TEST_F(CppApiTest, ACallbackSourceServesAnyNumberOfCalls) {
  std::ifstream file(model_.path(), std::ios::binary);
  std::stringstream contents;
  contents << file.rdbuf();
  const auto bytes = std::make_shared<const std::string>(contents.str());
  {
    const auto source = flashelm::Source::Callback(
        bytes->size(),
        [bytes](uint64_t offset, void* target, size_t num_bytes) {
          const size_t count =
              std::min<uint64_t>(num_bytes, bytes->size() - offset);
          std::copy_n(bytes->data() + offset, count,
                      static_cast<char*>(target));
          return static_cast<int64_t>(count);
        });
    const flashelm::Source unused = source;
    flashelm::EngineOptions options;
    options.memory_bytes = Engine::Estimate(source).minimum_bytes;
    ExpectGolden(Engine::Open(source, options));
    ExpectGolden(Engine::Open(unused, options));
    EXPECT_GT(bytes.use_count(), 1);
  }
  EXPECT_EQ(bytes.use_count(), 1);
}

TEST_F(CppApiTest, FailuresAreThrownWithTheirCodes) {
  const auto code_of = [](auto call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_STRNE(error.what(), "");
      return error.code();
    }
    return FLASHELM_OK;
  };
  EXPECT_EQ(code_of([] { Engine::Open("/none.felm"); }), FLASHELM_NOT_FOUND);
  EXPECT_EQ(code_of([] {
              Engine::Open(flashelm::Source::Callback(
                  10000, [](uint64_t, void*, size_t) -> int64_t {
                    throw std::runtime_error("gone");
                  }));
            }),
            FLASHELM_UNAVAILABLE);
  const Engine engine = Engine::Open(model_.path());
  Session session(engine);
  EXPECT_EQ(code_of([&] { Session another(engine); }),
            FLASHELM_RESOURCE_EXHAUSTED);
  EXPECT_EQ(code_of([&] { session.Truncate(1); }), FLASHELM_INVALID_ARGUMENT);
  EXPECT_EQ(code_of([&] { session.Prefill({}); }), FLASHELM_INVALID_ARGUMENT);
  flashelm::EngineOptions little;
  little.memory_bytes = 4096;
  EXPECT_EQ(code_of([&] { Engine::Open(model_.path(), little); }),
            FLASHELM_BUDGET_INFEASIBLE);
  const auto source = flashelm::Source::Path(model_.path().c_str());
  const flashelm_plan plan = Engine::Estimate(source, little);
  EXPECT_GT(plan.minimum_bytes, 4096u);
  little.memory_bytes = plan.minimum_bytes;
  EXPECT_LE(Engine::Open(source, little).plan().total_bytes,
            plan.minimum_bytes);
}

TEST_F(CppApiTest, WhatACallbackThrowsComesOut) {
  const Engine engine = Engine::Open(model_.path());
  Session session(engine);
  int num_calls = 0;
  EXPECT_THROW(session.Generate(model_.prompt(), Greedy(),
                                [&](std::string_view) -> bool {
                                  ++num_calls;
                                  throw std::out_of_range("enough");
                                }),
               std::out_of_range);
  EXPECT_EQ(num_calls, 1);
  const flashelm_generate_result result =
      session.Generate("", Greedy(), [](std::string_view) { return false; });
  EXPECT_EQ(result.stop_reason, uint32_t{FLASHELM_STOP_CALLBACK});
}

TEST_F(CppApiTest, ASessionOutlivesItsEnginesOwner) {
  const auto start = [&] {
    Engine engine = Engine::Open(model_.path());
    const Engine moved = std::move(engine);
    EXPECT_EQ(engine.handle(), nullptr);
    return Session(moved);
  };
  Session session = start();
  EXPECT_EQ(model_.prompt() + session.Generate(model_.prompt(), Greedy()),
            model_.text());
  session = start();
  EXPECT_EQ(session.position(), 0u);
}

TEST_F(CppApiTest, StepByStepItIsTheSame) {
  const Engine engine = Engine::Open(model_.path());
  Session session(engine);
  std::vector<uint32_t> ids = engine.Tokenize(model_.prompt(), true);
  session.Prefill(ids);
  std::vector<float> logits(engine.info().vocab_size);
  for (size_t i = 0; i < model_.num_tokens(); ++i) {
    session.Logits(logits);
    ids.push_back(static_cast<uint32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
    session.Decode(ids.back());
  }
  EXPECT_EQ(engine.Detokenize(ids), model_.text());
  EXPECT_EQ(session.position(), ids.size());
  EXPECT_EQ(session.stats().num_tokens, ids.size());
  EXPECT_TRUE(engine.Tokenize("", false).empty());
  EXPECT_EQ(engine.Detokenize({}), "");
}

TEST_F(CppApiTest, CancelComesFromAnotherThread) {
  const Engine engine = Engine::Open(model_.path());
  Session session(engine);
  std::thread other;
  const auto cancel = [&](std::string_view) {
    if (!other.joinable()) other = std::thread([&] { session.Cancel(); });
    return true;
  };
  flashelm::GenerateOptions options = Greedy();
  options.max_tokens = 0;
  EXPECT_THROW(
      while (true) {
        session.Generate(model_.prompt(), options, cancel);
        session.Truncate(0);
      },
      Error);
  other.join();
  session.ClearCancel();
  session.Truncate(0);
  EXPECT_EQ(model_.prompt() + session.Generate(model_.prompt(), Greedy()),
            model_.text());
}

}  // namespace
