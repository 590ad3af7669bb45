#include "predictor/low_rank_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "tests/predictor/random.h"

namespace flashelm {
namespace {

// Samples in memory.
class MemorySource : public SampleSource {
 public:
  MemorySource(uint32_t num_neurons, uint32_t model_dim)
      : num_neurons_(num_neurons), model_dim_(model_dim) {}

  Status Rewind() override {
    next_ = 0;
    ++num_passes_;
    return OkStatus();
  }
  // In pieces of many sizes.
  Result<size_t> Next(size_t max_samples, float* out_x,
                      uint8_t* out_labels) override {
    if (fail_at && next_ >= *fail_at) return Unavailable("a device failed");
    size_t count = std::min({max_samples, size() - next_, 37 + next_ % 11});
    if (fewer_later && num_passes_ > 1 && next_ == 0) count = 5;
    std::copy_n(x.data() + next_ * model_dim_, count * model_dim_, out_x);
    std::copy_n(labels.data() + next_ * num_neurons_, count * num_neurons_,
                out_labels);
    next_ += count;
    if (fewer_later && num_passes_ > 1) next_ = size();
    return count;
  }
  size_t size() const { return x.size() / model_dim_; }
  int num_passes() const { return num_passes_; }

  std::vector<float> x;
  std::vector<uint8_t> labels;
  std::optional<size_t> fail_at;
  bool fewer_later = false;

 private:
  size_t num_neurons_;
  size_t model_dim_;
  size_t next_ = 0;
  int num_passes_ = 0;
};

constexpr uint32_t kDim = 32;
constexpr uint32_t kNeurons = 96;

// [n, inner] times [inner, cols].
std::vector<float> Product(const std::vector<float>& a,
                           const std::vector<float>& b, size_t inner,
                           size_t cols) {
  const size_t n = a.size() / inner;
  std::vector<float> out(n * cols);
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < inner; ++k) {
      for (size_t j = 0; j < cols; ++j) {
        out[i * cols + j] += a[i * inner + k] * b[k * cols + j];
      }
    }
  }
  return out;
}

// A gate matrix [kNeurons, kDim] of the rank.
std::vector<float> GateOfRank(size_t rank, uint32_t seed) {
  return Product(RandomNormals(kNeurons * rank, seed),
                 RandomNormals(rank * kDim, seed + 1), rank, kDim);
}

// A neuron is active where its gate is above `line`, or `odd_line` if its index
// is odd, in standard deviations.
MemorySource SamplesOf(const std::vector<float>& gate, std::vector<float> x,
                       float line, float odd_line) {
  MemorySource source(kNeurons, kDim);
  source.x = std::move(x);
  double squares = 0;
  std::vector<float> gates(source.size() * kNeurons);
  for (size_t t = 0; t < source.size(); ++t) {
    for (size_t i = 0; i < kNeurons; ++i) {
      double sum = 0;
      for (size_t k = 0; k < kDim; ++k) {
        sum += static_cast<double>(gate[i * kDim + k]) * source.x[t * kDim + k];
      }
      gates[t * kNeurons + i] = static_cast<float>(sum);
      squares += sum * sum;
    }
  }
  const double deviation =
      std::sqrt(squares / static_cast<double>(gates.size()));
  for (size_t i = 0; i < gates.size(); ++i) {
    const float of_neuron = i % kNeurons % 2 == 0 ? line : odd_line;
    source.labels.push_back(gates[i] > of_neuron * deviation ? 1 : 0);
  }
  return source;
}

MemorySource SamplesOf(const std::vector<float>& gate, std::vector<float> x,
                       float line) {
  return SamplesOf(gate, std::move(x), line, line);
}

LowRankTrainerOptions Options(uint32_t rank) {
  LowRankTrainerOptions options;
  options.rank = rank;
  options.batch_samples = 32;
  return options;
}

Result<TrainedLowRank> Train(const std::vector<float>& gate,
                             MemorySource& source,
                             const LowRankTrainerOptions& options) {
  return TrainLowRank(kNeurons, kDim, gate.empty() ? nullptr : gate.data(),
                      source, options);
}

// What a trained predictor does to samples that it has never seen.
ThresholdChoice Measure(const TrainedLowRank& trained,
                        const MemorySource& source) {
  const LowRankPredictor predictor(trained.shape, trained.bytes,
                                   trained.choice.threshold);
  std::vector<float> prepared(predictor.prepared_floats());
  std::vector<float> scores(kNeurons);
  double kept = 0;
  double active = 0;
  double found = 0;
  for (size_t t = 0; t < source.size(); ++t) {
    predictor.Prepare(source.x.data() + t * kDim, prepared.data());
    predictor.Score(prepared.data(), 0, kNeurons, scores.data());
    for (size_t i = 0; i < kNeurons; ++i) {
      const bool is_kept = scores[i] > predictor.threshold();
      const bool is_active = source.labels[t * kNeurons + i] != 0;
      kept += is_kept;
      active += is_active;
      found += is_kept && is_active;
    }
  }
  return {predictor.threshold(), found / active, found / kept,
          kept / static_cast<double>(source.labels.size())};
}

TEST(LowRankTrainerTest, FindsTheActiveNeuronsOfAGateOfItsRank) {
  const auto gate = GateOfRank(6, 1);
  auto source = SamplesOf(gate, RandomNormals(4000 * kDim, 3), 1.0f);
  const auto fresh = SamplesOf(gate, RandomNormals(500 * kDim, 4), 1.0f);
  for (const bool has_gate : {true, false}) {
    SCOPED_TRACE(has_gate);
    auto options = Options(6);
    if (!has_gate) options.num_epochs = 12;
    const auto trained =
        Train(has_gate ? gate : std::vector<float>(), source, options);
    ASSERT_TRUE(trained) << trained.error().message();
    EXPECT_GE(trained->choice.recall, 0.95);
    // A sixth is active.
    EXPECT_LT(trained->choice.kept_fraction, 0.25);
    const ThresholdChoice measured = Measure(*trained, fresh);
    EXPECT_GT(measured.recall, 0.9);
    EXPECT_LT(measured.kept_fraction, 0.25);
  }
}

TEST(LowRankTrainerTest, TrainingImprovesOnTheStart) {
  // The start knows the gates, but not that half of the neurons are active
  // more rarely.
  const auto gate = RandomNormals(kNeurons * kDim, 5);
  auto source = SamplesOf(gate, RandomNormals(4000 * kDim, 6), 0.0f, 2.0f);
  std::vector<LowRankProgress> seen;
  auto options = Options(8);
  options.progress = [&](const LowRankProgress& p) { seen.push_back(p); };
  const auto trained = Train(gate, source, options);
  ASSERT_TRUE(trained);
  ASSERT_EQ(seen.size(), 1 + options.num_epochs);
  EXPECT_LT(trained->choice.kept_fraction, 0.97 * seen[0].choice.kept_fraction);
  for (uint32_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].epoch, i);
    EXPECT_GE(seen[i].choice.recall, options.recall_target);
    EXPECT_GE(seen[i].choice.kept_fraction, trained->choice.kept_fraction);
  }
  EXPECT_LT(seen[1].training_loss, std::log(2.0));
  EXPECT_LT(seen.back().training_loss, seen[1].training_loss);
}

// A gate of full rank, but inputs from a space of four dimensions: a start that
// does not look at the inputs would waste its rank.
TEST(LowRankTrainerTest, TheStartIsTheBestForTheInputsThatOccur) {
  const auto gate = RandomNormals(kNeurons * kDim, 7);
  const auto x =
      Product(RandomNormals(1000 * 4, 8), RandomNormals(4 * kDim, 9), 4, kDim);
  auto source = SamplesOf(gate, x, 0.0f);
  auto options = Options(4);
  options.num_epochs = 0;
  options.type = WeightType::kF32;
  options.recall_target = 0.999;
  const auto trained = Train(gate, source, options);
  ASSERT_TRUE(trained);
  EXPECT_GT(trained->choice.precision, 0.99);
}

TEST(LowRankTrainerTest, TheSameSeedGivesTheSameBytes) {
  const auto gate = RandomNormals(kNeurons * kDim, 10);
  auto source = SamplesOf(gate, RandomNormals(600 * kDim, 11), 1.0f);
  auto options = Options(5);
  options.num_epochs = 1;
  const auto first = Train(gate, source, options);
  const auto second = Train(gate, source, options);
  options.seed = 2;
  const auto other = Train(gate, source, options);
  ASSERT_TRUE(first && second && other);
  EXPECT_EQ(first->bytes, second->bytes);
  EXPECT_EQ(first->choice.threshold, second->choice.threshold);
  EXPECT_NE(first->bytes, other->bytes);
}

TEST(LowRankTrainerTest, ARankAboveThatOfTheGateIsNoError) {
  const auto gate = GateOfRank(2, 12);
  auto source = SamplesOf(gate, RandomNormals(600 * kDim, 13), 1.0f);
  for (const uint32_t rank : {8u, 40u}) {  // 40: above model_dim.
    const auto trained = Train(gate, source, Options(rank));
    ASSERT_TRUE(trained) << trained.error().message();
    EXPECT_LT(trained->choice.kept_fraction, 0.25);
  }
}

TEST(LowRankTrainerTest, ChoosesTheThresholdForTheRecallAskedFor) {
  const auto gate = RandomNormals(kNeurons * kDim, 14);
  auto source = SamplesOf(gate, RandomNormals(2000 * kDim, 15), 1.0f);
  double kept = 0;
  for (const double recall : {0.5, 0.9, 0.99}) {
    auto options = Options(8);
    options.num_epochs = 1;
    options.recall_target = recall;
    const auto trained = Train(gate, source, options);
    ASSERT_TRUE(trained);
    EXPECT_GE(trained->choice.recall, recall);
    EXPECT_LT(trained->choice.recall, recall + 0.001);
    EXPECT_GT(trained->choice.kept_fraction, kept);
    kept = trained->choice.kept_fraction;
  }
}

StatusCode CodeOf(const Result<TrainedLowRank>& result) {
  return result ? StatusCode::kOk : result.error().code();
}

TEST(LowRankTrainerTest, RefusesSamplesThatCannotBe) {
  const auto gate = RandomNormals(kNeurons * kDim, 16);
  const auto good = SamplesOf(gate, RandomNormals(300 * kDim, 17), 1.0f);
  auto options = Options(4);
  options.num_epochs = 1;
  const auto code = [&](MemorySource source) {
    return CodeOf(Train(gate, source, options));
  };
  EXPECT_EQ(code(good), StatusCode::kOk);

  MemorySource source = good;
  source.x[200 * kDim + 3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code(source), StatusCode::kInvalidArgument);

  source = good;
  source.x.resize(options.held_out_run * kDim);
  EXPECT_EQ(code(source), StatusCode::kInvalidArgument);
  source.x.clear();
  EXPECT_EQ(code(source), StatusCode::kInvalidArgument);

  source = good;
  source.fewer_later = true;
  EXPECT_EQ(code(source), StatusCode::kInvalidArgument);
}

// A layer may be dead, in all of the text or nearly.
TEST(LowRankTrainerTest, GivesTheStartWhereThereIsNothingToLearn) {
  const auto gate = RandomNormals(kNeurons * kDim, 22);
  const auto good = SamplesOf(gate, RandomNormals(300 * kDim, 23), 1.0f);
  auto options = Options(4);
  options.num_epochs = 0;
  MemorySource source = good;
  const auto start = Train(gate, source, options);
  ASSERT_TRUE(start);
  std::vector<LowRankProgress> seen;
  options.num_epochs = 2;
  options.progress = [&](const LowRankProgress& p) { seen.push_back(p); };
  for (const uint8_t label : {uint8_t{0}, uint8_t{1}}) {
    SCOPED_TRACE(int{label});
    seen.clear();
    std::fill(source.labels.begin(), source.labels.end(), label);
    const auto trained = Train(gate, source, options);
    ASSERT_TRUE(trained) << trained.error().message();
    EXPECT_EQ(trained->bytes, start->bytes);
    EXPECT_EQ(seen.size(), 1u);
    const ThresholdChoice measured = Measure(*trained, good);
    if (label == 0) {
      EXPECT_EQ(trained->choice.kept_fraction, 0);
      EXPECT_EQ(measured.kept_fraction, 0);
    } else {
      EXPECT_GE(trained->choice.recall, options.recall_target);
      EXPECT_GT(measured.kept_fraction, 0.8);
    }
  }
  // Active in one sample alone, which is held out or is not.
  for (size_t t = 0; t < good.size(); t += 30) {
    std::fill(source.labels.begin(), source.labels.end(), uint8_t{0});
    source.labels[t * kNeurons + 7] = 1;
    const auto trained = Train(gate, source, options);
    ASSERT_TRUE(trained) << trained.error().message();
  }
  // Inputs and gates of nothing but zeros.
  std::fill(source.labels.begin(), source.labels.end(), uint8_t{0});
  std::fill(source.x.begin(), source.x.end(), 0.0f);
  const auto zeros =
      Train(std::vector<float>(gate.size(), 0.0f), source, options);
  ASSERT_TRUE(zeros) << zeros.error().message();
  EXPECT_EQ(zeros->choice.kept_fraction, 0);
}

TEST(LowRankTrainerTest, PassesOnTheErrorsOfItsSourceAndCanBeCancelled) {
  const auto gate = RandomNormals(kNeurons * kDim, 18);
  auto source = SamplesOf(gate, RandomNormals(300 * kDim, 19), 1.0f);
  auto options = Options(4);
  source.fail_at = 100;
  EXPECT_EQ(CodeOf(Train(gate, source, options)), StatusCode::kUnavailable);
  source.fail_at.reset();

  CancelToken cancel;
  options.cancel = &cancel;
  options.progress = [&](const LowRankProgress& progress) {
    if (progress.epoch == 1) cancel.Cancel();
  };
  EXPECT_EQ(CodeOf(Train(gate, source, options)), StatusCode::kCancelled);
}

TEST(LowRankTrainerTest, RefusesOptionsThatCannotBe) {
  const auto gate = RandomNormals(kNeurons * kDim, 20);
  auto source = SamplesOf(gate, RandomNormals(300 * kDim, 21), 1.0f);
  const auto expect_refused = [&](auto change) {
    auto options = Options(4);
    change(options);
    EXPECT_EQ(CodeOf(Train(gate, source, options)),
              StatusCode::kInvalidArgument);
  };
  using O = LowRankTrainerOptions;
  expect_refused([](O& o) { o.rank = 0; });
  expect_refused([](O& o) { o.type = WeightType::kQ8; });
  expect_refused([](O& o) { o.batch_samples = 0; });
  expect_refused([](O& o) { o.held_out_run = 0; });
  expect_refused([](O& o) { o.learning_rate = 0; });
  expect_refused([](O& o) { o.recall_target = 0; });
  expect_refused([](O& o) { o.held_out_fraction = NAN; });
  EXPECT_EQ(source.num_passes(), 0);
}

}  // namespace
}  // namespace flashelm
