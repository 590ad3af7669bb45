#include "core/convert/synth.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "core/base/process_memory.h"
#include "core/convert/checkpoint.h"
#include "core/convert/hf_config.h"
#include "core/convert/synth_tokenizer.h"
#include "core/tokenizer.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/reference_forward.h"
#include "tests/core/test_model.h"

namespace flashelm {
namespace {

using test::RawTensor;
using test::ReadFile;
using test::TempDirectory;

OpenElmShape TinyShape() {
  OpenElmShape shape;
  shape.model_dim = 128;
  shape.num_layers = 3;
  shape.head_dim = 16;
  shape.ffn_dim_divisor = 32;
  shape.vocab_size = 700;
  shape.max_context = 128;
  return shape;
}

SynthOptions Tiny() {
  SynthOptions options;
  options.shape = TinyShape();
  options.num_threads = 2;
  return options;
}

SynthOptions Published(std::string_view name, ElementType dtype) {
  SynthOptions options;
  const auto shape = PublishedShape(name);
  EXPECT_TRUE(shape);
  options.shape = *shape;
  options.dtype = dtype;
  return options;
}

// A run of layers that have as many heads.
struct HeadRun {
  uint32_t num_layers;
  uint32_t num_heads;
};

struct PublishedCase {
  const char* name;
  uint64_t num_params;
  size_t num_tensors;
  std::vector<HeadRun> heads;
  std::vector<uint32_t> ffn_dims;
};

// The models' own configurations, not the rule that they follow from.
const PublishedCase kPublished[] = {
    {"270M",
     271'527'168,
     130,
     {{5, 12}, {7, 16}, {4, 20}},
     {768, 1024, 1280, 1536, 1792, 2048, 2560, 2816, 3072, 3328, 3584, 3840,
      4352, 4608, 4864, 5120}},
    {"450M",
     457'179'136,
     162,
     {{3, 12}, {7, 16}, {6, 20}, {4, 24}},
     {768,  1024, 1280, 1536, 1792, 2304, 2560, 2816, 3072, 3328,
      3584, 3840, 4096, 4352, 4608, 5120, 5376, 5632, 5888, 6144}},
    {"1.1B",
     1'079'891'456,
     226,
     {{3, 16}, {7, 20}, {8, 24}, {6, 28}, {4, 32}},
     {1024, 1280, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3328,
      3584, 3840, 4096, 4608, 4608, 5120, 5376, 5632, 5888, 6144,
      6400, 6656, 6912, 7168, 7424, 7680, 7936, 8192}},
    {"3B",
     3'036'647'424,
     290,
     {{4, 12}, {14, 16}, {12, 20}, {6, 24}},
     {1536, 1792,  2048,  2560,  2816,  3072,  3328,  3584,  4096,
      4352, 4608,  4864,  5120,  5632,  5888,  6144,  6400,  6656,
      7168, 7424,  7680,  7936,  8192,  8704,  8960,  9216,  9472,
      9728, 10240, 10496, 10752, 11008, 11264, 11776, 12032, 12288}},
};

TEST(OpenElmShapesTest, PublishedShapesHaveTheWidthsOfTheReleasedModels) {
  for (const PublishedCase& model : kPublished) {
    SCOPED_TRACE(model.name);
    const auto plan = PlanSynth(Published(model.name, ElementType::kBf16));
    ASSERT_TRUE(plan) << plan.error().message();
    const ModelConfig& config = plan->config;
    EXPECT_EQ(config.num_params(), model.num_params);
    EXPECT_EQ(config.vocab_size, 32000u);
    EXPECT_EQ(config.max_context, 2048u);
    EXPECT_EQ(ListTensors(config).size(), model.num_tensors);
    ASSERT_EQ(config.num_layers(), model.ffn_dims.size());
    uint32_t layer = 0;
    for (const HeadRun& run : model.heads) {
      for (uint32_t i = 0; i < run.num_layers; ++i, ++layer) {
        SCOPED_TRACE(layer);
        ASSERT_LT(layer, config.num_layers());
        EXPECT_EQ(config.layers[layer].num_heads, run.num_heads);
        EXPECT_EQ(config.layers[layer].num_kv_heads, run.num_heads / 4);
        EXPECT_EQ(config.layers[layer].ffn_dim, model.ffn_dims[layer]);
      }
    }
    EXPECT_EQ(layer, config.num_layers());
    EXPECT_EQ(plan->tensor_bytes, 2 * model.num_params);
  }
  EXPECT_EQ(PublishedShape("7B").error().code(), StatusCode::kInvalidArgument);
}

TEST(OpenElmShapesTest, ConfigStatesTheMultipliersOfTheReleasedFiles) {
  const auto config =
      MakeHfConfig(*PublishedShape("270M"), "swish", "bfloat16");
  ASSERT_TRUE(config);
  EXPECT_EQ((*config)["ffn_multipliers"],
            Json({0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83,
                  3.07, 3.3, 3.53, 3.77, 4.0}));
  EXPECT_EQ((*config)["head_dim"], 64);
  EXPECT_EQ((*config)["num_query_heads"][5], 16);
  EXPECT_EQ((*config)["torch_dtype"], "bfloat16");
}

TEST(PlanSynthTest, LargeModelsAreCutLikeTheReleasedOnes) {
  struct Case {
    ElementType dtype;
    std::vector<double> gigabytes;
    std::vector<std::string> last_tensors;  // Of all files but the last.
  };
  const std::string prefix = "transformer.layers.";
  const Case cases[] = {
      {ElementType::kBf16, {4.944, 1.129}, {prefix + "31.ffn.proj_1.weight"}},
      {ElementType::kF32,
       {4.983, 4.904, 2.259},
       {prefix + "20.attn.out_proj.weight", prefix + "31.ffn.proj_1.weight"}},
  };
  for (const Case& c : cases) {
    const auto plan = PlanSynth(Published("3B", c.dtype));
    ASSERT_TRUE(plan) << plan.error().message();
    const size_t num_files = c.gigabytes.size();
    ASSERT_EQ(plan->weights.size(), num_files);
    const Json index = Json::parse(plan->texts[0].text);
    EXPECT_EQ(plan->texts[0].name, "model.safetensors.index.json");
    EXPECT_EQ(index["metadata"]["total_size"],
              uint64_t{3'036'647'424} * ElementBytes(c.dtype));
    EXPECT_EQ(index["weight_map"].size(), 290u);
    for (size_t i = 0; i < num_files; ++i) {
      const SynthFile& file = plan->weights[i];
      EXPECT_EQ(file.name, "model-0000" + std::to_string(i + 1) + "-of-0000" +
                               std::to_string(num_files) + ".safetensors");
      EXPECT_NEAR(static_cast<double>(file.num_bytes) / 1e9, c.gigabytes[i],
                  0.0005);
      if (i + 1 < num_files) {
        EXPECT_EQ(index["weight_map"][c.last_tensors[i]], file.name);
      }
    }
    // The tensor behind the cut.
    EXPECT_EQ(index["weight_map"][prefix + "31.ffn.proj_2.weight"],
              plan->weights.back().name);
  }
  for (const char* name : {"270M", "450M", "1.1B"}) {
    const auto plan = PlanSynth(Published(name, ElementType::kF32));
    ASSERT_TRUE(plan);
    ASSERT_EQ(plan->weights.size(), 1u) << name;
    EXPECT_EQ(plan->weights[0].name, "model.safetensors");
  }
}

struct BadCase {
  const char* name;
  std::function<void(SynthOptions&)> change;
  const char* message;  // A part of it.
};

TEST(PlanSynthTest, RefusesOptionsThatMakeNoModel) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto relu = [](std::optional<double> fraction,
                       std::optional<double> locality) {
    return [=](SynthOptions& o) {
      o.activation = "relu";
      o.active_fraction = fraction;
      o.locality = locality;
    };
  };
  const BadCase cases[] = {
      {"dtype", [](SynthOptions& o) { o.dtype = ElementType::kF16; }, "BF16"},
      {"activation", [](SynthOptions& o) { o.activation = "gelu"; },
       "\"gelu\", expected \"swish\" or \"relu\""},
      {"fraction of swish", [](SynthOptions& o) { o.active_fraction = 0.1; },
       "swish has no inactive neurons"},
      {"locality of swish", [](SynthOptions& o) { o.locality = 0.3; },
       "swish has no inactive neurons"},
      {"fraction 0", relu(0.0, {}), "more than 0 and less than 1"},
      {"fraction 1", relu(1.0, {}), "more than 0 and less than 1"},
      {"fraction below 0", relu(-0.1, {}), "more than 0 and less than 1"},
      {"fraction NaN", relu(nan, {}), "more than 0 and less than 1"},
      {"locality too small", relu(0.5, 0.3), "expected at least 0.333"},
      {"locality 1", relu(0.1, 1.0), "less than 1"},
      {"locality NaN", relu(0.1, nan), "expected at least 0.0526"},
      {"no layers", [](SynthOptions& o) { o.shape.num_layers = 0; }, "layers"},
      {"many layers", [](SynthOptions& o) { o.shape.num_layers = 1u << 31; },
       "layers"},
      {"no width", [](SynthOptions& o) { o.shape.model_dim = 0; }, "model_dim"},
      {"small vocabulary", [](SynthOptions& o) { o.shape.vocab_size = 259; },
       "expected 260"},
      {"large vocabulary", [](SynthOptions& o) { o.shape.vocab_size = 200000; },
       "131072"},
  };
  for (const BadCase& c : cases) {
    SCOPED_TRACE(c.name);
    SynthOptions options = Tiny();
    c.change(options);
    const TempDirectory parent;
    const auto written = WriteSynth(parent.File("out"), options);
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(written.error().message().find(c.message), std::string::npos)
        << written.error().message();
    EXPECT_TRUE(parent.List().empty());
  }
}

TEST(PlanSynthTest, DefaultsOfReluAreAlwaysPossible) {
  for (const double fraction : {0.001, 0.1, 0.45, 0.5, 0.9, 0.999}) {
    SynthOptions options = Tiny();
    options.activation = "relu";
    options.active_fraction = fraction;
    const auto plan = PlanSynth(options);
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_EQ(plan->active_fraction, fraction);
  }
}

TEST(NormalTest, QuantilesInvertTheDistribution) {
  EXPECT_NEAR(NormalThreshold(0.025), 1.9599639845400545, 1e-12);
  for (const double p : {1e-9, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-6}) {
    EXPECT_NEAR(NormalAbove(NormalThreshold(p)) / p, 1, 1e-10) << p;
  }
}

TEST(NormalTest, BothAboveMatchesWhatIsKnown) {
  const double right_angle = std::numbers::pi / 2;
  for (const double p : {0.01, 0.1, 0.5, 0.8}) {
    const double threshold = NormalThreshold(p);
    EXPECT_NEAR(BothAbove(threshold, 0), p * p, 1e-12);
    EXPECT_NEAR(BothAbove(threshold, right_angle), p, 1e-6);
  }
  // Sheppard's formula at threshold 0.
  EXPECT_NEAR(BothAbove(0, 0.7), 0.25 + 0.7 / (2 * std::numbers::pi), 1e-12);
}

TEST(NormalTest, NumbersAreNormalAndDependOnKeyAndIndexAlone) {
  const NormalSource source;
  std::vector<float> all(1u << 20);
  const uint64_t key = RandomKey(1, "a tensor");
  source.Fill(key, 0, 2.0f, all);
  double moments[5] = {};
  double neighbours = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const double x = static_cast<double>(all[i]) / 2;
    for (int m = 1; m < 5; ++m) moments[m] += std::pow(x, m);
    if (i > 0) neighbours += x * static_cast<double>(all[i - 1]) / 2;
  }
  const auto n = static_cast<double>(all.size());
  EXPECT_NEAR(moments[1] / n, 0, 0.005);
  EXPECT_NEAR(moments[2] / n, 1, 0.01);
  EXPECT_NEAR(moments[3] / n, 0, 0.02);
  EXPECT_NEAR(moments[4] / n, 2.99, 0.05);
  EXPECT_NEAR(neighbours / n, 0, 0.005);
  for (const size_t first : {0u, 1u, 2u, 77u, 1000u}) {
    for (const size_t count : {0u, 1u, 2u, 3u, 64u}) {
      std::vector<float> part(count);
      source.Fill(key, first, 2.0f, part);
      EXPECT_TRUE(
          std::equal(part.begin(), part.end(), all.begin() + ptrdiff_t(first)));
    }
  }
  EXPECT_NE(RandomKey(1, "a tensor"), RandomKey(2, "a tensor"));
  EXPECT_NE(RandomKey(1, "a tensor"), RandomKey(1, "another"));
}

// Names and bytes of all files.
std::map<std::string, std::string> ReadAll(const TempDirectory& directory) {
  std::map<std::string, std::string> out;
  for (const std::string& name : directory.List()) {
    out[name] = ReadFile(directory.File(name));
  }
  return out;
}

std::map<std::string, std::string> WriteAndRead(const SynthOptions& options) {
  const TempDirectory directory;
  const auto written = WriteSynth(directory.path(), options);
  EXPECT_TRUE(written) << written.error().message();
  const auto files = ReadAll(directory);
  uint64_t total = 0;
  for (const auto& [name, bytes] : files) total += bytes.size();
  if (written) {
    EXPECT_EQ(total, written->total_bytes());
  }
  return files;
}

TEST(WriteSynthTest, EqualOptionsGiveEqualBytesAndOtherSeedsOthers) {
  for (const char* activation : {"swish", "relu"}) {
    SynthOptions options = Tiny();
    options.activation = activation;
    const auto files = WriteAndRead(options);
    EXPECT_EQ(files.size(), 4u);
    options.num_threads = 1;
    EXPECT_EQ(WriteAndRead(options), files);
    options.seed = 2;
    EXPECT_NE(WriteAndRead(options).at("model.safetensors"),
              files.at("model.safetensors"));
  }
}

// All tensors of a checkpoint as f32.
std::vector<RawTensor> ReadTensors(const std::string& directory) {
  std::vector<RawTensor> out;
  const auto checkpoint = Checkpoint::Open(directory);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message();
  if (!checkpoint) return out;
  for (const auto& [name, found] : checkpoint->tensors()) {
    std::vector<float> values(found.tensor->num_elements);
    EXPECT_TRUE(found.file->ReadF32(*found.tensor, 0, values).ok());
    out.push_back(
        {name, "F32", found.tensor->shape, test::EncodeValues(values, "F32")});
  }
  return out;
}

TEST(WriteSynthTest, Bf16WeightsAreTheRoundedF32Ones) {
  SynthOptions options = Tiny();
  const TempDirectory narrow;
  ASSERT_TRUE(WriteSynth(narrow.path(), options));
  options.dtype = ElementType::kF32;
  const TempDirectory wide;
  ASSERT_TRUE(WriteSynth(wide.path(), options));
  const auto narrow_tensors = ReadTensors(narrow.path());
  const auto wide_tensors = ReadTensors(wide.path());
  ASSERT_EQ(narrow_tensors.size(), wide_tensors.size());
  for (size_t i = 0; i < wide_tensors.size(); ++i) {
    const auto* values =
        reinterpret_cast<const float*>(wide_tensors[i].bytes.data());
    const size_t count = wide_tensors[i].bytes.size() / sizeof(float);
    const std::string rounded =
        test::EncodeValues(std::span(values, count), "BF16");
    const auto* narrow_values =
        reinterpret_cast<const float*>(narrow_tensors[i].bytes.data());
    EXPECT_EQ(test::EncodeValues(std::span(narrow_values, count), "BF16"),
              rounded)
        << wide_tensors[i].name;
  }
}

TEST(WriteSynthTest, FilesSayThatTheWeightsAreRandom) {
  SynthOptions options = Tiny();
  options.activation = "relu";
  options.shape_name = "tiny";
  const auto files = WriteAndRead(options);
  const std::string& readme = files.at("README.md");
  EXPECT_NE(readme.find("Random weights"), std::string::npos);
  EXPECT_NE(readme.find("OpenELM-tiny"), std::string::npos);
  EXPECT_NE(files.at("model.safetensors").find("random weights"),
            std::string::npos);
  const Json note = Json::parse(files.at("config.json"))["flashelm_synth"];
  EXPECT_NE(note["note"].get<std::string>().find("random"), std::string::npos);
  EXPECT_EQ(note["seed"], 1);
  EXPECT_EQ(note["active_fraction"], 0.1);
  EXPECT_EQ(note["locality"], 0.3);
}

TEST(WriteSynthTest, ShardsConvertAndRunLikeOneFile) {
  for (const char* activation : {"swish", "relu"}) {
    SCOPED_TRACE(activation);
    SynthOptions options = Tiny();
    options.activation = activation;
    const TempDirectory single;
    ASSERT_TRUE(WriteSynth(single.path(), options));
    options.max_shard_bytes = 300'000;
    const TempDirectory sharded;
    const auto plan = WriteSynth(sharded.path(), options);
    ASSERT_TRUE(plan);
    EXPECT_GT(plan->weights.size(), 2u);
    EXPECT_EQ(plan->weights.size() + plan->texts.size(), sharded.List().size());

    std::vector<float> logits[2];
    const std::vector<TokenId> tokens = test::SomeTokens(40, 700);
    for (const int i : {0, 1}) {
      const test::ConvertedModel model((i == 0 ? single : sharded).path(),
                                       Encoding::kF32);
      EngineOptions engine;
      engine.plan.all_logits = true;
      engine.plan.budget_bytes = test::SmallestBudget(model.path(), engine);
      const test::Running running = test::Start(model.path(), engine);
      ASSERT_NE(running.session, nullptr);
      logits[i] = test::AllLogits(*running.session, tokens, 700);
    }
    EXPECT_EQ(logits[0], logits[1]);
    const Json config = Json::parse(ReadFile(single.File("config.json")));
    const Eigen::MatrixXd expected =
        test::ReferenceLogits(config, ReadTensors(single.path()), tokens);
    ASSERT_EQ(logits[0].size(), static_cast<size_t>(expected.size()));
    double squares = 0;
    for (Eigen::Index t = 0; t < expected.rows(); ++t) {
      for (Eigen::Index v = 0; v < expected.cols(); ++v) {
        const float value =
            logits[0][static_cast<size_t>(t * expected.cols() + v)];
        EXPECT_NEAR(static_cast<double>(value), expected(t, v), 1e-3);
        squares += expected(t, v) * expected(t, v);
      }
    }
    const double deviation =
        std::sqrt(squares / static_cast<double>(expected.size()));
    EXPECT_GT(deviation, 1.5);
    EXPECT_LT(deviation, 2.5);
  }
}

// What the gates of a checkpoint do in the reference forward pass.
struct Activity {
  std::vector<double> fractions;   // Mean over tokens, by layer.
  std::vector<double> localities;  // Mean over pairs of neighbours, by layer.
};
Activity Measure(const std::string& directory,
                 std::span<const TokenId> tokens) {
  const Json config = Json::parse(ReadFile(directory + "/config.json"));
  const auto num_layers = config["num_transformer_layers"].get<size_t>();
  const auto num_tokens = static_cast<double>(tokens.size());
  Activity out;
  out.fractions.resize(num_layers);
  out.localities.resize(num_layers);
  std::vector<bool> before;
  const auto observe = [&](uint32_t layer, uint32_t token,
                           const Eigen::VectorXd& gates) {
    std::vector<bool> active;
    double num_active = 0;
    double num_both = 0;
    double num_either = 0;
    for (Eigen::Index i = 0; i < gates.size(); ++i) {
      EXPECT_TRUE(std::isfinite(gates[i]));
      active.push_back(gates[i] > 0);
      const bool was = token > 0 && before[static_cast<size_t>(i)];
      num_active += active.back();
      num_both += active.back() && was;
      num_either += active.back() || was;
    }
    out.fractions[layer] +=
        num_active / static_cast<double>(gates.size()) / num_tokens;
    if (token > 0) {
      out.localities[layer] +=
          num_both / std::max(1.0, num_either) / (num_tokens - 1);
    }
    before = std::move(active);
  };
  const Eigen::MatrixXd logits =
      test::ReferenceLogits(config, ReadTensors(directory), tokens, observe);
  EXPECT_TRUE(logits.allFinite());
  return out;
}

struct ActivityCase {
  const char* name;
  double fraction;
  double locality;
};
class SynthActivityTest : public testing::TestWithParam<ActivityCase> {};

TEST_P(SynthActivityTest, EveryLayerHasTheActivityAskedFor) {
  SynthOptions options;
  options.shape = TinyShape();
  options.shape.model_dim = 256;
  options.shape.num_layers = 4;
  options.shape.head_dim = 32;
  options.activation = "relu";
  options.active_fraction = GetParam().fraction;
  options.locality = GetParam().locality;
  const TempDirectory directory;
  ASSERT_TRUE(WriteSynth(directory.path(), options));
  std::vector<TokenId> tokens(64);  // All different.
  for (TokenId i = 0; i < tokens.size(); ++i) tokens[i] = 37 * i % 700;
  const Activity activity = Measure(directory.path(), tokens);
  for (size_t layer = 0; layer < activity.fractions.size(); ++layer) {
    SCOPED_TRACE(layer);
    EXPECT_NEAR(activity.fractions[layer], GetParam().fraction,
                0.15 * GetParam().fraction);
    EXPECT_NEAR(activity.localities[layer], GetParam().locality,
                0.15 * GetParam().locality);
    RecordProperty("layer" + std::to_string(layer),
                   std::to_string(activity.fractions[layer]) + " " +
                       std::to_string(activity.localities[layer]));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets, SynthActivityTest,
    testing::Values(ActivityCase{"FewWithSomeInCommon", 0.1, 0.3},
                    ActivityCase{"FewUnrelated", 0.1, 0.06},
                    ActivityCase{"VeryFewNearlyTheSame", 0.05, 0.7},
                    ActivityCase{"HalfOfThem", 0.5, 0.5}),
    [](const auto& test) { return test.param.name; });

TEST(WriteSynthTest, LeavesADirectoryWithFilesAsItWas) {
  const TempDirectory directory;
  test::WriteFile(directory.File("mine"), "precious");
  const auto written = WriteSynth(directory.path(), Tiny());
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(written.error().message().find("not empty"), std::string::npos);
  EXPECT_EQ(ReadAll(directory),
            (std::map<std::string, std::string>{{"mine", "precious"}}));
  EXPECT_EQ(WriteSynth(directory.File("mine"), Tiny()).error().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteSynth(directory.File("no/such/parent"), Tiny()).error().code(),
            StatusCode::kNotFound);
  EXPECT_EQ(WriteSynth("", Tiny()).error().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(directory.List().size(), 1u);
}

TEST(WriteSynthTest, RefusesWhatTheDiskCannotHoldBeforeWriting) {
  SynthOptions options = Tiny();
  options.shape.model_dim = 1u << 16;
  options.shape.num_layers = 1024;
  options.shape.head_dim = 1024;
  const TempDirectory parent;
  bool has_written = false;
  options.progress = [&](uint64_t, uint64_t) { has_written = true; };
  const auto written = WriteSynth(parent.File("out"), options);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(written.error().message().find("free"), std::string::npos);
  EXPECT_FALSE(has_written);
  EXPECT_TRUE(parent.List().empty());
}

TEST(WriteSynthTest, CancelledAnywhereLeavesNothing) {
  SynthOptions options = Tiny();
  options.max_shard_bytes = 600'000;
  const TempDirectory parent;
  const TempDirectory existing;
  // Blocks are as many as tensors here; past the last, nothing is cancelled.
  for (const int after : {0, 1, 13, 25}) {
    SCOPED_TRACE(after);
    CancelToken cancel;
    options.cancel = &cancel;
    uint64_t threshold = 0;
    options.progress = [&](uint64_t done, uint64_t total) {
      threshold = total * static_cast<uint64_t>(after) / 26;
      if (done >= threshold) cancel.Cancel();
    };
    if (after == 0) cancel.Cancel();
    for (const std::string& path : {parent.File("out"), existing.path()}) {
      const auto written = WriteSynth(path, options);
      ASSERT_FALSE(written);
      EXPECT_EQ(written.error().code(), StatusCode::kCancelled);
    }
    EXPECT_TRUE(parent.List().empty());
    EXPECT_TRUE(existing.List().empty());
  }
}

TEST(WriteSynthTest, ProgressReachesTheTotal) {
  SynthOptions options = Tiny();
  uint64_t last = 0;
  uint64_t total_bytes = 0;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    last = done;
    total_bytes = total;
  };
  const TempDirectory directory;
  const auto written = WriteSynth(directory.path(), options);
  ASSERT_TRUE(written);
  EXPECT_EQ(last, written->tensor_bytes);
  EXPECT_EQ(total_bytes, written->tensor_bytes);
}

TEST(WriteSynthTest, TakesLittleMemoryForAWideModel) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  if (!ReadProcessMemory()) GTEST_SKIP() << "no peak memory on this platform";
  // In a child process, so that only this counts. 210 MB of weights.
  const TempDirectory directory;
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    SynthOptions options = Tiny();
    options.shape.model_dim = 3072;
    options.shape.num_layers = 2;
    options.shape.head_dim = 128;
    options.activation = "relu";
    const auto written = WriteSynth(directory.path(), options);
    if (!written || written->tensor_bytes < 200'000'000) _exit(1);
    const uint64_t peak = ReadProcessMemory()->peak_resident_bytes;
    _exit(write(fds[1], &peak, sizeof(peak)) == sizeof(peak) ? 0 : 2);
  }
  close(fds[1]);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  uint64_t peak = 0;
  EXPECT_EQ(read(fds[0], &peak, sizeof(peak)), ssize_t{sizeof(peak)});
  close(fds[0]);
  EXPECT_GT(peak, 0u);
  EXPECT_LE(peak, 64u << 20);
  RecordProperty("peak_resident_bytes", std::to_string(peak));
}

Tokenizer MakeTokenizer(uint32_t vocab_size) {
  const auto bytes = MakeTokenizerModel(vocab_size);
  EXPECT_TRUE(bytes) << bytes.error().message();
  auto tokenizer = Tokenizer::Parse(*bytes, "made");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), vocab_size);
  return std::move(*tokenizer);
}

TEST(SynthTokenizerTest, AnyTextComesBackAtAnySize) {
  const std::string texts[] = {
      "Once upon a time there was a little girl.",
      "  two  spaces\tand\ttabs\n\nand lines\r\n",
      "1234567890 3.14159 2026-01-01",
      "Z\xC3\xBCrich \xE2\x82\xAC 5 \xF0\x9F\x98\x80 \xE4\xBD\xA0\xE5\xA5\xBD",
      "int main(void) { return a[i] << 2 != 0x1F; }  // ~`@#$%^&*|\\\"'",
      "</s> <unk> <0x0A>",
      std::string(40, ' '),
      "",
  };
  for (const uint32_t size : {260u, 261u, 300u, 700u, 5000u, 32000u, 131072u}) {
    SCOPED_TRACE(size);
    const Tokenizer tokenizer = MakeTokenizer(size);
    for (const std::string& text : texts) {
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, true)), text);
    }
  }
}

TEST(SynthTokenizerTest, LaysItsPiecesOutLikeLlama) {
  const Tokenizer tokenizer = MakeTokenizer(32000);
  EXPECT_EQ(tokenizer.unk_id(), 0u);
  EXPECT_EQ(tokenizer.bos_id(), 1u);
  EXPECT_EQ(tokenizer.eos_id(), 2u);
  EXPECT_EQ(tokenizer.piece(3 + '\n'), "<0x0A>");
  EXPECT_EQ(tokenizer.Encode("", true), std::vector<TokenId>{1});
  EXPECT_EQ(tokenizer.longest_piece_bytes(), 48u);
  std::string all_ids_have_text;
  for (TokenId id = 3; id < tokenizer.vocab_size(); ++id) {
    EXPECT_FALSE(tokenizer.piece(id).empty());
    EXPECT_FALSE(tokenizer.IsControl(id));
    if (id < 259) continue;
    const std::string_view piece = tokenizer.piece(id);
    EXPECT_TRUE(piece.size() == 1 ||
                piece.find_first_of("0123456789\t\n") == std::string_view::npos)
        << piece;
  }
}

TEST(SynthTokenizerTest, EncodesEnglishInWords) {
  const Tokenizer tokenizer = MakeTokenizer(32000);
  const auto count = [&](std::string_view text) {
    return tokenizer.Encode(text, false).size();
  };
  EXPECT_EQ(count("once upon a time there was a little girl"), 9u);
  EXPECT_EQ(count("The people"), 2u);
  EXPECT_LE(count("extraordinary circumstances"), 10u);
  EXPECT_EQ(count("1234"), 5u);
  // Near what trained tokenizers need.
  const std::string books =
      ReadFile(FLASHELM_SOURCE_DIR "/tests/data/books.txt").substr(0, 100000);
  const double bytes_per_token =
      static_cast<double>(books.size()) / static_cast<double>(count(books));
  EXPECT_GT(bytes_per_token, 2.5);
  RecordProperty("bytes_per_token", std::to_string(bytes_per_token));
}

TEST(SynthTokenizerTest, EqualSizesGiveEqualBytes) {
  EXPECT_EQ(*MakeTokenizerModel(32000), *MakeTokenizerModel(32000));
}

}  // namespace
}  // namespace flashelm
