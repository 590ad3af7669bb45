// Budgets that change, memory that is given back, and pauses.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include "core/base/process_memory.h"
#include "tests/c_api/fixture.h"
#include "tests/core/golden.h"
#include "tests/core/predicted_model.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

constexpr size_t kTokens = 24;

// Sanitizers and emulators keep memory of their own.
#ifdef FLASHELM_FOREIGN_MEMORY
constexpr bool kMeasuresMemory = false;
#else
constexpr bool kMeasuresMemory = true;
#endif
// Besides a budget: what allocators keep of what was freed, of this test too.
constexpr uint64_t kSlack = uint64_t{1} << 20;

uint64_t AnonymousBytes() {
  const auto memory = ReadProcessMemory();
  EXPECT_TRUE(memory && memory->anonymous_bytes);
  return memory ? memory->anonymous_bytes.value_or(0) : 0;
}

// From here on the peak of resident bytes is that of now.
bool ResetPeak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

class CApiBudgetThreadsTest : public testing::Test {
 protected:
  CApiBudgetThreadsTest()
      : golden_(ReadGolden("tiny-stories")),
        model_(SampleModelDirectory("tiny-stories"), Encoding::kBf16),
        source_(PathSource(model_.path())),
        floor_(LeastMemory(source_, MakeOptions(0, kSessions))) {}

  const std::string& prompt() const { return golden_.prompts[0].text; }
  std::vector<uint32_t> Expected(size_t num_tokens) const {
    const auto& ids = golden_.prompts[0].greedy_ids;
    return {ids.begin(), ids.begin() + static_cast<ptrdiff_t>(num_tokens)};
  }
  static flashelm_plan PlanOf(const flashelm_engine* engine) {
    auto plan = Sized<flashelm_plan>();
    EXPECT_EQ(flashelm_engine_get_plan(engine, &plan, nullptr), FLASHELM_OK);
    return plan;
  }
  static void SetBudget(flashelm_engine* engine, uint64_t bytes) {
    flashelm_error error;
    EXPECT_EQ(flashelm_set_budget(engine, bytes, &error), FLASHELM_OK)
        << error.message;
  }

  static constexpr uint32_t kSessions = 2;
  const Golden golden_;
  const ConvertedModel model_;
  const flashelm_source source_;
  const uint64_t floor_;
};

TEST_F(CApiBudgetThreadsTest, TheTextStaysWhateverTheBudgetBecomes) {
  const auto resident_bytes = [] {
    const auto memory = ReadProcessMemory();
    EXPECT_TRUE(memory);
    return memory ? memory->resident_bytes : UINT64_MAX;
  };
  // From here on it is the engine that takes more: code that runs below is
  // resident already.
  {
    const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
    const auto generate = [&] {
      const UniqueSession session = OpenSession(engine.get());
      EXPECT_EQ(Generate(session.get(), prompt(), Greedy(2)).ids, Expected(2));
    };
    std::thread other(generate);
    generate();
    other.join();
    SetBudget(engine.get(), floor_);
    generate();
    SetBudget(engine.get(), 0);
  }
  const uint64_t before = resident_bytes();
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  std::atomic<bool> is_over = false;
  std::atomic<int> num_texts = 0;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kSessions; ++i) {
    threads.emplace_back([&] {
      const UniqueSession session = OpenSession(engine.get());
      while (!is_over || num_texts < 2) {
        EXPECT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
        const Generated generated =
            Generate(session.get(), prompt(), Greedy(kTokens));
        EXPECT_EQ(generated.code, FLASHELM_OK) << generated.message;
        EXPECT_EQ(generated.ids, Expected(kTokens));
        ++num_texts;
      }
    });
  }
  const uint64_t whole = PlanOf(engine.get()).total_bytes;
  std::mt19937 random(5);
  std::uniform_int_distribution<uint64_t> some(floor_, whole);
  const auto wait = [&] {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
  };
  // Takes what a smaller budget allows at once, and no more while tokens go on.
  const auto expect_within = [&](uint64_t budget) {
    SetBudget(engine.get(), budget);
    const uint64_t most = before + PlanOf(engine.get()).total_bytes + kSlack;
    EXPECT_LE(PlanOf(engine.get()).total_bytes, budget);
    if (!kMeasuresMemory) return wait();
    EXPECT_LT(resident_bytes(), most);
    EXPECT_TRUE(ResetPeak());
    wait();
    const auto memory = ReadProcessMemory();
    EXPECT_TRUE(memory && memory->peak_resident_bytes < most);
  };
  for (int i = 0; i < 100; ++i) {
    if (i % 3 == 0) expect_within(some(random));
    expect_within(floor_);
    EXPECT_EQ(PlanOf(engine.get()).total_bytes, floor_);
    SetBudget(engine.get(), 0);
    EXPECT_EQ(PlanOf(engine.get()).total_bytes, whole);
    wait();
  }
  is_over = true;
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CApiBudgetThreadsTest, TooSmallABudgetChangesNothing) {
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  const uint64_t whole = PlanOf(engine.get()).total_bytes;
  flashelm_error error;
  EXPECT_EQ(flashelm_set_budget(engine.get(), floor_ - 1, &error),
            FLASHELM_BUDGET_INFEASIBLE);
  EXPECT_NE(std::string(error.message).find(std::to_string(floor_)),
            std::string::npos)
      << error.message;
  EXPECT_EQ(PlanOf(engine.get()).total_bytes, whole);
  EXPECT_EQ(Generate(session.get(), prompt(), Greedy(4)).ids, Expected(4));
}

TEST_F(CApiBudgetThreadsTest, LogitsOutliveTheBudgetThatTheyWereMadeIn) {
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  const std::vector<uint32_t>& ids = golden_.prompts[0].ids;
  ASSERT_EQ(flashelm_prefill(session.get(), ids.data(), ids.size(), nullptr,
                             nullptr, nullptr),
            FLASHELM_OK);
  auto info = Sized<flashelm_model_info>();
  ASSERT_EQ(flashelm_engine_get_info(engine.get(), &info, nullptr),
            FLASHELM_OK);
  std::vector<float> before(info.vocab_size);
  std::vector<float> after(info.vocab_size);
  ASSERT_EQ(
      flashelm_logits(session.get(), before.data(), before.size(), nullptr),
      FLASHELM_OK);
  for (const uint64_t budget : {floor_, uint64_t{0}}) {
    SetBudget(engine.get(), budget);
    ASSERT_EQ(
        flashelm_logits(session.get(), after.data(), after.size(), nullptr),
        FLASHELM_OK);
    EXPECT_EQ(before, after);
  }
}

// From inside a callback, where the session's own call goes on afterwards.
TEST_F(CApiBudgetThreadsTest, ACallbackMayChangeTheBudget) {
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  struct User {
    flashelm_engine* engine;
    uint64_t floor;
    std::vector<uint32_t> ids;
  } user{engine.get(), floor_, {}};
  auto options = Greedy(kTokens);
  options.token_user = &user;
  options.token = [](void* at, uint32_t id, const char*, size_t) {
    auto& to = *static_cast<User*>(at);
    if (id == FLASHELM_NO_TOKEN) return 0;
    to.ids.push_back(id);
    const size_t count = to.ids.size();
    if (count % 4 == 1) {
      SetBudget(to.engine, to.floor);
    } else if (count % 4 == 2) {
      EXPECT_EQ(flashelm_trim(to.engine, nullptr), FLASHELM_OK);
    } else if (count % 4 == 3) {
      SetBudget(to.engine, 0);
    }
    return 0;
  };
  flashelm_error error;
  EXPECT_EQ(flashelm_generate(session.get(), prompt().data(), prompt().size(),
                              &options, nullptr, &error),
            FLASHELM_OK)
      << error.message;
  EXPECT_EQ(user.ids, Expected(kTokens));
}

// What comes back is read when it is needed, and a read may fail.
TEST_F(CApiBudgetThreadsTest, AFailedReadOfWhatWasDroppedIsRepeated) {
  CallbackReader reader(model_.path());
  const UniqueEngine engine =
      OpenEngine(reader.source(), MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  int num_failed = 0;
  for (int64_t n = 0; n < 12; ++n) {
    SCOPED_TRACE(n);
    ASSERT_EQ(flashelm_trim(engine.get(), nullptr), FLASHELM_OK);
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    reader.FailAt(reader.num_calls() + n);
    const Generated failed = Generate(session.get(), prompt(), Greedy(3));
    reader.FailAt(-1);
    if (failed.code == FLASHELM_OK) {
      EXPECT_EQ(failed.ids, Expected(3));
      continue;
    }
    ++num_failed;
    EXPECT_EQ(failed.code, FLASHELM_UNAVAILABLE) << failed.message;
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    const Generated again = Generate(session.get(), prompt(), Greedy(3));
    EXPECT_EQ(again.code, FLASHELM_OK) << again.message;
    EXPECT_EQ(again.ids, Expected(3));
  }
  EXPECT_GT(num_failed, 3);
}

// A device that hangs while what was dropped is read: budgets change, sessions
// come and go, and when it answers after all, nothing is harmed by it.
TEST_F(CApiBudgetThreadsTest, ADeviceThatHangsStopsNoChange) {
  CallbackReader reader(model_.path());
  flashelm_engine_options options = MakeOptions(0, kSessions);
  options.read_timeout_ms = 200;
  UniqueEngine engine = OpenEngine(reader.source(), options);
  UniqueSession session = OpenSession(engine.get());
  ASSERT_EQ(flashelm_trim(engine.get(), nullptr), FLASHELM_OK);
  reader.Close();
  EXPECT_EQ(Generate(session.get(), prompt(), Greedy(2)).code,
            FLASHELM_UNAVAILABLE);
  for (const uint64_t budget : {floor_, uint64_t{0}, floor_ + (1 << 20)}) {
    SetBudget(engine.get(), budget);
    // There is as much room for sessions as was planned.
    const UniqueSession other = OpenSession(engine.get());
    EXPECT_EQ(Generate(other.get(), prompt(), Greedy(1)).code,
              FLASHELM_UNAVAILABLE);
    EXPECT_GT(UnansweredBytes(*other), 0u) << "of buffers left behind";
  }
  reader.Open();
  const Generated generated = Generate(session.get(), prompt(), Greedy(4));
  EXPECT_EQ(generated.ids, Expected(4)) << generated.message;
  // Which go as soon as their reads are answered.
  while (UnansweredBytes(*session) > 0) {
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    ASSERT_EQ(Generate(session.get(), prompt(), Greedy(1)).code, FLASHELM_OK);
  }
  // Threads that were left behind in a read may end later.
  session.reset();
  engine.reset();
  while (reader.num_released() == 0) std::this_thread::yield();
}

TEST_F(CApiBudgetThreadsTest, APausedEngineIsClosedWhenNobodyWaits) {
  flashelm_engine* const engine =
      OpenEngine(source_, MakeOptions(0, kSessions)).release();
  const UniqueSession session = OpenSession(engine);
  ASSERT_EQ(flashelm_pause(engine, nullptr), FLASHELM_OK);
  Generated generated;
  std::atomic<bool> has_begun = false;
  std::thread caller([&] {
    has_begun = true;
    generated = Generate(session.get(), prompt(), Greedy(1));
  });
  // Whether it waits already or not: cancelled, it ends.
  while (!has_begun) std::this_thread::yield();
  flashelm_cancel(session.get());
  caller.join();
  EXPECT_EQ(generated.code, FLASHELM_CANCELLED);
  EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
}

TEST_F(CApiBudgetThreadsTest, APausedEngineWaits) {
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  flashelm_error error;
  for (int i = 0; i < 2; ++i) {  // The second does nothing more.
    EXPECT_EQ(flashelm_pause(engine.get(), &error), FLASHELM_OK);
  }
  Generated generated;
  std::thread caller(
      [&] { generated = Generate(session.get(), prompt(), Greedy(4)); });
  // It can be changed meanwhile.
  SetBudget(engine.get(), floor_);
  EXPECT_EQ(flashelm_trim(engine.get(), &error), FLASHELM_OK) << error.message;
  auto stats = Sized<flashelm_stats>();
  EXPECT_EQ(flashelm_session_get_stats(session.get(), &stats, nullptr),
            FLASHELM_OK);
  EXPECT_EQ(stats.num_tokens, 0u);
  // A wait for the end of a pause ends as others do.
  flashelm_cancel(session.get());
  caller.join();
  EXPECT_EQ(generated.code, FLASHELM_CANCELLED);
  flashelm_clear_cancel(session.get());
  std::thread again(
      [&] { generated = Generate(session.get(), prompt(), Greedy(4)); });
  EXPECT_EQ(flashelm_resume(engine.get(), &error), FLASHELM_OK);
  EXPECT_EQ(flashelm_resume(engine.get(), &error), FLASHELM_OK);
  again.join();
  EXPECT_EQ(generated.ids, Expected(4)) << generated.message;
}

TEST_F(CApiBudgetThreadsTest, ItsErrorsAreThoseOfAnyFunction) {
  flashelm_error error;
  EXPECT_EQ(flashelm_set_budget(nullptr, 0, &error), FLASHELM_INVALID_ARGUMENT);
  EXPECT_EQ(flashelm_trim(nullptr, &error), FLASHELM_INVALID_ARGUMENT);
  EXPECT_EQ(flashelm_pause(nullptr, &error), FLASHELM_INVALID_ARGUMENT);
  EXPECT_EQ(flashelm_resume(nullptr, &error), FLASHELM_INVALID_ARGUMENT);
}

TEST_F(CApiBudgetThreadsTest, MemoryGoesBackAtOnce) {
  if (!kMeasuresMemory)
    GTEST_SKIP() << "a sanitizer or an emulator keeps memory";
  const uint64_t before = AnonymousBytes();
  const auto taken = [&] { return AnonymousBytes() - before; };
  const UniqueEngine engine = OpenEngine(source_, MakeOptions(0, kSessions));
  const UniqueSession session = OpenSession(engine.get());
  const uint64_t whole = PlanOf(engine.get()).resident_bytes;
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    EXPECT_EQ(Generate(session.get(), prompt(), Greedy(4)).ids, Expected(4));
    EXPECT_GT(taken(), whole);
    SetBudget(engine.get(), floor_);
    EXPECT_LT(taken(), floor_ + kSlack);
    ASSERT_TRUE(ResetPeak());
    const uint64_t now = ReadProcessMemory()->resident_bytes - taken();
    EXPECT_EQ(Generate(session.get(), "", Greedy(4)).code, FLASHELM_OK);
    // Two rings exist side by side then, but only one of them in RAM.
    ASSERT_EQ(flashelm_trim(engine.get(), nullptr), FLASHELM_OK);
    EXPECT_LT(ReadProcessMemory()->peak_resident_bytes, now + floor_ + kSlack);
    SetBudget(engine.get(), 0);
    EXPECT_EQ(Generate(session.get(), "", Greedy(1)).code, FLASHELM_OK);
    EXPECT_GT(taken(), whole);
    ASSERT_EQ(flashelm_trim(engine.get(), nullptr), FLASHELM_OK);
    EXPECT_LT(taken(), floor_ + kSlack);
  }
}

// With sparsity, neurons have a cache, which goes and comes, too.
TEST(CApiBudgetSparsityTest, SparseLogitsStayWhateverTheBudgetBecomes) {
  PredictedModelOptions model_options;
  model_options.split_gate = true;
  const PredictedModel model(model_options);
  const flashelm_source source = PathSource(model.path());
  const std::vector<uint32_t> ids = SomeTokens(12, 256);
  for (const uint32_t sparsity :
       {FLASHELM_SPARSITY_GATE, FLASHELM_SPARSITY_LOW_BIT}) {
    SCOPED_TRACE(sparsity);
    flashelm_engine_options options = MakeOptions();
    options.sparsity = sparsity;
    options.kept_fraction = 0.3;
    const uint64_t floor = LeastMemory(source, options);
    const UniqueEngine engine = OpenEngine(source, options);
    const UniqueSession session = OpenSession(engine.get());
    auto info = Sized<flashelm_model_info>();
    ASSERT_EQ(flashelm_engine_get_info(engine.get(), &info, nullptr),
              FLASHELM_OK);
    std::vector<float> expected;
    uint64_t flash_bytes = 0;
    for (int round = 0; round < 4; ++round) {
      ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
      std::vector<float> all;
      for (size_t i = 0; i < ids.size(); ++i) {
        flashelm_error error;
        ASSERT_EQ(flashelm_decode(session.get(), ids[i], &error), FLASHELM_OK)
            << error.message;
        std::vector<float> logits(info.vocab_size);
        ASSERT_EQ(flashelm_logits(session.get(), logits.data(), logits.size(),
                                  nullptr),
                  FLASHELM_OK);
        all.insert(all.end(), logits.begin(), logits.end());
        auto stats = Sized<flashelm_stats>();
        ASSERT_EQ(flashelm_session_get_stats(session.get(), &stats, nullptr),
                  FLASHELM_OK);
        EXPECT_GE(stats.flash_bytes, flash_bytes) << "it only grows";
        flash_bytes = stats.flash_bytes;
        if (round == 0) continue;
        if (i % 4 == 0) {
          ASSERT_EQ(flashelm_set_budget(engine.get(), floor, &error),
                    FLASHELM_OK)
              << error.message;
        } else if (i % 4 == 2) {
          ASSERT_EQ(flashelm_set_budget(engine.get(), 0, &error), FLASHELM_OK)
              << error.message;
        }
      }
      if (round == 0) expected = all;
      EXPECT_EQ(all, expected);
    }
  }
}

// Reads of predictors and calibration fail one after the other while the budget
// changes, with a cache and its readers half made.
TEST(CApiBudgetSparsityTest, AChangeThatFailsHalfwayChangesNothing) {
  PredictedModelOptions model_options;
  model_options.split_gate = true;
  const PredictedModel model(model_options);
  CallbackReader reader(model.path());
  flashelm_engine_options options = MakeOptions();
  options.sparsity = FLASHELM_SPARSITY_LOW_BIT;
  options.kept_fraction = 0.3;
  const uint64_t floor = LeastMemory(PathSource(model.path()), options);
  const UniqueEngine engine = OpenEngine(reader.source(), options);
  const UniqueSession session = OpenSession(engine.get());
  auto info = Sized<flashelm_model_info>();
  ASSERT_EQ(flashelm_engine_get_info(engine.get(), &info, nullptr),
            FLASHELM_OK);
  const std::vector<uint32_t> ids = SomeTokens(5, 256);
  const auto logits = [&] {
    std::vector<float> values(info.vocab_size);
    flashelm_error error;
    EXPECT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    for (const uint32_t id : ids) {
      EXPECT_EQ(flashelm_decode(session.get(), id, &error), FLASHELM_OK)
          << error.message;
    }
    EXPECT_EQ(
        flashelm_logits(session.get(), values.data(), values.size(), nullptr),
        FLASHELM_OK);
    return values;
  };
  const auto planned = [&] {
    auto plan = Sized<flashelm_plan>();
    EXPECT_EQ(flashelm_engine_get_plan(engine.get(), &plan, nullptr),
              FLASHELM_OK);
    return plan.total_bytes;
  };
  const std::vector<float> expected = logits();
  const uint64_t whole = planned();
  ASSERT_LT(floor, whole);
  flashelm_code code = FLASHELM_UNAVAILABLE;
  int num_failed = 0;
  int num_dropped = 0;
  for (int64_t n = 0; code != FLASHELM_OK && n < 64; ++n) {
    SCOPED_TRACE(n);
    flashelm_error error;
    reader.FailAt(reader.num_calls() + n);
    code = flashelm_set_budget(engine.get(), floor, &error);
    reader.FailAt(-1);
    const int64_t num_calls = reader.num_calls();
    if (code != FLASHELM_OK) {
      ++num_failed;
      ASSERT_EQ(code, FLASHELM_UNAVAILABLE) << error.message;
      EXPECT_EQ(planned(), whole);
    }
    EXPECT_EQ(logits(), expected);
    // What was in RAM is read again: the change had begun.
    if (code != FLASHELM_OK && reader.num_calls() > num_calls) ++num_dropped;
  }
  ASSERT_EQ(code, FLASHELM_OK);
  EXPECT_EQ(planned(), floor);
  EXPECT_GT(num_dropped, 0);
  EXPECT_GT(num_failed, num_dropped) << "planning reads, too";
}

}  // namespace
}  // namespace flashelm::test
