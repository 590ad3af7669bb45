// The bound on what leaving out neurons changes, against the true change.

#include "bench/ffn_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/calibrate.h"
#include "predictor/gate_selector.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using bench::FfnError;
using bench::FfnErrorRecorder;
using bench::FfnRows;

constexpr uint32_t kContext = 32;
constexpr char kText[] =
    "Once upon a time there was a little red fox who lived at the edge of a "
    "dark forest. One morning he found a shiny key under an old oak tree. He "
    "asked the owl what it was for, and the owl laughed and said that no door "
    "in the whole forest had ever been locked.";

// Runs the dense model over 64 tokens, in windows.
std::unique_ptr<FfnErrorRecorder> Record(const ConvertedModel& converted,
                                         std::vector<double> kept_fractions,
                                         float importance_factor = 1) {
  EngineOptions options;
  options.plan.context = kContext;
  Running running = Start(converted.path(), options);
  if (running.session == nullptr) return nullptr;
  const ModelFile& model = running.engine->model();
  auto recorder = FfnErrorRecorder::Create(model, std::move(kept_fractions),
                                           importance_factor);
  EXPECT_TRUE(recorder) << recorder.error().message();
  if (!recorder) return nullptr;
  auto tokens = model.tokenizer().Encode(kText, /*add_bos=*/false);
  EXPECT_GE(tokens.size(), 64u);
  tokens.resize(std::min<size_t>(tokens.size(), 64));
  FfnObserver* const observers[] = {recorder->get()};
  const Status status =
      RecordActivations(*running.session, tokens, model.config().bos_id,
                        kContext, CancelToken(), {}, observers);
  EXPECT_TRUE(status.ok()) << status.message();
  return std::move(*recorder);
}

// 64 tokens in three windows, each with a BOS, in six layers.
constexpr size_t kNumErrors = size_t{64 + 3} * 6;

TEST(FfnErrorTest, TheBoundHoldsForEveryTokenAndLayer) {
  for (const Encoding weights : {Encoding::kBf16, Encoding::kQ4}) {
    const ConvertedModel model(SampleModelDirectory("tiny-stories"), weights);
    const auto recorder = Record(model, {0.75, 0.5, 1});
    ASSERT_NE(recorder, nullptr);
    for (const size_t i : {0, 1}) {
      ASSERT_EQ(recorder->errors(i).size(), kNumErrors);
      for (const FfnError& e : recorder->errors(i)) {
        EXPECT_FALSE(e.is_violation()) << e.error << " > " << e.bound;
        EXPECT_GT(e.error, 0);
        EXPECT_GE(e.bound / e.error, 1);
        EXPECT_LT(e.error, e.output);
      }
    }
    for (size_t t = 0; t < kNumErrors; ++t) {
      EXPECT_GT(recorder->errors(1)[t].bound, recorder->errors(0)[t].bound);
      EXPECT_EQ(recorder->errors(2)[t].error, 0);
      EXPECT_EQ(recorder->errors(2)[t].bound, 0);
    }
  }
}

TEST(FfnErrorTest, NoticesABoundThatIsTooSmall) {
  const ConvertedModel model(SampleModelDirectory("tiny-stories"),
                             Encoding::kBf16);
  const auto right = Record(model, {0.5});
  // A power of two changes no order, and so none of what is selected.
  constexpr float kFactor = 1.0f / 64;
  const auto wrong = Record(model, {0.5}, kFactor);
  ASSERT_NE(right, nullptr);
  ASSERT_NE(wrong, nullptr);
  ASSERT_EQ(wrong->errors(0).size(), kNumErrors);
  size_t num_violations = 0;
  for (size_t t = 0; t < kNumErrors; ++t) {
    const FfnError& e = right->errors(0)[t];
    EXPECT_EQ(wrong->errors(0)[t].error, e.error);
    EXPECT_NEAR(wrong->errors(0)[t].bound, e.bound * kFactor,
                1e-6 * e.bound * kFactor);
    num_violations += wrong->errors(0)[t].is_violation() ? 1 : 0;
  }
  // Some, and not all: the true errors decide.
  EXPECT_GT(num_violations, 0u);
  EXPECT_LT(num_violations, kNumErrors);
}

// Neurons whose up rows point along the input and whose down columns along each
// other: the two inequalities are equalities.
TEST(FfnErrorTest, IsTheBoundWhereAllPointsOneWay) {
  FfnRows rows;
  rows.model_dim = 2;
  rows.up = {3, 4, 6, 8, -1.5, -2};
  rows.down = {0, 1, 0, 2, 0, -4};
  for (size_t i = 0; i < 3; ++i) {
    rows.importance.push_back(
        NeuronImportance(&rows.up[2 * i], &rows.down[2 * i], 2));
  }
  const float input[] = {3, 4};
  const float gates[] = {2, 8, 1};
  const double kept_fractions[] = {0.3};
  // Neurons 0 and 2 are left out: 2 * 25 * 1 and 1 * -12.5 * -4.
  FfnError error;
  bench::MeasureFfnError(rows, Activation::kRelu, input, gates, kept_fractions,
                         &error);
  EXPECT_DOUBLE_EQ(error.output, 100 + 8 * 50 * 2);
  EXPECT_DOUBLE_EQ(error.error, 100);
  EXPECT_FALSE(error.is_violation());
  EXPECT_NEAR(error.bound, 100, 1e-4);
  // A millionth less is noticed.
  for (float& importance : rows.importance) importance *= 1 - 1e-6f;
  bench::MeasureFfnError(rows, Activation::kRelu, input, gates, kept_fractions,
                         &error);
  EXPECT_TRUE(error.is_violation());
}

TEST(FfnErrorTest, PositiveGatesLoseNothingWithRelu) {
  const ConvertedModel model(SampleModelDirectory("tiny-stories-relu"),
                             Encoding::kBf16);
  const auto recorder = Record(model, {0, 0.02});
  ASSERT_NE(recorder, nullptr);
  ASSERT_EQ(recorder->errors(0).size(), kNumErrors);
  // Some layers have no active neuron for a token.
  size_t num_outputs = 0;
  for (const FfnError& e : recorder->errors(0)) {
    EXPECT_EQ(e.error, 0);
    EXPECT_EQ(e.bound, 0);
    num_outputs += e.output > 0 ? 1 : 0;
  }
  EXPECT_GT(num_outputs, kNumErrors / 2);
  // Leaving out more does change something.
  size_t num_changed = 0;
  for (const FfnError& e : recorder->errors(1)) {
    EXPECT_FALSE(e.is_violation());
    num_changed += e.error > 0 ? 1 : 0;
  }
  EXPECT_GT(num_changed, kNumErrors / 2);
}

TEST(FfnErrorTest, RefusesFractionsThatAreNone) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories"),
                                 Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  for (const double fraction : {-0.1, 1.1, 0.0}) {
    const auto recorder = FfnErrorRecorder::Create(*model, {fraction});
    ASSERT_FALSE(recorder) << fraction;
    EXPECT_EQ(recorder.error().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace flashelm::test
