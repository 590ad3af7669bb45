// A model before it is converted, against the file that conversion makes.
#include "core/convert/planned_model.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include "core/convert/openelm_shapes.h"
#include "core/convert/synth.h"
#include "core/memory_plan.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

std::map<std::string, uint64_t> LinesOf(const MemoryPlan& plan) {
  std::map<std::string, uint64_t> lines;
  for (const PlanLine& line : plan.lines) lines[line.name] = line.bytes;
  return lines;
}

// All lines of both plans agree; that of the manifest as far as the source's
// checksums leave it open.
void ExpectSamePlans(const ModelFile& planned, const ModelFile& file) {
  EXPECT_EQ(planned.config().num_params(), file.config().num_params());
  EXPECT_EQ(planned.weights_name(), file.weights_name());
  const auto bytes = static_cast<double>(file.file_bytes());
  EXPECT_NEAR(static_cast<double>(planned.file_bytes()), bytes, 4096);
  PlanOptions options;
  options.whole_process = false;
  options.num_threads = 2;
  for (const uint64_t more : {uint64_t{64} << 10, kUnlimitedBytes / 2}) {
    options.budget_bytes = kUnlimitedBytes;
    const auto whole = MakePlan(file, options);
    ASSERT_TRUE(whole);
    options.budget_bytes = whole->minimum_bytes + more;
    const auto expected = MakePlan(file, options);
    const auto found = MakePlan(planned, options);
    ASSERT_TRUE(expected);
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_NEAR(static_cast<double>(found->minimum_bytes),
                static_cast<double>(expected->minimum_bytes), 16384);
    auto expected_lines = LinesOf(*expected);
    auto found_lines = LinesOf(*found);
    const auto directory = [](const auto& lines) {
      return static_cast<double>(lines.at("model directory"));
    };
    EXPECT_NEAR(directory(found_lines), directory(expected_lines), 16384);
    // What the directory leaves goes to weights.
    for (const char* name : {"model directory", "resident weights"}) {
      expected_lines.erase(name);
      found_lines.erase(name);
    }
    EXPECT_EQ(found_lines, expected_lines);
    EXPECT_NEAR(static_cast<double>(found->streamed_bytes_per_token),
                static_cast<double>(expected->streamed_bytes_per_token), 32768);
  }
}

ConvertOptions Options(Encoding weights) {
  ConvertOptions options;
  options.weights = weights;
  return options;
}

TEST(PlannedModelTest, PlansWhatTheConvertedFileDoes) {
  const std::string source = SampleModelDirectory("tiny-stories");
  const TempDirectory directory;
  for (const Encoding weights : TestedEncodings()) {
    for (const bool rows : {false, true}) {
      ConvertOptions options = Options(weights);
      options.rows = rows;
      options.embedding = Encoding::kBf16;
      const std::string path = directory.File("model.felm");
      const auto report = Convert(source, path, options);
      ASSERT_TRUE(report) << report.error().message();
      const auto file = ModelFile::Open(path);
      const auto planned = PlanModelFileAt(source, options);
      ASSERT_TRUE(file && planned);
      ExpectSamePlans(*planned, *file);
    }
  }
}

TEST(PlannedModelTest, KnowsASynthModelByItsConfigAlone) {
  SynthOptions synth;
  synth.shape.model_dim = 128;
  synth.shape.num_layers = 3;
  synth.shape.head_dim = 32;
  synth.shape.ffn_dim_divisor = 64;
  synth.shape.vocab_size = 1000;
  synth.shape.max_context = 64;
  const TempDirectory directory;
  const std::string source = directory.File("synth");
  ASSERT_TRUE(WriteSynth(source, synth));
  const std::string path = directory.File("model.felm");
  ASSERT_TRUE(Convert(source, path, Options(Encoding::kQ4)));
  const auto file = ModelFile::Open(path);
  ASSERT_TRUE(file);
  // Its tokenizer is one that is made up for the size of its vocabulary.
  const auto planned = PlanModelFile(ReadFile(source + "/config.json"),
                                     "config.json", Options(Encoding::kQ4));
  ASSERT_TRUE(planned) << planned.error().message();
  ExpectSamePlans(*planned, *file);
}

TEST(PlannedModelTest, PublishedShapesHaveTheirPublishedSizes) {
  const std::map<std::string, uint64_t> params = {{"270M", 271'527'168},
                                                  {"450M", 457'179'136},
                                                  {"1.1B", 1'079'891'456},
                                                  {"3B", 3'036'647'424}};
  for (const auto& [shape, count] : params) {
    const auto planned = PlanModelFileOfShape(shape, Options(Encoding::kBf16));
    ASSERT_TRUE(planned) << planned.error().message();
    EXPECT_EQ(planned->config().num_params(), count);
    EXPECT_GT(planned->file_bytes(), 2 * count);
    EXPECT_LT(planned->file_bytes(), 2 * count + (4u << 20));
  }
  EXPECT_FALSE(PlanModelFileOfShape("7B", Options(Encoding::kBf16)));
}

TEST(PlannedModelTest, SlotsAreLargeWhereLittleStreams) {
  const auto model = PlanModelFileOfShape("270M", Options(Encoding::kBf16));
  ASSERT_TRUE(model);
  PlanOptions options;
  options.context = 128;
  // Not beside a sanitizer's code and stacks.
  options.whole_process = false;
  options.io = IoBackend::kUring;
  const auto slots = [&](double part) {
    options.budget_bytes =
        static_cast<uint64_t>(part * static_cast<double>(model->file_bytes()));
    const auto made = MakePlan(*model, options);
    EXPECT_TRUE(made) << made.error().message();
    if (!made) return std::pair<uint64_t, uint64_t>();
    const MemoryPlan& plan = *made;
    // About as many bytes as slots of that size have whole units.
    return std::pair<uint64_t, uint64_t>(
        plan.residency.num_slots,
        (plan.residency.slot_bytes + (128u << 10)) >> 18);
  };
  EXPECT_EQ(slots(0.95), std::pair(uint64_t{12}, uint64_t{4}));
  EXPECT_EQ(slots(0.5), std::pair(uint64_t{32}, uint64_t{2}));
  EXPECT_EQ(slots(0.25), std::pair(uint64_t{48}, uint64_t{2}));
  EXPECT_EQ(slots(0.1), std::pair(uint64_t{44}, uint64_t{1}));
}

TEST(PlannedModelTest, TheRingIsLargerWhereMuchStreams) {
  constexpr uint64_t kMib = uint64_t{1} << 20;
  for (const Encoding encoding : {Encoding::kBf16, Encoding::kQ4}) {
    const auto model = PlanModelFileOfShape("3B", Options(encoding));
    ASSERT_TRUE(model);
    PlanOptions options;
    // Not beside a sanitizer's code and stacks.
    options.whole_process = false;
    options.io = IoBackend::kUring;
    options.context = 512;
    const auto plan_within = [&](uint64_t bytes) {
      options.budget_bytes = bytes;
      auto plan = MakePlan(*model, options);
      EXPECT_TRUE(plan) << plan.error().message();
      EXPECT_LE(plan->total_bytes, options.budget_bytes);
      return std::move(*plan);
    };
    const auto plan_with = [&](uint64_t percent) {
      return plan_within(model->file_bytes() / 100 * percent);
    };
    const auto fixed_bytes = [&](const MemoryPlan& plan) {
      return plan.total_bytes - plan.kv_cache_bytes -
             plan.residency.ResidentBytes(model->weight_file().segments());
    };
    for (const uint64_t percent : {25, 50, 75}) {
      const MemoryPlan plan = plan_with(percent);
      const uint64_t ring = plan.residency.RingBytes();
      // Slots are whole units of records, somewhat less than half a MiB.
      EXPECT_GT(plan.residency.num_slots, 24u) << percent;
      EXPECT_GT(ring, 12 * kMib) << percent;
      EXPECT_LE(ring, 24 * kMib) << percent;
      EXPECT_LE(ring, plan.streamed_bytes_per_token / 16) << percent;
      EXPECT_LE(fixed_bytes(plan), 64 * kMib) << percent;
    }
    // Little streams, or there is little memory.
    const MemoryPlan most = plan_with(98);
    EXPECT_LE(most.residency.RingBytes(),
              std::max(13 * kMib, most.streamed_bytes_per_token / 16));
    EXPECT_LE(plan_within(120 * kMib).residency.RingBytes(), 12 * kMib);
    // Where others take what is promised, rings are of the usual size.
    options.max_sessions = 4;
    EXPECT_EQ(plan_with(75).residency.num_slots, 24u);
  }
}

TEST(PlannedModelTest, HasNoWeights) {
  const auto planned = PlanModelFileOfShape("270M", Options(Encoding::kQ8));
  ASSERT_TRUE(planned);
  const WeightFile& file = planned->weight_file();
  std::byte page[4096];
  for (const uint64_t offset :
       {file.header().sections[kChecksums].offset_bytes,
        file.segments()[0].offset_bytes, planned->file_bytes() - 4096}) {
    const auto got = file.file().ReadAt(offset, page);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), StatusCode::kUnavailable);
  }
}

TEST(PlannedModelTest, RefusesConfigsOfNoModel) {
  OpenElmShape shape;
  shape.model_dim = 128;
  shape.num_layers = 3;
  const auto good = MakeHfConfig(shape, "swish", "bfloat16");
  ASSERT_TRUE(good);
  const auto code = [](const std::string& text) {
    const auto planned =
        PlanModelFile(text, "bad.json", Options(Encoding::kBf16));
    if (planned) return StatusCode::kOk;
    EXPECT_EQ(planned.error().message().rfind("bad.json", 0), 0u)
        << planned.error().message();
    return planned.error().code();
  };
  EXPECT_EQ(code(good->dump()), StatusCode::kOk);
  EXPECT_EQ(code(""), StatusCode::kDataLoss);
  EXPECT_EQ(code("{"), StatusCode::kDataLoss);
  EXPECT_EQ(code("\xff\xfe{}"), StatusCode::kDataLoss);
  EXPECT_EQ(code("[1]"), StatusCode::kDataLoss);
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  EXPECT_EQ(code(deep), StatusCode::kDataLoss);
  for (const char* key : {"model_dim", "head_dim", "vocab_size",
                          "num_transformer_layers", "ffn_multipliers"}) {
    Json missing = *good;
    missing.erase(key);
    EXPECT_EQ(code(missing.dump()), StatusCode::kDataLoss) << key;
    for (const Json& value :
         {Json(-1), Json(1e300), Json(UINT64_MAX), Json("many"), Json()}) {
      Json huge = *good;
      huge[key] = value;
      EXPECT_EQ(code(huge.dump()), StatusCode::kDataLoss) << key << value;
    }
  }
}

TEST(PlannedModelTest, RefusesRowsThatAreNoWholeGroups) {
  OpenElmShape shape;
  shape.model_dim = 144;
  shape.num_layers = 2;
  shape.head_dim = 16;
  shape.ffn_dim_divisor = 16;
  const auto config = MakeHfConfig(shape, "swish", "bfloat16");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_TRUE(PlanModelFile(config->dump(), "c", Options(Encoding::kBf16)));
  const auto refused =
      PlanModelFile(config->dump(), "c", Options(Encoding::kQ4));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kInvalidArgument);
}

TEST(PlannedModelTest, TellsConfigsFromModelFiles) {
  const std::string source = SampleModelDirectory("tiny-stories");
  EXPECT_TRUE(IsCheckpointConfig(source));
  EXPECT_TRUE(IsCheckpointConfig(source + "/config.json"));
  EXPECT_FALSE(IsCheckpointConfig(source + "/model.safetensors"));
  EXPECT_FALSE(IsCheckpointConfig(source + "/none"));
  const auto missing = PlanModelFileAt(testing::TempDir() + "/none/config.json",
                                       Options(Encoding::kBf16));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace flashelm::test
