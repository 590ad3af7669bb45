#include "core/session.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/process_memory.h"
#include "core/sampler.h"
#include "storage/pread_reader.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/test_model.h"
#include "tests/storage/faulty_reader.h"

namespace flashelm::test {
namespace {

const CancelToken kNever;

class SessionTest : public testing::Test {
 protected:
  SessionTest() : model_(CheckpointOptions{}, Encoding::kF32) {}

  // At the floor, where nearly everything is streamed.
  Running StartAtFloor(EngineOptions options = {}) {
    options.plan.num_threads = 2;
    options.plan.budget_bytes = SmallestBudget(model_.path(), options);
    return Start(model_.path(), options);
  }

  std::vector<float> LastLogits(Session& session,
                                std::span<const TokenId> tokens) {
    const auto last = static_cast<uint32_t>(tokens.size() - 1);
    const Status status = session.Run(tokens, {&last, 1}, kNever);
    EXPECT_TRUE(status.ok()) << status.message();
    const auto logits = session.logits(0);
    return {logits.begin(), logits.end()};
  }

  const ConvertedModel model_;
  const std::vector<TokenId> tokens_ = SomeTokens(40, 2048);
};

TEST_F(SessionTest, TruncatedAndOverwrittenGivesWhatAFreshSessionGives) {
  Running running = StartAtFloor();
  LastLogits(*running.session, tokens_);
  ASSERT_TRUE(running.session->Truncate(17).ok());
  std::vector<TokenId> other(tokens_.begin() + 17, tokens_.end());
  other[3] ^= 1;
  const auto overwritten = LastLogits(*running.session, other);

  ASSERT_TRUE(running.session->Truncate(0).ok());
  std::vector<TokenId> whole(tokens_.begin(), tokens_.begin() + 17);
  whole.insert(whole.end(), other.begin(), other.end());
  EXPECT_EQ(LastLogits(*running.session, whole), overwritten);
}

TEST_F(SessionTest, RefusesWhatCannotBeComputedAndStaysUsable) {
  Running running = StartAtFloor();
  Session& session = *running.session;
  const auto expected = LastLogits(session, tokens_);
  const uint32_t position = session.position();

  const std::vector<TokenId> many(session.context() - position + 1, 5);
  EXPECT_EQ(session.Run(many, {}, kNever).code(), StatusCode::kInvalidArgument);
  const std::vector<TokenId> unknown = {5, 2048};
  EXPECT_EQ(session.Run(unknown, {}, kNever).code(),
            StatusCode::kInvalidArgument);
  const std::vector<uint32_t> beyond = {2};
  const std::vector<TokenId> two = {5, 6};
  EXPECT_EQ(session.Run(two, beyond, kNever).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(session.Truncate(position + 1).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(session.position(), position);

  ASSERT_TRUE(session.Truncate(0).ok());
  EXPECT_EQ(LastLogits(session, tokens_), expected);
}

TEST_F(SessionTest, FillsTheContextToItsLastPosition) {
  Running running = StartAtFloor();
  const std::vector<TokenId> all(running.session->context(), 9);
  LastLogits(*running.session, all);
  EXPECT_EQ(running.session->position(), running.session->context());
  const TokenId one = 9;
  EXPECT_EQ(running.session->Run({&one, 1}, {}, kNever).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(SessionTest, AnEngineHasRoomForOneSession) {
  Running running = StartAtFloor();
  auto second = Session::Create(*running.engine);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), StatusCode::kResourceExhausted);
  running.session.reset();
  EXPECT_TRUE(Session::Create(*running.engine));
}

TEST_F(SessionTest, SessionsOfOneEngineTakeTurns) {
  EngineOptions options;
  options.plan.num_threads = 2;
  options.plan.max_sessions = 3;
  options.plan.budget_bytes = SmallestBudget(model_.path(), options);
  Running running = Start(model_.path(), options);
  const auto expected = LastLogits(*running.session, tokens_);
  auto second = Session::Create(*running.engine);
  ASSERT_TRUE(second) << second.error().message();
  auto third = Session::Create(*running.engine);
  ASSERT_TRUE(third) << third.error().message();
  EXPECT_FALSE(Session::Create(*running.engine)) << "planned were three";
  EXPECT_LE(running.engine->budget().used_bytes(),
            running.engine->plan().total_bytes);
  std::vector<float> logits;
  for (const TokenId token : tokens_) {
    LastLogits(**third, {&token, 1});
    logits = LastLogits(**second, {&token, 1});
  }
  EXPECT_EQ(logits, expected);
  EXPECT_EQ(LastLogits(**third, {&tokens_[0], 1}),
            LastLogits(*running.session, {&tokens_[0], 1}));
}

TEST_F(SessionTest, CancelledCallLeavesThePositionAndCanBeRepeated) {
  Running running = StartAtFloor();
  const auto expected = LastLogits(*running.session, tokens_);
  ASSERT_TRUE(running.session->Truncate(0).ok());
  CancelToken cancelled;
  cancelled.Cancel();
  EXPECT_EQ(running.session->Run(tokens_, {}, cancelled).code(),
            StatusCode::kCancelled);
  EXPECT_EQ(running.session->position(), 0u);
  EXPECT_EQ(LastLogits(*running.session, tokens_), expected);
}

TEST_F(SessionTest, CancelEndsACallThatWaitsForTheDevice) {
  // Counts reads that wait, and lets them go on when it is told to.
  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool is_open = true;
    int num_waiting = 0;
  };
  class GatedFile : public RandomAccessFile {
   public:
    GatedFile(std::shared_ptr<const RandomAccessFile> file, Gate& gate)
        : file_(std::move(file)), gate_(gate) {}
    Result<size_t> ReadAt(uint64_t offset,
                          std::span<std::byte> target) const override {
      {
        std::unique_lock lock(gate_.mutex);
        ++gate_.num_waiting;
        gate_.changed.notify_all();
        gate_.changed.wait(lock, [&] { return gate_.is_open; });
        --gate_.num_waiting;
      }
      return file_->ReadAt(offset, target);
    }
    uint64_t size_bytes() const override { return file_->size_bytes(); }
    const std::string& path() const override { return file_->path(); }
    bool direct_io() const override { return file_->direct_io(); }

   private:
    const std::shared_ptr<const RandomAccessFile> file_;
    Gate& gate_;
  };

  Gate gate;
  EngineOptions options;
  options.make_reader =
      [&](std::shared_ptr<const RandomAccessFile> file,
          uint32_t depth) -> Result<std::unique_ptr<AsyncReader>> {
    return PreadReader::Create(
        std::make_shared<GatedFile>(std::move(file), gate), depth, 2);
  };
  options.read_timeout = std::chrono::hours(1);
  Running running = StartAtFloor(options);
  const auto expected = LastLogits(*running.session, tokens_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(running.session->Truncate(0).ok());
    {
      std::lock_guard lock(gate.mutex);
      gate.is_open = false;
    }
    CancelToken cancel;
    Status status;
    std::thread caller(
        [&] { status = running.session->Run(tokens_, {}, cancel); });
    {
      std::unique_lock lock(gate.mutex);
      gate.changed.wait(lock, [&] { return gate.num_waiting > 0; });
    }
    cancel.Cancel();
    caller.join();  // Though no read has ended.
    EXPECT_EQ(status.code(), StatusCode::kCancelled) << status.message();
    {
      std::lock_guard lock(gate.mutex);
      EXPECT_GT(gate.num_waiting, 0);
      gate.is_open = true;
      gate.changed.notify_all();
    }
    EXPECT_EQ(running.session->position(), 0u);
    EXPECT_EQ(LastLogits(*running.session, tokens_), expected);
  }
}

TEST_F(SessionTest, DecodingAllocatesNothing) {
  for (const bool streamed : {true, false}) {
    EngineOptions options;
    options.plan.num_threads = 2;
    Running running = streamed ? StartAtFloor() : Start(model_.path(), options);
    LastLogits(*running.session, tokens_);
    SamplerOptions sampling;
    sampling.temperature = 0.8f;
    sampling.repeat_penalty = 1.2f;
    Sampler sampler(sampling, running.engine->config().vocab_size);
    constexpr uint32_t kOnly = 0;
    const AllocationCounter counter;
    for (int i = 0; i < 20; ++i) {
      const TokenId token = sampler.Sample(running.session->logits(0));
      sampler.Accept(token);
      ASSERT_TRUE(running.session->Run({&token, 1}, {&kOnly, 1}, kNever).ok());
    }
    EXPECT_EQ(counter.num_allocations(), 0u) << "streamed " << streamed;
  }
}

TEST_F(SessionTest, AtTheFloorEachTokenReadsNearlyAllWeights) {
  Running running = StartAtFloor();
  LastLogits(*running.session, tokens_);
  const WeightStoreStats before = running.session->stats().store;
  constexpr int kTokens = 10;
  for (int i = 0; i < kTokens; ++i) {
    LastLogits(*running.session, std::span(tokens_).first(1));
  }
  const WeightStoreStats after = running.session->stats().store;
  const double per_token =
      static_cast<double>(after.stream_bytes - before.stream_bytes) / kTokens;
  const auto weights = static_cast<double>(running.engine->plan().weight_bytes);
  EXPECT_GE(per_token, 0.8 * weights);
  // No byte more than the sweep and one block of embedding rows.
  const auto bound =
      static_cast<double>(running.engine->plan().streamed_bytes_per_token);
  EXPECT_LE(per_token, 1.01 * bound + (128 << 10));
}

TEST_F(SessionTest, AFailedReadEndsTheCallAndTheNextOneWorks) {
  std::vector<float> expected;
  {
    Running healthy = StartAtFloor();
    expected = LastLogits(*healthy.session, tokens_);
  }
  int num_failed_runs = 0;
  for (uint64_t n = 0; n < 80; n += 3) {
    for (const Fault fault : {Fault::kIoError, Fault::kShort, Fault::kEmpty}) {
      SCOPED_TRACE(testing::Message()
                   << "read " << n << ", fault " << static_cast<int>(fault));
      EngineOptions options;
      options.make_reader =
          [&](std::shared_ptr<const RandomAccessFile> file,
              uint32_t depth) -> Result<std::unique_ptr<AsyncReader>> {
        FLASHELM_ASSIGN_OR_RETURN(
            auto inner, PreadReader::Create(std::move(file), depth, 2));
        return std::make_unique<OwningFaultyReader>(std::move(inner),
                                                    FaultAt{n, fault});
      };
      options.plan.whole_process = false;
      options.plan.num_threads = 2;
      options.plan.budget_bytes = SmallestBudget(model_.path(), options);
      auto model = ModelFile::Open(model_.path());
      ASSERT_TRUE(model);
      auto engine = Engine::Create(std::move(*model), options);
      if (!engine) {  // Among the reads of resident weights.
        EXPECT_EQ(engine.error().code(), StatusCode::kUnavailable);
        continue;
      }
      auto session = Session::Create(**engine);
      ASSERT_TRUE(session);
      const auto last = static_cast<uint32_t>(tokens_.size() - 1);
      const Status status = (*session)->Run(tokens_, {&last, 1}, kNever);
      if (!status.ok()) {
        ++num_failed_runs;
        EXPECT_EQ(status.code(), StatusCode::kUnavailable);
        EXPECT_EQ((*session)->position(), 0u);
        ASSERT_TRUE((*session)->Run(tokens_, {&last, 1}, kNever).ok());
      }
      const auto logits = (*session)->logits(0);
      EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), expected);
    }
  }
  EXPECT_GT(num_failed_runs, 10);
}

TEST_F(SessionTest, DamagedWeightsAreNamedWhetherResidentOrStreamed) {
  std::string bytes = ReadFile(model_.path());
  auto pristine = ModelFile::Open(model_.path());
  ASSERT_TRUE(pristine);
  uint64_t offset = 0;
  for (const Segment& segment : pristine->weight_file().segments()) {
    if (segment.kind == SegmentKind::kFfn && segment.layer == 1u) {
      offset = segment.offset_bytes + 3 * segment.stride_bytes + 5;
    }
  }
  ASSERT_GT(offset, 0u);
  bytes[offset] = static_cast<char>(bytes[offset] ^ 0x10);
  const TempDirectory directory;
  const std::string path = directory.File("damaged.felm");
  WriteFile(path, bytes);

  const auto expect_named = [](const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_NE(status.message().find("layer 1 ffn, neuron 3"), std::string::npos)
        << status.message();
  };
  EngineOptions options;
  options.plan.whole_process = false;
  auto model = ModelFile::Open(path);
  ASSERT_TRUE(model) << model.error().message();
  auto resident = Engine::Create(std::move(*model), options);
  ASSERT_FALSE(resident);
  expect_named(resident.error());

  options.plan.budget_bytes = SmallestBudget(path, options);
  Running streamed = Start(path, options);
  ASSERT_NE(streamed.session, nullptr);
  for (int i = 0; i < 2; ++i) {
    expect_named(streamed.session->Run(tokens_, {}, kNever));
  }
}

TEST_F(SessionTest, BuffersTakeWhatThePlanSaysToTheByte) {
  for (const bool floor : {true, false}) {
    EngineOptions options;
    options.plan.all_logits = true;
    Running running =
        floor ? StartAtFloor(options) : Start(model_.path(), options);
    EXPECT_EQ(running.engine->budget().used_bytes(),
              running.engine->budget().limit_bytes());
    EXPECT_LE(running.engine->plan().total_bytes,
              running.engine->plan_options().budget_bytes);
  }
}

}  // namespace
}  // namespace flashelm::test
