// Several threads, cancelling, failing reads, and what is left after closing.

#include <random>
#include <thread>

#include "tests/c_api/cycles.h"
#include "tests/c_api/fixture.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

// Of the recorded texts, as much as a test computes.
constexpr size_t kThreadTokens = 8;

std::vector<uint32_t> FirstIds(const GoldenPrompt& prompt) {
  return {prompt.greedy_ids.begin(), prompt.greedy_ids.begin() + kThreadTokens};
}

class CApiThreadsTest : public testing::Test {
 protected:
  CApiThreadsTest()
      : golden_(ReadGolden("tiny-stories")),
        model_(SampleModelDirectory("tiny-stories"), Encoding::kBf16) {}

  // Nearly everything is read for each token.
  static flashelm_engine_options AtFloor(const flashelm_source& source,
                                         uint32_t max_sessions = 1) {
    flashelm_engine_options options = MakeOptions(0, max_sessions);
    options.memory_bytes = LeastMemory(source, options);
    return options;
  }

  const Golden golden_;
  const ConvertedModel model_;
};

TEST_F(CApiThreadsTest, TwoEnginesAndEightSessionsGiveTheRecordedTexts) {
  const flashelm_source source = PathSource(model_.path());
  const UniqueEngine engines[] = {OpenEngine(source, MakeOptions(0, 4)),
                                  OpenEngine(source, AtFloor(source, 4))};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const UniqueSession session = OpenSession(engines[i % 2].get());
      for (size_t round = 0; round < 2; ++round) {
        const GoldenPrompt& prompt =
            golden_.prompts[(i + round) % golden_.prompts.size()];
        EXPECT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
        const Generated generated =
            Generate(session.get(), prompt.text, Greedy(kThreadTokens));
        EXPECT_EQ(generated.code, FLASHELM_OK) << generated.message;
        EXPECT_EQ(generated.ids, FirstIds(prompt));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CApiThreadsTest, CancelEndsACallThatWaitsForTheDevice) {
  CallbackReader reader(model_.path());
  const flashelm_source source = reader.source();
  flashelm_engine_options options = AtFloor(source);
  options.read_timeout_ms = 3600 * 1000;
  const UniqueEngine engine = OpenEngine(source, options);
  const UniqueSession session = OpenSession(engine.get());
  const GoldenPrompt& prompt = golden_.prompts[0];
  // While the prompt is read, and while tokens are decoded.
  for (const bool decodes : {false, true}) {
    SCOPED_TRACE(decodes);
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    std::string text = prompt.text;
    std::vector<uint32_t> ids;
    if (decodes) {
      ids = Generate(session.get(), text, Greedy(3)).ids;
      text.clear();
    }
    reader.Close();
    Generated cancelled;
    std::thread caller([&] {
      cancelled = Generate(session.get(), text, Greedy(kThreadTokens));
    });
    reader.AwaitWaiting();
    flashelm_cancel(session.get());
    caller.join();
    EXPECT_TRUE(reader.is_any_waiting()) << "no read has ended";
    // Of reads ahead, a call may be cancelled before it waits for any.
    if (!decodes) {
      EXPECT_GT(UnansweredBytes(*session), 0u);
    }
    EXPECT_EQ(cancelled.code, FLASHELM_CANCELLED) << cancelled.message;
    EXPECT_EQ(cancelled.result.stop_reason, 0u);
    reader.Open();
    flashelm_clear_cancel(session.get());
    ids.insert(ids.end(), cancelled.ids.begin(), cancelled.ids.end());
    const Generated rest =
        Generate(session.get(), text, Greedy(kThreadTokens - ids.size()));
    EXPECT_EQ(rest.code, FLASHELM_OK) << rest.message;
    ids.insert(ids.end(), rest.ids.begin(), rest.ids.end());
    EXPECT_EQ(ids, FirstIds(prompt));
    // All are answered by and by, and that is seen by who computes.
    while (UnansweredBytes(*session) > 0) {
      ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
      ASSERT_EQ(Generate(session.get(), prompt.text, Greedy(1)).code,
                FLASHELM_OK);
    }
  }
}

TEST_F(CApiThreadsTest, WhatAClosedEngineLeavesGoesOnceTheDeviceAnswers) {
  CallbackReader reader(model_.path());
  const flashelm_source source = reader.source();
  flashelm_engine_options options = AtFloor(source);
  options.read_timeout_ms = 100;
  const uint64_t floor = LeastMemory(source, options);
  const int num_released = reader.num_released();
  UniqueEngine engine = OpenEngine(source, options);
  const UniqueSession session = OpenSession(engine.get());
  EXPECT_EQ(UnansweredBytes(*session), 0u);
  reader.Close();
  EXPECT_EQ(Generate(session.get(), golden_.prompts[0].text, Greedy(1)).code,
            FLASHELM_UNAVAILABLE);
  const uint64_t num_slot_bytes = UnansweredBytes(*session);
  EXPECT_GT(num_slot_bytes, 0u);
  engine.reset();
  // The whole ring, and its slots only once.
  EXPECT_GE(UnansweredBytes(*session), num_slot_bytes);
  EXPECT_LT(UnansweredBytes(*session), floor);
  EXPECT_EQ(reader.num_released(), num_released);
  reader.Open();
  while (UnansweredBytes(*session) > 0 ||
         reader.num_released() == num_released) {
    std::this_thread::yield();
  }
}

TEST_F(CApiThreadsTest, CancelEndsACallThatWaitsForItsTurn) {
  CallbackReader reader(model_.path());
  const flashelm_source source = reader.source();
  const UniqueEngine engine = OpenEngine(source, AtFloor(source, 2));
  const UniqueSession first = OpenSession(engine.get());
  const UniqueSession second = OpenSession(engine.get());
  reader.Close();
  Generated generated;
  std::thread holder([&] {
    generated =
        Generate(first.get(), golden_.prompts[0].text, Greedy(kThreadTokens));
  });
  reader.AwaitWaiting();
  Generated cancelled;
  std::thread waiter(
      [&] { cancelled = Generate(second.get(), "Once", Greedy(1)); });
  flashelm_cancel(second.get());
  waiter.join();
  EXPECT_EQ(cancelled.code, FLASHELM_CANCELLED);
  reader.Open();
  holder.join();
  EXPECT_EQ(generated.ids, FirstIds(golden_.prompts[0]));
}

TEST_F(CApiThreadsTest, CancelledAtAnyMomentATextGoesOnAsItWould) {
  const flashelm_source source = PathSource(model_.path());
  const UniqueEngine engine = OpenEngine(source, AtFloor(source));
  const UniqueSession session = OpenSession(engine.get());
  const GoldenPrompt& prompt = golden_.prompts[1];
  std::mt19937 random(5);
  int num_cancelled = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    std::vector<uint32_t> ids;
    // Later and later, so that even the slowest machine gets on.
    for (uint32_t most_us = 2000; ids.size() < kThreadTokens;
         most_us += most_us / 4) {
      std::thread canceller([&session, pause = random() % most_us] {
        std::this_thread::sleep_for(std::chrono::microseconds(pause));
        flashelm_cancel(session.get());
      });
      uint32_t position = 0;
      EXPECT_EQ(flashelm_position(session.get(), &position, nullptr),
                FLASHELM_OK);
      const Generated generated =
          Generate(session.get(), position == 0 ? prompt.text : "",
                   Greedy(kThreadTokens - ids.size()));
      canceller.join();
      flashelm_clear_cancel(session.get());
      ids.insert(ids.end(), generated.ids.begin(), generated.ids.end());
      if (generated.code == FLASHELM_CANCELLED) {
        ++num_cancelled;
      } else {
        ASSERT_EQ(generated.code, FLASHELM_OK) << generated.message;
      }
    }
    EXPECT_EQ(ids, FirstIds(prompt));
  }
  EXPECT_GT(num_cancelled, 0);
}

TEST_F(CApiThreadsTest, AThreadThatEndsLeavesNoReadBehind) {
  // Reads run ahead of a call; the next call is another thread's.
  const flashelm_source source = PathSource(model_.path());
  const UniqueEngine engine = OpenEngine(source, AtFloor(source));
  const UniqueSession session = OpenSession(engine.get());
  std::vector<uint32_t> ids;
  for (size_t i = 0; i < kThreadTokens; ++i) {
    std::thread([&] {
      const Generated generated = Generate(
          session.get(), i == 0 ? golden_.prompts[0].text : "", Greedy(1));
      ASSERT_EQ(generated.code, FLASHELM_OK) << generated.message;
      ids.push_back(generated.ids.at(0));
    }).join();
  }
  EXPECT_EQ(ids, FirstIds(golden_.prompts[0]));
}

// Every read fails once, and what comes after works.
TEST(CApiFailingReadTest, EachReadThatFailsIsReportedAndTheNextCallWorks) {
  const ConvertedModel model(CheckpointOptions{}, Encoding::kBf16);
  const std::vector<uint32_t> prompt = SomeTokens(5, 2048);
  const auto run = [&](flashelm_session* session, flashelm_error* error) {
    auto options = Greedy(2);
    EXPECT_EQ(flashelm_truncate(session, 0, nullptr), FLASHELM_OK);
    flashelm_code code = flashelm_prefill(session, prompt.data(), prompt.size(),
                                          nullptr, nullptr, error);
    Generated generated;
    if (code == FLASHELM_OK) {
      generated = Generate(session, "", options);
      error->code = code = generated.code;
    }
    return std::pair(code, generated.ids);
  };
  std::vector<uint32_t> expected;
  int64_t num_calls = 1;
  int64_t num_failed_opens = 0;
  int64_t num_failed_runs = 0;
  // The last round has no read left to fail.
  for (int64_t n = -1; n < num_calls; ++n) {
    SCOPED_TRACE(n);
    CallbackReader reader(model.path());
    const flashelm_source source = reader.source();
    flashelm_engine_options options = MakeOptions();
    options.memory_bytes = LeastMemory(source, options);
    const int64_t num_estimate_calls = reader.num_calls();
    if (n >= 0) reader.FailAt(num_estimate_calls + n);
    flashelm_error error;
    UniqueEngine engine(flashelm_engine_open_source(&source, &options, &error));
    if (engine == nullptr) {
      ++num_failed_opens;
      EXPECT_EQ(error.code, FLASHELM_UNAVAILABLE) << error.message;
      EXPECT_EQ(reader.num_released(), 2);
      engine = OpenEngine(source, options);
      ASSERT_NE(engine, nullptr);
    }
    const UniqueSession session = OpenSession(engine.get());
    auto [code, ids] = run(session.get(), &error);
    if (code != FLASHELM_OK) {
      ++num_failed_runs;
      EXPECT_EQ(code, FLASHELM_UNAVAILABLE) << error.message;
      ids = run(session.get(), &error).second;
    }
    if (n < 0) {
      expected = ids;
      num_calls = reader.num_calls() - num_estimate_calls;
    }
    ASSERT_EQ(ids.size(), 2u);
    EXPECT_EQ(ids, expected);
  }
  EXPECT_GT(num_failed_opens, 5);
  EXPECT_GT(num_failed_runs, 5);
}

TEST(CApiCyclesTest, FiftyCyclesLeaveNothing) { ExpectNothingIsLeftAfter(50); }

}  // namespace
}  // namespace flashelm::test
