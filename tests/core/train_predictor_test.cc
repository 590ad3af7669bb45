// From a run of the model to predictors of its neurons.

#include "core/train_predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/activation_recorder.h"
#include "core/activation_spool.h"
#include "core/calibrate.h"
#include "core/convert/calibrated_file.h"
#include "core/record_reader.h"
#include "predictor/gate_selector.h"
#include "storage/file.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

constexpr uint32_t kContext = 128;

EngineOptions Options(uint32_t batch) {
  EngineOptions options;
  options.plan.num_threads = 2;
  options.plan.max_batch = batch;
  options.plan.whole_process = false;
  return options;
}

// Keeps everything, to compare with.
class Keeper final : public FfnObserver {
 public:
  explicit Keeper(const ModelConfig& config)
      : config_(config),
        inputs(config.num_layers()),
        gates(config.num_layers()) {}

  void BeginBatch(size_t num_tokens) override {
    first_ += num_in_batch_;
    num_in_batch_ = num_tokens;
  }
  void OnInputs(uint32_t layer, size_t num_tokens, const float* x,
                size_t stride) override {
    for (size_t t = 0; t < num_tokens; ++t) {
      inputs[layer].insert(inputs[layer].end(), x + t * stride,
                           x + t * stride + config_.model_dim);
    }
    gates[layer].resize((first_ + num_tokens) * config_.layers[layer].ffn_dim);
  }
  void OnGates(uint32_t layer, uint32_t first, size_t count, size_t num_tokens,
               const float* from, size_t stride) override {
    for (size_t t = 0; t < num_tokens; ++t) {
      std::copy_n(from + t * stride, count,
                  gates[layer].data() +
                      (first_ + t) * config_.layers[layer].ffn_dim + first);
    }
  }
  Status EndLayer(uint32_t) override { return OkStatus(); }

 private:
  const ModelConfig config_;
  size_t first_ = 0;
  size_t num_in_batch_ = 0;

 public:
  std::vector<std::vector<float>> inputs;  // By layer: [tokens, model_dim]
  std::vector<std::vector<float>> gates;   // [tokens, ffn_dim]
};

// A model that ran over some tokens.
struct Recorded {
  std::unique_ptr<Keeper> all;
  std::unique_ptr<ActivationSpool> spool;
  std::vector<std::vector<uint32_t>> order;
  std::vector<std::vector<float>> importance;
};

Recorded Record(const ModelFile& model, const std::string& beside,
                size_t num_tokens, uint32_t max_samples, uint32_t batch,
                double kept_fraction = 0) {
  Recorded recorded;
  const ModelConfig& config = model.config();
  MemoryBudget unlimited(UINT64_MAX);
  SpoolOptions options;
  options.beside = beside;
  options.num_tokens = NumPositions(num_tokens, kContext);
  options.max_samples = max_samples;
  options.max_batch = batch;
  options.kept_fraction = kept_fraction;
  if (kept_fraction > 0) {
    auto reader = RecordReader::Create(model.weight_file(), unlimited);
    EXPECT_TRUE(reader);
    for (uint32_t i = 0; i < config.num_layers(); ++i) {
      auto importance = ReadImportance(model, i, *reader, nullptr);
      EXPECT_TRUE(importance);
      options.importance.push_back(std::move(*importance));
    }
    recorded.importance = options.importance;
  }
  MemoryBudget budget(ActivationSpool::NumBytes(config, options));
  auto spool = ActivationSpool::Create(config, options, budget);
  EXPECT_TRUE(spool) << spool.error().message();
  auto recorder = ActivationRecorder::Create(config, num_tokens, unlimited);
  EXPECT_TRUE(recorder);
  recorded.all = std::make_unique<Keeper>(config);
  Running running = Start(model.path(), Options(batch));
  const std::vector<TokenId> tokens = SomeTokens(num_tokens, config.vocab_size);
  const CancelToken never;
  EXPECT_TRUE(RecordActivations(
                  *running.session, tokens, config.bos_id, kContext, never, {},
                  std::vector<FfnObserver*>{recorder->get(), spool->get(),
                                            recorded.all.get()})
                  .ok());
  EXPECT_TRUE((*spool)->Finish().ok());
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    recorded.order.push_back(
        OrderNeurons(**recorder, i, NeuronOrder::kCoActivation));
  }
  recorded.spool = std::move(*spool);
  return recorded;
}

class ActivationSpoolTest : public testing::TestWithParam<double> {};

// All tokens are samples here, so each can be compared.
TEST_P(ActivationSpoolTest, GivesBackInputsAndLabels) {
  const bool is_relu = GetParam() == 0;
  const ConvertedModel converted(
      SampleModelDirectory(is_relu ? "tiny-stories-relu" : "tiny-stories"),
      Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const TempDirectory directory;
  const Recorded recorded =
      Record(*model, directory.File("out"), 150, 1000, 32, GetParam());
  const ModelConfig& config = model->config();
  const ActivationSpool& spool = *recorded.spool;
  ASSERT_EQ(spool.num_samples(), 152u);
  for (uint32_t layer = 0; layer < config.num_layers(); ++layer) {
    const uint32_t ffn_dim = config.layers[layer].ffn_dim;
    const uint32_t count = spool.num_samples() - 1;
    std::vector<float> x(size_t{count} * config.model_dim);
    std::vector<uint8_t> labels(size_t{count} * ffn_dim);
    ASSERT_TRUE(spool.Read(layer, 1, count, x.data(), labels.data()).ok());
    std::vector<float> scratch(2 * size_t{ffn_dim});
    std::vector<uint32_t> active(ffn_dim);
    for (size_t t = 0; t < count; ++t) {
      for (size_t i = 0; i < config.model_dim; ++i) {
        const float expected =
            recorded.all->inputs[layer][(t + 1) * config.model_dim + i];
        ASSERT_NEAR(x[t * config.model_dim + i], expected,
                    std::abs(expected) / 256);
      }
      const float* gates =
          recorded.all->gates[layer].data() + (t + 1) * ffn_dim;
      const size_t num_active =
          is_relu
              ? SelectPositive(gates, ffn_dim, active.data())
              : SelectTop(gates, recorded.importance[layer].data(),
                          Activation::kSilu, ffn_dim,
                          static_cast<size_t>(std::ceil(GetParam() * ffn_dim)),
                          scratch.data(), active.data(), nullptr);
      std::vector<uint8_t> expected(ffn_dim);
      for (size_t i = 0; i < num_active; ++i) expected[active[i]] = 1;
      ASSERT_EQ(std::vector<uint8_t>(labels.begin() + t * ffn_dim,
                                     labels.begin() + (t + 1) * ffn_dim),
                expected)
          << "layer " << layer << ", token " << t + 1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ActivationSpoolTest, testing::Values(0, 0.3),
                         [](const auto& test) {
                           return test.param == 0 ? "Relu" : "SwiGlu";
                         });

TEST(ActivationSpoolSampleTest, DependsOnTheTokensAlone) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kF32);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const TempDirectory directory;
  const ModelConfig& config = model->config();
  std::vector<std::vector<float>> found;
  for (const uint32_t batch : {1u, 7u, 64u}) {
    const Recorded recorded =
        Record(*model, directory.File("out"), 200, 17, batch);
    ASSERT_EQ(recorded.spool->num_samples(), 17u);
    std::vector<float> x(17 * size_t{config.model_dim});
    std::vector<uint8_t> labels(17 * size_t{config.layers[3].ffn_dim});
    ASSERT_TRUE(recorded.spool->Read(3, 0, 17, x.data(), labels.data()).ok());
    x.insert(x.end(), labels.begin(), labels.end());
    found.push_back(std::move(x));
  }
  EXPECT_EQ(found[0], found[1]);
  EXPECT_EQ(found[0], found[2]);
}

// A disk that is full ends the run with its message.
class FullDisk final : public FfnObserver {
 public:
  void BeginBatch(size_t) override {}
  void OnInputs(uint32_t, size_t, const float*, size_t) override {}
  void OnGates(uint32_t, uint32_t, size_t, size_t, const float*,
               size_t) override {}
  Status EndLayer(uint32_t layer) override {
    return layer == 2 ? ResourceExhausted("the disk is full") : OkStatus();
  }
};

TEST(ActivationSpoolSampleTest, AFailedWriteEndsTheRun) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kBf16);
  Running running = Start(converted.path(), Options(32));
  const uint32_t vocab_size = running.engine->config().vocab_size;
  const auto tokens = SomeTokens(50, vocab_size);
  const CancelToken never;
  FullDisk disk;
  const Status status =
      RecordActivations(*running.session, tokens, 1, kContext, never, {},
                        std::vector<FfnObserver*>{&disk});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the disk is full");
  // The session works on.
  ASSERT_TRUE(running.session->Truncate(0).ok());
  EXPECT_TRUE(running.session->Run(tokens, {}, never).ok());
}

class TrainPredictorTest : public testing::TestWithParam<PredictorKind> {};

TEST_P(TrainPredictorTest, FindsTheActiveNeuronsInTheirNewOrder) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kQ8);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const ModelConfig& config = model->config();
  const TempDirectory directory;
  const Recorded recorded =
      Record(*model, directory.File("out"), 600, 1000, 64);
  PredictorOptions options;
  options.kind = GetParam();
  options.num_epochs = 1;
  options.recall_target = 0.9;
  CalibratedFileOptions file;
  file.split_gate = false;
  file.neuron_order = recorded.order;
  for (const uint32_t threads : {1u, 2u}) {
    auto pool = ThreadPool::Create(threads);
    ASSERT_TRUE(pool);
    for (uint32_t i = 0; i < config.num_layers(); ++i) {
      const auto made = TrainPredictor(*model, *recorded.spool, i,
                                       recorded.order[i], options, **pool);
      ASSERT_TRUE(made) << made.error().message();
      EXPECT_GT(made->quality.recall, 0.8);
      EXPECT_LT(made->quality.kept_fraction, 0.7);
      EXPECT_NEAR(made->quality.precision * made->quality.kept_fraction,
                  made->quality.recall * made->quality.active_fraction, 1e-9);
      if (options.kind == PredictorKind::kLowRank) {
        EXPECT_LE(made->bytes.size(), Bf16FfnBytes(config, i) / 20);
      }
      if (threads == 1) {
        file.predictors.push_back(made->bytes);
      } else {
        EXPECT_EQ(made->bytes, file.predictors[i]);
      }
    }
  }

  // As a reader of the file has it, against the gates as they were.
  const std::string path = directory.File("calibrated.felm");
  const auto written = WriteCalibratedFile(*model, path, file);
  ASSERT_TRUE(written) << written.error().message();
  const auto out = ModelFile::Open(path);
  ASSERT_TRUE(out);
  const auto bytes = OpenFile(path, CacheMode::kBuffered);
  ASSERT_TRUE(bytes);
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const LayerWeights& layer = out->weights().layers[i];
    ASSERT_TRUE(layer.predictor);
    ASSERT_EQ(layer.predictor_bytes, file.predictors[i].size());
    const Segment& segment =
        out->weight_file().segments()[layer.predictor->segment];
    std::vector<std::byte> stored(layer.predictor_bytes);
    ASSERT_TRUE(
        ReadExactly(**bytes,
                    segment.offset_bytes + layer.predictor->offset_bytes,
                    stored, "the predictor")
            .ok());
    const uint32_t ffn_dim = config.layers[i].ffn_dim;
    const auto opened =
        OpenPredictor(stored, ffn_dim, config.model_dim, "the predictor");
    ASSERT_TRUE(opened);
    const Predictor& predictor = *opened->predictor;
    EXPECT_EQ(opened->kind, GetParam());
    std::vector<float> prepared(predictor.prepared_floats());
    std::vector<float> scores(ffn_dim);
    size_t num_active = 0;
    size_t num_kept = 0;
    size_t num_found = 0;
    for (size_t t = 0; t < 600; ++t) {
      predictor.Prepare(recorded.all->inputs[i].data() + t * config.model_dim,
                        prepared.data());
      predictor.Score(prepared.data(), 0, ffn_dim, scores.data());
      for (size_t n = 0; n < ffn_dim; ++n) {
        const size_t neuron = recorded.order[i][n];
        const bool is_active = recorded.all->gates[i][t * ffn_dim + neuron] > 0;
        const bool is_kept = scores[n] > predictor.threshold();
        num_active += is_active ? 1 : 0;
        num_kept += is_kept ? 1 : 0;
        num_found += is_active && is_kept ? 1 : 0;
      }
    }
    EXPECT_GT(static_cast<double>(num_found),
              0.85 * static_cast<double>(num_active))
        << i;
    EXPECT_LT(static_cast<double>(num_kept), 0.7 * 600 * ffn_dim) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TrainPredictorTest,
                         testing::Values(PredictorKind::kLowBit,
                                         PredictorKind::kLowRank),
                         [](const auto& test) {
                           return test.param == PredictorKind::kLowBit
                                      ? "LowBit"
                                      : "LowRank";
                         });

// A small random ReLU model with one tensor of its second layer changed, after
// a run.
class TrainPredictorLayerTest : public testing::Test {
 protected:
  void RecordWith(const std::string& part,
                  const std::function<void(std::string&)>& change) {
    CheckpointOptions checkpoint;
    checkpoint.num_layers = 2;
    checkpoint.activation = "relu";
    WriteCheckpoint(directory_.path(), checkpoint);
    std::vector<RawTensor> tensors = MakeTensors(checkpoint);
    bool is_changed = false;
    for (RawTensor& tensor : tensors) {
      if (tensor.name != "transformer.layers.1." + part) continue;
      change(tensor.bytes);
      is_changed = true;
    }
    ASSERT_TRUE(is_changed);
    WriteTensors(directory_.path(), tensors, 1);
    converted_.emplace(directory_.path(), Encoding::kF32);
    auto model = ModelFile::Open(converted_->path());
    ASSERT_TRUE(model);
    model_.emplace(std::move(*model));
    recorded_ = Record(*model_, directory_.File("out"), 120, 200, 64);
  }

  Result<LayerPredictor> Train(uint32_t layer, PredictorKind kind) {
    FLASHELM_ASSIGN_OR_RETURN(const auto pool, ThreadPool::Create(1));
    PredictorOptions options;
    options.kind = kind;
    options.max_share = 1;
    return TrainPredictor(*model_, *recorded_.spool, layer, {}, options, *pool);
  }

  const TempDirectory directory_;
  std::optional<ConvertedModel> converted_;
  std::optional<ModelFile> model_;
  Recorded recorded_;
};

TEST_F(TrainPredictorLayerTest, OfADeadLayerNothingIsKept) {
  RecordWith("ffn.proj_1.weight", [](std::string& bytes) {
    std::fill_n(bytes.begin(), bytes.size() / 2, '\0');  // The gates.
  });
  ASSERT_FALSE(HasFatalFailure());
  const ModelConfig& config = model_->config();
  for (const PredictorKind kind :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    const auto alive = Train(0, kind);
    ASSERT_TRUE(alive) << alive.error().message();
    EXPECT_GT(alive->quality.kept_fraction, 0.3);
    const auto dead = Train(1, kind);
    ASSERT_TRUE(dead) << dead.error().message();
    EXPECT_EQ(dead->quality.active_fraction, 0);
    EXPECT_EQ(dead->quality.kept_fraction, 0);
    EXPECT_EQ(dead->quality.recall, 1);
    EXPECT_TRUE(OpenPredictor(dead->bytes, config.layers[1].ffn_dim,
                              config.model_dim, "the predictor"));
  }
}

TEST_F(TrainPredictorLayerTest, AnErrorNamesTheLayer) {
  RecordWith("ffn_norm.weight", [](std::string& bytes) {
    // Inputs overflow.
    const std::vector<float> huge(bytes.size() / sizeof(float), 3e38f);
    std::memcpy(bytes.data(), huge.data(), bytes.size());
  });
  ASSERT_FALSE(HasFatalFailure());
  const auto refused = Train(1, PredictorKind::kLowRank);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.error().message().find("layer 1: training"),
            std::string::npos)
      << refused.error().message();
}

TEST(OrderNeuronsTest, TakesNoMoreThanItSays) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const ModelConfig& config = model->config();
  MemoryBudget unlimited(UINT64_MAX);
  auto recorder = ActivationRecorder::Create(config, 200, unlimited);
  ASSERT_TRUE(recorder);
  Running running = Start(model->path(), Options(64));
  const std::vector<TokenId> tokens = SomeTokens(200, config.vocab_size);
  ASSERT_TRUE(RecordActivations(*running.session, tokens, config.bos_id,
                                kContext, CancelToken(), {},
                                std::vector<FfnObserver*>{recorder->get()})
                  .ok());
  for (const NeuronOrder order :
       {NeuronOrder::kFrequency, NeuronOrder::kCoActivation}) {
    std::vector<std::vector<uint32_t>> orders;
    orders.reserve(config.num_layers());
    const AllocationCounter counter;
    uint64_t num_neurons = 0;
    for (uint32_t i = 0; i < config.num_layers(); ++i) {
      orders.push_back(OrderNeurons(**recorder, i, order));
      num_neurons += orders.back().size();
    }
    EXPECT_EQ(num_neurons, 3456u);
    EXPECT_GT(counter.peak_bytes(), num_neurons * sizeof(uint32_t));
    EXPECT_LE(counter.peak_bytes(), OrderBytes(config));
  }
}

TEST(TrainPredictorLimitTest, RefusesWhatCannotBe) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const TempDirectory directory;
  auto pool = ThreadPool::Create(1);
  ASSERT_TRUE(pool);
  const Recorded few = Record(*model, directory.File("out"), 90, 1000, 64);
  const auto too_few = TrainPredictor(*model, *few.spool, 0, {}, {}, **pool);
  ASSERT_FALSE(too_few);
  EXPECT_NE(too_few.error().message().find("at least 96 tokens"),
            std::string::npos);
  const Recorded enough = Record(*model, directory.File("out"), 120, 1000, 64);
  PredictorOptions options;
  options.max_share = 1e-4;
  const auto too_small =
      TrainPredictor(*model, *enough.spool, 1, {}, options, **pool);
  ASSERT_FALSE(too_small);
  EXPECT_EQ(too_small.error().code(), StatusCode::kInvalidArgument);
  CancelToken cancel;
  cancel.Cancel();
  options = {};
  options.cancel = &cancel;
  for (const PredictorKind kind :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    options.kind = kind;
    const auto stopped =
        TrainPredictor(*model, *enough.spool, 1, {}, options, **pool);
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().code(), StatusCode::kCancelled);
  }
}

}  // namespace
}  // namespace flashelm::test
