#include "core/convert/convert.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

#include "core/convert/checkpoint.h"
#include "core/model_layout.h"
#include "kernels/float_types.h"
#include "kernels/quantize.h"
#include "kernels/reference.h"
#include "storage/checksum.h"
#include "storage/verify.h"
#include "storage/weight_file.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm {
namespace {

using test::CheckpointOptions;
using test::RawTensor;
using test::ReadFile;
using test::TempDirectory;
using test::WriteFile;

constexpr char kTinyStories[] = FLASHELM_SOURCE_DIR "/models/tiny-stories";

ConvertOptions Options(Encoding weights) {
  ConvertOptions options;
  options.weights = weights;
  options.converter_version = "1.2.3";
  return options;
}

// A second reader of checkpoints, as plain as can be: all values by name.
struct Values {
  std::vector<uint64_t> shape;
  std::vector<float> data;
};
std::map<std::string, Values> ReadAllTensors(const std::string& directory) {
  std::map<std::string, Values> out;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string bytes = ReadFile(entry.path());
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const Json header = Json::parse(bytes.substr(8, length));
    for (const auto& [name, tensor] : header.items()) {
      if (name == "__metadata__") continue;
      const size_t begin = tensor["data_offsets"][0];
      const size_t end = tensor["data_offsets"][1];
      const std::string data = bytes.substr(8 + length + begin, end - begin);
      Values& values = out[name];
      values.shape = tensor["shape"].get<std::vector<uint64_t>>();
      const std::string dtype = tensor["dtype"];
      const size_t size = dtype == "F32" ? 4 : 2;
      for (size_t at = 0; at < data.size(); at += size) {
        uint32_t bits = 0;
        std::memcpy(&bits, data.data() + at, size);
        if (dtype == "F32") {
          values.data.push_back(std::bit_cast<float>(bits));
        } else if (dtype == "BF16") {
          values.data.push_back(std::bit_cast<float>(bits << 16));
        } else {
          const double magnitude =
              (bits >> 10 & 31) == 0
                  ? std::ldexp(bits & 1023, -24)
                  : std::ldexp(1024 + (bits & 1023),
                               static_cast<int>(bits >> 10 & 31) - 25);
          values.data.push_back(
              static_cast<float>(bits >> 15 ? -magnitude : magnitude));
        }
      }
    }
  }
  return out;
}

// A float as bf16 keeps it, by double arithmetic: 8 bits of significand,
// nearest, ties to even. For values that stay normal.
float RoundToBf16(float value) {
  int exponent = 0;
  const double fraction = std::frexp(static_cast<double>(value), &exponent);
  return static_cast<float>(
      std::ldexp(std::nearbyint(fraction * 256.0), exponent - 8));
}

// A part of all records, straight from the file's bytes.
WeightView ViewOfPart(const std::string& bytes, const WeightFile& file,
                      const PartRef& ref) {
  const Segment& segment = file.segments()[ref.segment];
  const auto* records =
      reinterpret_cast<const std::byte*>(bytes.data()) + segment.offset_bytes;
  return {records + ref.offset_bytes, segment.stride_bytes,
          WeightTypeOf(ref.encoding), records + ref.scales_offset_bytes};
}

// Every value of a part, [records, elements].
std::vector<float> ReadPart(const std::string& bytes, const WeightFile& file,
                            const PartRef& ref) {
  const Segment& segment = file.segments()[ref.segment];
  const Part* part = nullptr;
  for (const Part& p : segment.parts) {
    if (p.offset_bytes == ref.offset_bytes) part = &p;
  }
  EXPECT_NE(part, nullptr);
  const WeightView view = ViewOfPart(bytes, file, ref);
  std::vector<float> out;
  for (uint64_t r = 0; r < segment.num_records; ++r) {
    for (uint64_t i = 0; i < part->num_elements; ++i) {
      out.push_back(reference::WeightAt(view, r, i));
    }
  }
  return out;
}

void ExpectSame(const std::vector<float>& found,
                const std::vector<float>& expected, const std::string& name) {
  ASSERT_EQ(found.size(), expected.size()) << name;
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(found[i]),
              std::bit_cast<uint32_t>(expected[i]))
        << name << " element " << i << ": " << found[i] << ", expected "
        << expected[i];
  }
}

// `values`, rows of `num_cols`, as a file of that encoding gives them back.
std::vector<float> Stored(const std::vector<float>& values, size_t num_cols,
                          Encoding encoding) {
  std::vector<float> out = values;
  if (encoding == Encoding::kBf16) {
    for (float& value : out) value = RoundToBf16(value);
  }
  if (!IsGrouped(encoding)) return out;
  const WeightType type = WeightTypeOf(encoding);
  std::vector<std::byte> row(RowBytes(type, num_cols));
  const WeightView view = ViewOfRows(row.data(), 0, type, num_cols);
  for (size_t at = 0; at < values.size(); at += num_cols) {
    QuantizeRow(type, &values[at], num_cols, row.data());
    for (size_t i = 0; i < num_cols; ++i) {
      out[at + i] = reference::WeightAt(view, 0, i);
    }
  }
  return out;
}

// The errors of quantised matrices of one kind, from their values.
struct Errors {
  double squared_error = 0;
  double squared_sum = 0;
  size_t num_weights = 0;

  void Add(const std::vector<float>& found, const std::vector<float>& source) {
    ASSERT_EQ(found.size(), source.size());
    for (size_t i = 0; i < source.size(); ++i) {
      const double error = static_cast<double>(found[i]) - source[i];
      squared_error += error * error;
      squared_sum += static_cast<double>(source[i]) * source[i];
    }
    num_weights += source.size();
  }
};

void ExpectSameErrors(const Json& quantization, const std::string& kind,
                      const Errors& errors, Encoding encoding) {
  SCOPED_TRACE(kind);
  ASSERT_EQ(quantization.contains(kind), IsGrouped(encoding));
  if (!IsGrouped(encoding)) return;
  const double mse =
      errors.squared_error / static_cast<double>(errors.num_weights);
  const double relative = errors.squared_error / errors.squared_sum;
  EXPECT_NEAR(quantization[kind]["mse"].get<double>(), mse, 1e-5 * mse);
  EXPECT_NEAR(quantization[kind]["relative"].get<double>(), relative,
              1e-5 * relative);
}

// Compares every weight of a model file with the checkpoint it came from.
void ExpectFileHoldsCheckpoint(const std::string& path,
                               const std::string& directory,
                               const MatrixEncodings& encodings) {
  auto file = WeightFile::Open(path, CacheMode::kBuffered);
  ASSERT_TRUE(file) << file.error().message();
  auto verified = VerifyFile(*file, CancelToken(), nullptr);
  ASSERT_TRUE(verified) << verified.error().message();
  auto config = ConfigFromJson(file->config(), path);
  ASSERT_TRUE(config) << config.error().message();
  auto weights = FindWeights(*config, *file);
  ASSERT_TRUE(weights) << weights.error().message();
  const std::string bytes = ReadFile(path);
  const std::map<std::string, Values> source = ReadAllTensors(directory);
  EXPECT_EQ(source.size(), 2 + 8 * config->num_layers());
  const size_t model_dim = config->model_dim;

  const auto expect = [&](const PartRef& ref, const std::string& name,
                          const std::vector<float>& values, size_t num_cols,
                          Encoding encoding, Errors& errors) {
    EXPECT_EQ(ref.encoding, encoding) << name;
    const std::vector<float> found = ReadPart(bytes, *file, ref);
    ExpectSame(found, Stored(values, num_cols, encoding), name);
    errors.Add(found, values);
  };
  Errors embedding;
  Errors attention;
  Errors ffn;
  Errors norms;
  const auto expect_norm = [&](const PartRef& ref, const std::string& name) {
    const std::vector<float>& values = source.at(name).data;
    expect(ref, name, values, values.size(), Encoding::kF32, norms);
  };
  const std::string embedding_name = "transformer.token_embeddings.weight";
  expect(weights->embedding, embedding_name, source.at(embedding_name).data,
         model_dim, encodings.embedding, embedding);
  expect_norm(weights->final_norm, "transformer.norm.weight");
  for (uint32_t i = 0; i < config->num_layers(); ++i) {
    const std::string prefix =
        StatusMessage::Join("transformer.layers.", i, ".");
    const LayerWeights& layer = weights->layers[i];
    expect_norm(layer.attention_norm, prefix + "attn_norm.weight");
    expect_norm(layer.query_norm, prefix + "attn.q_norm.weight");
    expect_norm(layer.key_norm, prefix + "attn.k_norm.weight");
    expect_norm(layer.ffn_norm, prefix + "ffn_norm.weight");
    expect(layer.qkv, prefix + "qkv",
           source.at(prefix + "attn.qkv_proj.weight").data, model_dim,
           encodings.attention, attention);
    expect(layer.attention_out, prefix + "out_proj",
           source.at(prefix + "attn.out_proj.weight").data,
           config->query_dim(config->layers[i]), encodings.attention,
           attention);
    const std::vector<float>& gate_up =
        source.at(prefix + "ffn.proj_1.weight").data;
    const Values& proj_2 = source.at(prefix + "ffn.proj_2.weight");
    const size_t ffn_dim = config->layers[i].ffn_dim;
    std::vector<float> down(proj_2.data.size());
    for (size_t d = 0; d < model_dim; ++d) {
      for (size_t n = 0; n < ffn_dim; ++n) {
        down[n * model_dim + d] = proj_2.data[d * ffn_dim + n];
      }
    }
    const auto half =
        gate_up.begin() + static_cast<std::ptrdiff_t>(gate_up.size() / 2);
    expect(layer.gate, prefix + "gate", {gate_up.begin(), half}, model_dim,
           encodings.ffn, ffn);
    expect(layer.up, prefix + "up", {half, gate_up.end()}, model_dim,
           encodings.ffn, ffn);
    expect(layer.down, prefix + "down", down, model_dim, encodings.ffn, ffn);
  }
  const Json quantization =
      file->provenance().value("quantization", Json::object());
  ExpectSameErrors(quantization, "embedding", embedding, encodings.embedding);
  ExpectSameErrors(quantization, "attention", attention, encodings.attention);
  ExpectSameErrors(quantization, "ffn", ffn, encodings.ffn);
}

constexpr Encoding kEncodings[] = {Encoding::kF32, Encoding::kBf16,
                                   Encoding::kQ8, Encoding::kQ4};

// What a file has when only `weights` is given.
MatrixEncodings Default(Encoding weights) {
  MatrixEncodings encodings = MatrixEncodings::All(weights);
  if (weights == Encoding::kQ4) encodings.embedding = Encoding::kQ8;
  return encodings;
}

TEST(ConvertTest, EveryWeightOfTheSampleModelIsInTheFile) {
  for (const Encoding encoding : kEncodings) {
    SCOPED_TRACE(EncodingName(encoding));
    TempDirectory out;
    auto report = Convert(kTinyStories, out.File("m.felm"), Options(encoding));
    ASSERT_TRUE(report) << report.error().message();
    uint64_t num_params = 0;
    for (const auto& [name, values] : ReadAllTensors(kTinyStories)) {
      num_params += values.data.size();
    }
    EXPECT_EQ(report->num_params, num_params);
    EXPECT_EQ(report->num_nonfinite, 0u);
    EXPECT_EQ(report->file_bytes, ReadFile(out.File("m.felm")).size());
    EXPECT_EQ(report->config.num_layers(), 6u);
    ExpectFileHoldsCheckpoint(out.File("m.felm"), kTinyStories,
                              Default(encoding));
    EXPECT_EQ(out.List(), std::vector<std::string>{"m.felm"});
  }
}

struct Source {
  const char* name;
  CheckpointOptions options;
};

std::vector<Source> Sources() {
  CheckpointOptions base;
  base.vocab_size = 100;
  std::vector<Source> sources;
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    sources.push_back({dtype, base});
    sources.back().options.dtype = dtype;
  }
  sources.push_back({"three shards", base});
  sources.back().options.num_shards = 3;
  sources.push_back({"one layer", base});
  sources.back().options.num_layers = 1;
  sources.push_back({"relu", base});
  sources.back().options.activation = "relu";
  // Records end between cache lines; tiles are cut on both sides.
  sources.push_back({"odd widths", base});
  sources.back().options.model_dim = 150;
  sources.back().options.head_dim = 10;
  sources.back().options.ffn_dim_divisor = 7;
  return sources;
}

TEST(ConvertTest, EveryWeightArrivesFromEveryKindOfSource) {
  for (const Source& source : Sources()) {
    TempDirectory in;
    test::WriteCheckpoint(in.path(), source.options);
    for (const Encoding encoding : kEncodings) {
      SCOPED_TRACE(
          StatusMessage::Join(source.name, " to ", EncodingName(encoding)));
      if (IsGrouped(encoding) && source.options.model_dim % 32 != 0) continue;
      TempDirectory out;
      auto report = Convert(in.path(), out.File("m.felm"), Options(encoding));
      ASSERT_TRUE(report) << report.error().message();
      EXPECT_EQ(report->config.activation, source.options.activation);
      ExpectFileHoldsCheckpoint(out.File("m.felm"), in.path(),
                                Default(encoding));
    }
  }
}

// Wide enough that a layer takes several blocks of bundles and of rows.
TEST(ConvertTest, LayersLargerThanTheWorkBuffersArriveWhole) {
  CheckpointOptions options;
  options.num_layers = 1;
  options.model_dim = 1536;
  options.head_dim = 64;
  options.vocab_size = 10;
  options.ffn_dim_divisor = 1000;
  TempDirectory in;
  Json config = test::MakeHfConfig(options);
  config["ffn_multipliers"] = {3.3};
  WriteFile(in.File("config.json"), config.dump());
  WriteFile(in.File("tokenizer.model"), "any");
  std::vector<RawTensor> tensors = test::MakeTensors(options);
  for (RawTensor& tensor : tensors) {
    const bool is_proj_1 = tensor.name.ends_with("proj_1.weight");
    if (!is_proj_1 && !tensor.name.ends_with("proj_2.weight")) continue;
    constexpr uint64_t kFfnDim = 5000;
    tensor.shape = is_proj_1 ? std::vector<uint64_t>{2 * kFfnDim, 1536}
                             : std::vector<uint64_t>{1536, kFfnDim};
    std::vector<float> values(tensor.shape[0] * tensor.shape[1]);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = 0.01f * (static_cast<float>(i) + 1.0f);
    }
    tensor.bytes = test::EncodeValues(values, "F32");
  }
  test::WriteTensors(in.path(), tensors, 1);
  for (const Encoding encoding : {Encoding::kF32, Encoding::kQ4}) {
    SCOPED_TRACE(EncodingName(encoding));
    TempDirectory out;
    auto report = Convert(in.path(), out.File("m.felm"), Options(encoding));
    ASSERT_TRUE(report) << report.error().message();
    ExpectFileHoldsCheckpoint(out.File("m.felm"), in.path(), Default(encoding));
  }
}

TEST(ConvertTest, AnyNumberOfThreadsGivesTheSameBytes) {
  TempDirectory in;
  test::WriteCheckpoint(in.path(), CheckpointOptions());
  TempDirectory out;
  for (const Encoding encoding : kEncodings) {
    SCOPED_TRACE(EncodingName(encoding));
    ConvertOptions options = Options(encoding);
    options.num_threads = 1;
    ASSERT_TRUE(Convert(in.path(), out.File("a"), options));
    for (const uint32_t num_threads : {1, 2, 7}) {
      options.num_threads = num_threads;
      ASSERT_TRUE(Convert(in.path() + "/", out.File("b"), options));
      EXPECT_TRUE(ReadFile(out.File("a")) == ReadFile(out.File("b")))
          << num_threads;
    }
  }
}

TEST(ConvertTest, EachKindOfMatrixCanHaveAnEncodingOfItsOwn) {
  TempDirectory out;
  ConvertOptions options = Options(Encoding::kQ4);
  options.embedding = Encoding::kQ4;
  ASSERT_TRUE(Convert(kTinyStories, out.File("m"), options));
  ExpectFileHoldsCheckpoint(out.File("m"), kTinyStories,
                            MatrixEncodings::All(Encoding::kQ4));
  options = Options(Encoding::kQ8);
  options.embedding = Encoding::kBf16;
  options.attention = Encoding::kF32;
  options.ffn = Encoding::kQ4;
  ASSERT_TRUE(Convert(kTinyStories, out.File("m"), options));
  ExpectFileHoldsCheckpoint(out.File("m"), kTinyStories,
                            {Encoding::kBf16, Encoding::kF32, Encoding::kQ4});
}

// The same bytes that a file of two planes would have as its coarse one.
TEST(ConvertTest, TheHighNibblesOfAQ8FileAreQ4Rows) {
  TempDirectory out;
  const std::string path = out.File("m");
  auto report = Convert(kTinyStories, path, Options(Encoding::kQ8));
  ASSERT_TRUE(report) << report.error().message();
  auto file = WeightFile::Open(path, CacheMode::kBuffered);
  ASSERT_TRUE(file);
  auto weights = FindWeights(report->config, *file);
  ASSERT_TRUE(weights);
  const std::string bytes = ReadFile(path);
  const size_t num_cols = report->config.model_dim;
  std::vector<uint8_t> row(RowBytes(WeightType::kQ4, num_cols));
  for (const PartRef& ref :
       {weights->embedding, weights->layers[1].qkv, weights->layers[2].gate,
        weights->layers[3].up, weights->layers[5].down}) {
    const WeightView q8 = ViewOfPart(bytes, *file, ref);
    for (uint64_t r = 0; r < file->segments()[ref.segment].num_records; ++r) {
      const auto* codes =
          reinterpret_cast<const int8_t*>(q8.data + r * q8.stride_bytes);
      for (size_t g = 0; g < num_cols / 32; ++g) {
        for (size_t j = 0; j < 16; ++j) {
          const auto low = static_cast<unsigned>(codes[32 * g + j] + 136) >> 4;
          const auto high =
              static_cast<unsigned>(codes[32 * g + 16 + j] + 136) >> 4;
          ASSERT_LT(low, 16u);
          ASSERT_LT(high, 16u);
          row[16 * g + j] = static_cast<uint8_t>(low | high << 4);
        }
      }
      std::memcpy(&row[num_cols / 2], q8.scales + r * q8.stride_bytes,
                  ScalesBytes(WeightType::kQ8, num_cols));
      const WeightView q4 =
          ViewOfRows(reinterpret_cast<const std::byte*>(row.data()), row.size(),
                     WeightType::kQ4, num_cols);
      for (size_t i = 0; i < num_cols; ++i) {
        const int q = codes[i];
        const int n_minus_8 = static_cast<int>(std::floor((q + 8) / 16.0));
        const float d = reference::ScaleAt(q8, r, i);
        ASSERT_EQ(reference::WeightAt(q4, 0, i),
                  static_cast<float>(16 * n_minus_8) * (d / 16));
        ASSERT_LE(std::abs(q - 16 * n_minus_8), 8);
      }
    }
  }
}

TEST(ConvertTest, RowsThatAreNoWholeGroupsCannotBeCodes) {
  CheckpointOptions narrow;
  narrow.vocab_size = 50;
  narrow.model_dim = 144;
  CheckpointOptions heads;
  heads.vocab_size = 50;
  heads.model_dim = 128;
  heads.head_dim = 10;
  const auto run = [](const CheckpointOptions& checkpoint,
                      const ConvertOptions& options) -> Status {
    TempDirectory in;
    TempDirectory out;
    test::WriteCheckpoint(in.path(), checkpoint);
    auto report = Convert(in.path(), out.File("m"), options);
    if (report) return OkStatus();
    EXPECT_EQ(report.error().code(), StatusCode::kInvalidArgument);
    EXPECT_TRUE(out.List().empty());
    return report.error();
  };
  for (const Encoding encoding : {Encoding::kQ8, Encoding::kQ4}) {
    EXPECT_NE(run(narrow, Options(encoding)).message().find("model_dim of 144"),
              std::string::npos);
    const Status status = run(heads, Options(encoding));
    EXPECT_NE(status.message().find("layers.0.query_dim of "),
              std::string::npos)
        << status.message();
    ConvertOptions ffn_only = Options(encoding);
    ffn_only.attention = Encoding::kBf16;
    EXPECT_TRUE(run(heads, ffn_only).ok());
  }
  EXPECT_NE(run(narrow, Options(Encoding::kNibble)).message().find("nibble"),
            std::string::npos);
}

TEST(ConvertTest, ShardsGiveTheWeightsOfTheSingleFile) {
  CheckpointOptions options;
  options.vocab_size = 50;
  TempDirectory single;
  test::WriteCheckpoint(single.path(), options);
  options.num_shards = 4;
  TempDirectory sharded;
  test::WriteCheckpoint(sharded.path(), options);
  TempDirectory out;
  const auto weights = [&](const char* name) {
    auto file = WeightFile::Open(out.File(name), CacheMode::kBuffered);
    EXPECT_TRUE(file);
    return ReadFile(out.File(name)).substr(file->segments()[0].offset_bytes);
  };
  for (const Encoding encoding : kEncodings) {
    ASSERT_TRUE(Convert(single.path(), out.File("a"), Options(encoding)));
    ASSERT_TRUE(Convert(sharded.path(), out.File("b"), Options(encoding)));
    EXPECT_EQ(weights("a"), weights("b"));
  }
}

TEST(ConvertTest, TheSingleFileIsUsedWhereAnIndexStandsBesideIt) {
  CheckpointOptions options;
  options.vocab_size = 50;
  TempDirectory in;
  test::WriteCheckpoint(in.path(), options);
  WriteFile(in.File("model.safetensors.index.json"), "nothing of use");
  TempDirectory out;
  EXPECT_TRUE(Convert(in.path(), out.File("m"), Options(Encoding::kBf16)));
}

TEST(ConvertTest, NamesWithoutThePrefixAndDerivedBuffersAreTaken) {
  CheckpointOptions options;
  options.vocab_size = 50;
  TempDirectory in;
  test::WriteCheckpoint(in.path(), options);
  std::vector<RawTensor> tensors = test::MakeTensors(options);
  for (RawTensor& tensor : tensors) {
    tensor.name = tensor.name.substr(std::strlen("transformer."));
  }
  tensors.push_back({"causal_mask", "BOOL", {2, 2}, "\1\0\1\1"});
  tensors.push_back(
      {"layers.0.attn.pos_embedding.inv_freq", "F32", {1}, "abcd"});
  test::WriteTensors(in.path(), tensors, 1);
  TempDirectory out;
  auto report = Convert(in.path(), out.File("m"), Options(Encoding::kBf16));
  EXPECT_TRUE(report) << report.error().message();
}

TEST(ConvertTest, ProvenanceNamesEveryFileWithSizeAndHash) {
  CheckpointOptions options;
  options.vocab_size = 50;
  options.num_shards = 2;
  TempDirectory parent;
  const std::string in = parent.File("OpenELM-tiny");
  ASSERT_EQ(mkdir(in.c_str(), 0700), 0);
  test::WriteCheckpoint(in, options);
  TempDirectory out;
  auto report = Convert(in, out.File("m"), Options(Encoding::kBf16));
  ASSERT_TRUE(report) << report.error().message();
  auto file = WeightFile::Open(out.File("m"), CacheMode::kBuffered);
  ASSERT_TRUE(file);
  Json files = Json::array();
  uint64_t source_bytes = 0;
  for (const char* name :
       {"config.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "tokenizer.model"}) {
    const std::string bytes = ReadFile(in + "/" + name);
    Xxh3Stream hash;
    hash.Update(std::as_bytes(std::span(bytes)));
    files.push_back({{"name", name},
                     {"bytes", bytes.size()},
                     {"xxh3_128", hash.Digest128Hex()}});
    source_bytes += bytes.size();
  }
  const Json expected = {
      {"converter", {{"name", "flashelm"}, {"version", "1.2.3"}}},
      {"source", "OpenELM-tiny"},
      {"files", files},
      {"weights", "bf16"}};
  EXPECT_EQ(file->provenance(), expected);
  EXPECT_EQ(report->source_bytes, source_bytes);
  EXPECT_EQ(*file->ReadTokenizer(), ReadFile(in + "/tokenizer.model"));
}

TEST(ConvertTest, TheTokenizerIsCheckedWithTheVocabulary) {
  ConvertOptions options = Options(Encoding::kBf16);
  options.tokenizer_path = std::string(kTinyStories) + "/tokenizer.model";
  std::string seen;
  options.check_tokenizer = [&](std::string_view bytes, std::string_view name,
                                uint32_t vocab_size) -> Status {
    seen = StatusMessage::Join(bytes.size(), " ", vocab_size);
    return DataLoss(name, ": not liked");
  };
  TempDirectory out;
  auto report = Convert(kTinyStories, out.File("m"), options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().message(), options.tokenizer_path + ": not liked");
  EXPECT_EQ(seen, "30831 2048");
  EXPECT_TRUE(out.List().empty());
}

TEST(ConvertTest, ProgressRunsThroughBothStagesToTheirEnd) {
  ConvertOptions options = Options(Encoding::kBf16);
  std::map<std::string, uint64_t> done;
  std::map<std::string, uint64_t> total;
  options.progress = [&](std::string_view stage, uint64_t d, uint64_t t) {
    EXPECT_GT(d, done[std::string(stage)]);
    done[std::string(stage)] = d;
    total[std::string(stage)] = t;
  };
  TempDirectory out;
  ASSERT_TRUE(Convert(kTinyStories, out.File("m"), options));
  EXPECT_EQ(done, total);
  EXPECT_EQ(done["check"], 8172008u);
  EXPECT_EQ(done.size(), 2u);
  EXPECT_TRUE(done.contains("convert"));
}

// Values that are not finite.

class NonFiniteTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.vocab_size = 50;
    test::WriteCheckpoint(in_.path(), options_);
    tensors_ = test::MakeTensors(options_);
  }
  // Puts a value into an F32 tensor and writes the weights again.
  void Put(std::string_view name, size_t element, float value) {
    for (RawTensor& tensor : tensors_) {
      if (tensor.name == name) {
        std::memcpy(tensor.bytes.data() + 4 * element, &value, 4);
      }
    }
    test::WriteTensors(in_.path(), tensors_, 1);
  }
  Result<ConvertReport> Run(Encoding encoding, bool allow) {
    ConvertOptions options = Options(encoding);
    options.allow_nonfinite = allow;
    return Convert(in_.path(), out_.File("m"), options);
  }

  CheckpointOptions options_;
  TempDirectory in_;
  TempDirectory out_;
  std::vector<RawTensor> tensors_;
};

constexpr char kQkv1[] = "transformer.layers.1.attn.qkv_proj.weight";
constexpr char kNorm[] = "transformer.norm.weight";

TEST_F(NonFiniteTest, AreCountedAndRefusedBeforeAnythingIsWritten) {
  Put(kNorm, 3, std::numeric_limits<float>::infinity());
  Put(kQkv1, 7, std::numeric_limits<float>::quiet_NaN());
  Put(kQkv1, 8, -std::numeric_limits<float>::infinity());
  for (const Encoding encoding : {Encoding::kF32, Encoding::kBf16}) {
    auto report = Run(encoding, false);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code(), StatusCode::kDataLoss);
    EXPECT_NE(report.error().message().find("3 weights"), std::string::npos);
    EXPECT_NE(report.error().message().find(kQkv1), std::string::npos)
        << report.error().message();
    EXPECT_TRUE(out_.List().empty());
  }
}

TEST_F(NonFiniteTest, AreTakenOverWhenAllowedAndRecorded) {
  Put(kQkv1, 7, std::numeric_limits<float>::quiet_NaN());
  Put(kQkv1, 8, std::numeric_limits<float>::infinity());
  auto report = Run(Encoding::kBf16, true);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->num_nonfinite, 2u);
  EXPECT_EQ(report->first_nonfinite_tensor, kQkv1);
  auto file = WeightFile::Open(out_.File("m"), CacheMode::kBuffered);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->provenance()["nonfinite_values"], 2);
  auto weights = FindWeights(report->config, *file);
  const auto qkv =
      ReadPart(ReadFile(out_.File("m")), *file, weights->layers[1].qkv);
  EXPECT_TRUE(std::isnan(qkv[7]));
  EXPECT_EQ(qkv[8], std::numeric_limits<float>::infinity());
}

TEST_F(NonFiniteTest, RoundingToInfinityCountsOnlyWhereItHappens) {
  // The largest bf16 is 0x7F7F0000; from half a step above, it overflows.
  Put(kQkv1, 7, std::bit_cast<float>(0x7F7F7FFFu));
  EXPECT_TRUE(Run(Encoding::kBf16, false));
  Put(kQkv1, 7, std::bit_cast<float>(0xFF7F8000u));
  EXPECT_TRUE(Run(Encoding::kF32, false));
  auto report = Run(Encoding::kBf16, false);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Run(Encoding::kBf16, true)->num_nonfinite, 1u);
}

TEST_F(NonFiniteTest, AreRefusedAsCodesInAnyCase) {
  Put(kQkv1, 7, std::numeric_limits<float>::quiet_NaN());
  Put(kQkv1, 8, -std::numeric_limits<float>::infinity());
  for (const Encoding encoding : {Encoding::kQ8, Encoding::kQ4}) {
    SCOPED_TRACE(EncodingName(encoding));
    EXPECT_EQ(Run(encoding, false).error().code(), StatusCode::kDataLoss);
    auto report = Run(encoding, true);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(report.error().message().find("2 weights"), std::string::npos);
    EXPECT_NE(report.error().message().find(kQkv1), std::string::npos)
        << report.error().message();
    EXPECT_TRUE(out_.List().empty());
  }
  // Only where codes are what becomes of them.
  ConvertOptions options = Options(Encoding::kQ4);
  options.allow_nonfinite = true;
  options.attention = Encoding::kBf16;
  EXPECT_TRUE(Convert(in_.path(), out_.File("m"), options));
}

TEST_F(NonFiniteTest, NormsMayBeAnythingInAFileOfCodes) {
  Put(kNorm, 3, std::numeric_limits<float>::infinity());
  EXPECT_FALSE(Run(Encoding::kQ4, false));
  EXPECT_TRUE(Run(Encoding::kQ4, true));
}

TEST_F(NonFiniteTest, WeightsAboveTheRangeOfCodesAreRefused) {
  for (const float sign : {1.0f, -1.0f}) {
    Put(kQkv1, 7, sign * kMaxQuantized);
    EXPECT_TRUE(Run(Encoding::kQ8, false));
    EXPECT_TRUE(Run(Encoding::kQ4, false));
    Put(kQkv1, 7, sign * std::nextafter(kMaxQuantized, 1e10f));
    EXPECT_TRUE(Run(Encoding::kBf16, false));
    for (const Encoding encoding : {Encoding::kQ8, Encoding::kQ4}) {
      auto report = Run(encoding, false);
      ASSERT_FALSE(report);
      EXPECT_EQ(report.error().code(), StatusCode::kInvalidArgument);
      EXPECT_NE(report.error().message().find(kQkv1), std::string::npos)
          << report.error().message();
    }
  }
}

TEST_F(NonFiniteTest, Bf16WeightsAboveTheRangeOfCodesAreRefused) {
  options_.dtype = "BF16";
  std::vector<RawTensor> tensors = test::MakeTensors(options_);
  const auto fits =
      static_cast<uint16_t>(std::bit_cast<uint32_t>(kMaxQuantized) >> 16);
  for (const int more : {0, 1}) {
    const auto bits = static_cast<uint16_t>(0x8000 | (fits + more));
    std::memcpy(tensors[0].bytes.data(), &bits, 2);
    test::WriteTensors(in_.path(), tensors, 1);
    EXPECT_EQ(Run(Encoding::kQ8, false).has_value(), more == 0);
  }
}

TEST_F(NonFiniteTest, NormsKeepTheRangeOfF32) {
  Put(kNorm, 3, std::numeric_limits<float>::max());
  auto report = Run(Encoding::kBf16, false);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->num_nonfinite, 0u);
}

TEST_F(NonFiniteTest, HalfPrecisionSourcesAreCheckedToo) {
  for (const char* dtype : {"F16", "BF16"}) {
    SCOPED_TRACE(dtype);
    options_.dtype = dtype;
    std::vector<RawTensor> tensors = test::MakeTensors(options_);
    const uint16_t nan = 0x7FC1;  // In both formats.
    std::memcpy(tensors[1].bytes.data() + 2 * 5, &nan, 2);
    test::WriteTensors(in_.path(), tensors, 1);
    auto report = Run(Encoding::kBf16, true);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_EQ(report->num_nonfinite, 1u);
    EXPECT_EQ(report->first_nonfinite_tensor, tensors[1].name);
  }
}

TEST_F(NonFiniteTest, Bf16BitsPassUnchangedEvenThoseOfASignallingNan) {
  options_.dtype = "BF16";
  std::vector<RawTensor> tensors = test::MakeTensors(options_);
  const uint16_t signalling = 0x7F81;
  std::memcpy(tensors[0].bytes.data(), &signalling, 2);
  test::WriteTensors(in_.path(), tensors, 1);
  ASSERT_TRUE(Run(Encoding::kBf16, true));
  auto file = WeightFile::Open(out_.File("m"), CacheMode::kBuffered);
  ASSERT_TRUE(file);
  EXPECT_EQ(
      ReadFile(out_.File("m"))
          .substr(file->segments()[0].offset_bytes, tensors[0].bytes.size()),
      tensors[0].bytes);
}

// Damaged checkpoints.

// What a case may change before the conversion.
struct Scene {
  std::string in;
  std::string out;  // Where the model shall be written.
  CheckpointOptions options;
  std::vector<RawTensor> tensors;
  ConvertOptions convert;

  std::string File(const char* name) const { return in + "/" + name; }
  RawTensor& Tensor(std::string_view name) {
    for (RawTensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << name;
    return tensors[0];
  }
  void WriteWeights(uint32_t num_shards = 1) {
    std::filesystem::remove(File("model.safetensors"));
    test::WriteTensors(in, tensors, num_shards);
  }
  void EditJson(const char* name, const std::function<void(Json&)>& edit) {
    Json json = Json::parse(ReadFile(File(name)));
    edit(json);
    WriteFile(File(name), json.dump());
  }
};

struct BadCheckpoint {
  const char* name;
  StatusCode code;
  const char* message;  // A part of it.
  std::function<void(Scene&)> damage;
};

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kShard1[] = "model-00001-of-00002.safetensors";
constexpr char kShard2[] = "model-00002-of-00002.safetensors";

void RedirectEmbedding(Scene& s, const Json& target) {
  s.WriteWeights(2);
  s.EditJson(kIndex, [&](Json& index) {
    index["weight_map"]["transformer.token_embeddings.weight"] = target;
  });
}

std::vector<BadCheckpoint> BadCheckpoints() {
  constexpr auto kDataLoss = StatusCode::kDataLoss;
  constexpr auto kNotFound = StatusCode::kNotFound;
  constexpr auto kUnimplemented = StatusCode::kUnimplemented;
  constexpr auto kInvalidArgument = StatusCode::kInvalidArgument;
  const auto reshape = [](const char* name, std::vector<uint64_t> shape) {
    return [name, shape](Scene& s) {
      RawTensor& tensor = s.Tensor(name);
      uint64_t count = 1;
      for (const uint64_t dimension : shape) count *= dimension;
      tensor.shape = shape;
      tensor.bytes.resize(4 * count);
      s.WriteWeights();
    };
  };
  const auto configure = [](const char* key, Json value) {
    return [key, value](Scene& s) {
      s.EditJson("config.json", [&](Json& config) { config[key] = value; });
    };
  };
  const auto redirect = [](Json target) {
    return [target](Scene& s) { RedirectEmbedding(s, target); };
  };
  return {
      {"no directory", kNotFound, "no such directory",
       [](Scene& s) { s.in += "/none"; }},
      {"a file instead of a directory", kNotFound, "no such directory",
       [](Scene& s) { s.in += "/config.json"; }},
      {"no config", kNotFound, "config.json",
       [](Scene& s) { std::filesystem::remove(s.File("config.json")); }},
      {"config is a directory", kInvalidArgument, "config.json",
       [](Scene& s) {
         std::filesystem::remove(s.File("config.json"));
         mkdir(s.File("config.json").c_str(), 0700);
       }},
      {"config is a pipe", kInvalidArgument, "config.json",
       [](Scene& s) {
         std::filesystem::remove(s.File("config.json"));
         mkfifo(s.File("config.json").c_str(), 0600);
       }},
      {"config is empty", kDataLoss, "config.json",
       [](Scene& s) { WriteFile(s.File("config.json"), ""); }},
      {"config of 2 MiB", kDataLoss, "expected at most",
       [](Scene& s) {
         WriteFile(s.File("config.json"), std::string(2u << 20, ' '));
       }},
      {"config key missing", kDataLoss, "\"model_dim\" is missing",
       [](Scene& s) {
         s.EditJson("config.json",
                    [](Json& config) { config.erase("model_dim"); });
       }},
      {"config key of the wrong type", kDataLoss, "\"head_dim\" is \"16\"",
       configure("head_dim", "16")},
      {"config key huge", kDataLoss, "\"vocab_size\" is 9223372036854775808",
       configure("vocab_size", uint64_t{1} << 63)},
      {"config key negative", kDataLoss, "\"vocab_size\" is -1",
       configure("vocab_size", -1)},
      {"heads that contradict the ratio", kDataLoss, "query heads per kv head",
       configure("num_kv_heads", {1, 1, 1})},
      {"untied embeddings", kUnimplemented, "share_input_output_layers",
       configure("share_input_output_layers", false)},
      {"no weights", kNotFound, "neither model.safetensors nor",
       [](Scene& s) { std::filesystem::remove(s.File("model.safetensors")); }},
      {"weights cut short", kDataLoss, "which has",
       [](Scene& s) {
         const auto size =
             std::filesystem::file_size(s.File("model.safetensors"));
         std::filesystem::resize_file(s.File("model.safetensors"), size - 1);
       }},
      {"weights are no safetensors file", kDataLoss, "directory of",
       [](Scene& s) {
         WriteFile(s.File("model.safetensors"), "PK\3\4 a torch archive");
       }},
      {"config says a larger vocabulary", kDataLoss,
       "token_embeddings.weight\" has shape [50, 128], expected [51, 128]",
       configure("vocab_size", 51)},
      {"embedding padded as in training", kDataLoss,
       "has shape [64, 128], expected [50, 128]",
       reshape("transformer.token_embeddings.weight", {64, 128})},
      {"config says more heads", kDataLoss, "qkv_proj",
       [](Scene& s) {
         s.EditJson("config.json", [](Json& config) {
           config["num_query_heads"] = {12, 8, 8};
           config["num_kv_heads"] = {3, 2, 2};
         });
       }},
      {"config says wider layers", kDataLoss,
       "layers.0.ffn.proj_1.weight\" has shape [128, 128], expected [256, 128]",
       configure("ffn_multipliers", {1.0, 2.25, 4.0})},
      {"config says more layers", kDataLoss,
       "layers.3.attn_norm.weight\" is missing",
       [](Scene& s) {
         s.EditJson("config.json", [](Json& config) {
           config["num_transformer_layers"] = 4;
           config["num_query_heads"].push_back(8);
           config["num_kv_heads"].push_back(2);
           config["ffn_multipliers"].push_back(4.0);
         });
       }},
      {"config says fewer layers", kUnimplemented, "transformer.layers.2",
       [](Scene& s) {
         s.EditJson("config.json", [](Json& config) {
           config["num_transformer_layers"] = 2;
           config["num_query_heads"].erase(2);
           config["num_kv_heads"].erase(2);
           config["ffn_multipliers"].erase(2);
         });
       }},
      {"matrix transposed", kDataLoss, "expected [128, 512]",
       reshape("transformer.layers.2.ffn.proj_2.weight", {512, 128})},
      {"vector with a row dimension", kDataLoss,
       "has shape [1, 128], expected [128]",
       reshape("transformer.norm.weight", {1, 128})},
      {"norm of the wrong width", kDataLoss, "q_norm",
       reshape("transformer.layers.1.attn.q_norm.weight", {17})},
      {"tensor missing", kDataLoss, "transformer.norm.weight\" is missing",
       [](Scene& s) {
         s.tensors.pop_back();
         s.WriteWeights();
       }},
      {"output head of its own", kUnimplemented, "lm_head.weight",
       [](Scene& s) {
         s.tensors.push_back(s.tensors[0]);
         s.tensors.back().name = "lm_head.weight";
         s.WriteWeights();
       }},
      {"bias", kUnimplemented, "qkv_proj.bias",
       [](Scene& s) {
         s.tensors.push_back(
             {"transformer.layers.0.attn.qkv_proj.bias", "F32", {1}, "1234"});
         s.WriteWeights();
       }},
      {"integer weights", kUnimplemented, "\"I32\"",
       [](Scene& s) {
         s.Tensor("transformer.layers.0.ffn.proj_1.weight").dtype = "I32";
         s.WriteWeights();
       }},
      {"double weights", kUnimplemented, "\"F64\"",
       [](Scene& s) {
         RawTensor& tensor = s.Tensor("transformer.norm.weight");
         tensor.dtype = "F64";
         tensor.bytes += tensor.bytes;
         s.WriteWeights();
       }},
      {"shard missing", kNotFound, kShard2,
       [](Scene& s) {
         s.WriteWeights(2);
         std::filesystem::remove(s.File(kShard2));
       }},
      {"index is not JSON", kDataLoss, kIndex,
       [](Scene& s) {
         s.WriteWeights(2);
         WriteFile(s.File(kIndex), "{");
       }},
      {"index without a map", kDataLoss, "weight_map",
       [](Scene& s) {
         s.WriteWeights(2);
         WriteFile(s.File(kIndex), "{}");
       }},
      {"index with an empty map", kDataLoss, "names 0 files",
       [](Scene& s) {
         s.WriteWeights(2);
         WriteFile(s.File(kIndex), "{\"weight_map\":{}}");
       }},
      {"index of 300 shards", kDataLoss, "names 300 files",
       [](Scene& s) {
         s.WriteWeights(2);
         Json map = Json::object();
         for (int i = 0; i < 300; ++i)
           map[std::to_string(i)] = std::to_string(i);
         WriteFile(s.File(kIndex), Json{{"weight_map", map}}.dump());
       }},
      {"index that leads up", kDataLoss, "in the same directory",
       redirect("../model.safetensors")},
      {"index that leads down", kDataLoss, "in the same directory",
       redirect("sub/model.safetensors")},
      {"index with an absolute path", kDataLoss, "in the same directory",
       redirect("/etc/passwd")},
      {"index with ..", kDataLoss, "in the same directory", redirect("..")},
      {"index with .", kDataLoss, "in the same directory", redirect(".")},
      {"index with an empty name", kDataLoss, "in the same directory",
       redirect("")},
      {"index with a zero byte", kDataLoss, "in the same directory",
       redirect(std::string("model\0", 6))},
      {"index with a number", kDataLoss, "in the same directory", redirect(1)},
      {"index names the wrong shard", kDataLoss, "does not hold it",
       redirect(kShard2)},
      {"index lists a tensor that is nowhere", kDataLoss, "does not hold it",
       [](Scene& s) {
         s.WriteWeights(2);
         s.EditJson(kIndex, [](Json& index) {
           index["weight_map"]["ghost"] = kShard1;
         });
       }},
      {"index leaves a tensor out", kDataLoss, "does not list",
       [](Scene& s) {
         s.WriteWeights(2);
         s.EditJson(kIndex, [](Json& index) {
           index["weight_map"].erase("transformer.norm.weight");
         });
       }},
      {"tensor in two shards", kDataLoss, "is also in",
       [](Scene& s) {
         s.WriteWeights(2);
         WriteFile(s.File(kShard2), ReadFile(s.File(kShard1)));
       }},
      {"no tokenizer", kNotFound, "Meta's LLaMA",
       [](Scene& s) { std::filesystem::remove(s.File("tokenizer.model")); }},
      {"no tokenizer where said", kNotFound, "elsewhere.model",
       [](Scene& s) { s.convert.tokenizer_path = "/elsewhere.model"; }},
      {"tokenizer of 0 bytes", kDataLoss, "0 bytes",
       [](Scene& s) { WriteFile(s.File("tokenizer.model"), ""); }},
      {"tokenizer above 64 MiB", kDataLoss, "expected at most 67108864",
       [](Scene& s) {
         std::filesystem::resize_file(s.File("tokenizer.model"),
                                      (64u << 20) + 1);
       }},
      {"tokenizer is a directory", kInvalidArgument, "not a regular file",
       [](Scene& s) { s.convert.tokenizer_path = s.in; }},
      {"output directory missing", kNotFound, "none/m.felm",
       [](Scene& s) { s.out = s.in + "/none/m.felm"; }},
      {"output is a directory", kInvalidArgument, "not a regular file",
       [](Scene& s) { s.out = s.in; }},
      {"output is a file of the source", kInvalidArgument, "which is read",
       [](Scene& s) { s.out = s.File("model.safetensors"); }},
      {"output is a link to a file of the source", kInvalidArgument,
       "which is read",
       [](Scene& s) {
         s.out = s.File("link");
         std::filesystem::create_hard_link(s.File("config.json"), s.out);
       }},
  };
}

TEST(ConvertTest, BadCheckpointsAreRefusedAndLeaveNothingBehind) {
  CheckpointOptions options;
  options.vocab_size = 50;
  const std::vector<RawTensor> tensors = test::MakeTensors(options);
  for (const BadCheckpoint& bad : BadCheckpoints()) {
    SCOPED_TRACE(bad.name);
    TempDirectory in;
    TempDirectory out;
    Scene scene{in.path(), out.File("m.felm"), options, tensors,
                Options(Encoding::kBf16)};
    WriteFile(in.File("config.json"), test::MakeHfConfig(options).dump());
    WriteFile(in.File("tokenizer.model"), "any bytes");
    scene.WriteWeights();
    bad.damage(scene);
    const std::vector<std::string> before = in.List();
    auto report = Convert(scene.in, scene.out, scene.convert);
    EXPECT_EQ(in.List(), before);
    EXPECT_TRUE(out.List().empty());
    if (report) {
      ADD_FAILURE() << "was converted";
      continue;
    }
    EXPECT_EQ(report.error().code(), bad.code) << report.error().message();
    EXPECT_NE(report.error().message().find(bad.message), std::string::npos)
        << report.error().message();
    EXPECT_LT(report.error().message().size(), 1000u);
  }
}

// Stops on the way.

TEST(ConvertTest, CancellingAnywhereKeepsWhatStoodThere) {
  CheckpointOptions checkpoint;
  checkpoint.model_dim = 256;
  checkpoint.head_dim = 32;
  TempDirectory in;
  test::WriteCheckpoint(in.path(), checkpoint);
  TempDirectory out;
  WriteFile(out.File("m"), "what stood there before");
  int num_calls = 0;
  int cancel_at = 0;
  bool finished = false;
  while (!finished) {
    ++cancel_at;
    num_calls = 0;
    CancelToken cancel;
    ConvertOptions options = Options(Encoding::kBf16);
    options.cancel = &cancel;
    options.progress = [&](std::string_view, uint64_t, uint64_t) {
      if (++num_calls == cancel_at) cancel.Cancel();
    };
    auto report = Convert(in.path(), out.File("m"), options);
    finished = report.has_value();
    EXPECT_EQ(out.List(), std::vector<std::string>{"m"});
    if (!finished) {
      EXPECT_EQ(report.error().code(), StatusCode::kCancelled);
      EXPECT_EQ(ReadFile(out.File("m")), "what stood there before");
    }
  }
  EXPECT_GT(cancel_at, 10);  // Both stages, several times.
  EXPECT_TRUE(WeightFile::Open(out.File("m"), CacheMode::kBuffered));
}

// Runs `body` in a child process, which exits with what it returns.
int RunInChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

CancelToken g_interrupted;  // For the handler below.

TEST(ConvertTest, AnInterruptHandledAsTheProgramDoesLeavesNothing) {
  TempDirectory out;
  EXPECT_EQ(RunInChild([&] {
              signal(SIGINT, [](int) { g_interrupted.Cancel(); });
              ConvertOptions options = Options(Encoding::kBf16);
              options.cancel = &g_interrupted;
              options.progress = [](std::string_view stage, uint64_t,
                                    uint64_t) {
                if (stage == "convert") raise(SIGINT);
              };
              auto report = Convert(kTinyStories, out.File("m"), options);
              if (report) return 1;
              return report.error().code() == StatusCode::kCancelled ? 42 : 2;
            }),
            42);
  EXPECT_TRUE(out.List().empty());
}

TEST(ConvertTest, AFileSizeLimitKeepsWhatStoodThere) {
  TempDirectory out;
  WriteFile(out.File("m"), "what stood there before");
  for (const rlim_t limit : {rlim_t{1}, rlim_t{64} << 10, rlim_t{4} << 20}) {
    EXPECT_EQ(RunInChild([&] {
                signal(SIGXFSZ, SIG_IGN);
                const rlimit limits = {limit, limit};
                if (setrlimit(RLIMIT_FSIZE, &limits) != 0) return 1;
                auto report = Convert(kTinyStories, out.File("m"),
                                      Options(Encoding::kBf16));
                if (report) return 2;
                return report.error().code() == StatusCode::kResourceExhausted
                           ? 42
                           : 3;
              }),
              42)
        << limit;
    EXPECT_EQ(out.List(), std::vector<std::string>{"m"});
    EXPECT_EQ(ReadFile(out.File("m")), "what stood there before");
  }
}

}  // namespace
}  // namespace flashelm
