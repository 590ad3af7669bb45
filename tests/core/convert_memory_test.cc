#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <vector>

#include "core/base/process_memory.h"
#include "core/convert/convert.h"
#include "core/model_layout.h"
#include "kernels/reference.h"
#include "storage/weight_file.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm {
namespace {

using test::TempDirectory;

constexpr uint64_t kMaxResidentBytes = uint64_t{256} << 20;
constexpr uint64_t kModelDim = 3072;
constexpr uint64_t kFfnDim = 12288;
constexpr uint64_t kVocabSize = 32000;
// More than most machines have: each has buffers.
constexpr uint32_t kNumThreads = 8;

// A value at one place of a tensor; all others are zero.
struct Marker {
  const char* tensor;
  uint64_t row;
  uint64_t column;
  float value;
};
constexpr char kProj1[] = "transformer.layers.0.ffn.proj_1.weight";
constexpr char kProj2[] = "transformer.layers.0.ffn.proj_2.weight";
constexpr Marker kMarkers[] = {
    {kProj1, 0, 0, 1.0f},       {kProj1, 12287, 3071, 2.0f},
    {kProj1, 12288, 1, 3.0f},   {kProj1, 24575, 3070, 4.0f},
    {kProj2, 0, 1, 5.0f},       {kProj2, 3071, 12287, 6.0f},
    {kProj2, 1000, 6543, 7.0f}, {kProj2, 2999, 1365, 8.0f},
};

// The embedding of the 3B model and one layer with the widths of its last, F32,
// as a sparse file.
void WriteLastLayerOf3b(const TempDirectory& directory) {
  test::CheckpointOptions options;
  options.num_layers = 1;
  options.model_dim = kModelDim;
  options.head_dim = 128;
  options.vocab_size = kVocabSize;
  Json config = test::MakeHfConfig(options);
  config["num_query_heads"] = {24};
  config["num_kv_heads"] = {6};
  config["ffn_multipliers"] = {4.0};
  test::WriteFile(directory.File("config.json"), config.dump());
  test::WriteFile(directory.File("tokenizer.model"), "any bytes");

  struct Shape {
    std::string name;
    std::vector<uint64_t> shape;
  };
  const std::string layer = "transformer.layers.0.";
  const Shape shapes[] = {
      {"transformer.token_embeddings.weight", {kVocabSize, kModelDim}},
      {layer + "attn.qkv_proj.weight", {36 * 128, kModelDim}},
      {layer + "attn.q_norm.weight", {128}},
      {layer + "attn.k_norm.weight", {128}},
      {layer + "attn.out_proj.weight", {kModelDim, 24 * 128}},
      {kProj1, {2 * kFfnDim, kModelDim}},
      {kProj2, {kModelDim, kFfnDim}},
      {layer + "ffn_norm.weight", {kModelDim}},
      {layer + "attn_norm.weight", {kModelDim}},
      {"transformer.norm.weight", {kModelDim}},
  };
  Json header = Json::object();
  uint64_t at = 0;
  for (const Shape& shape : shapes) {
    uint64_t num_bytes = 4;
    for (const uint64_t dimension : shape.shape) num_bytes *= dimension;
    header[shape.name] = {{"dtype", "F32"},
                          {"shape", shape.shape},
                          {"data_offsets", {at, at + num_bytes}}};
    at += num_bytes;
  }
  const std::string path = directory.File("model.safetensors");
  const std::string front = test::SafetensorsBytes(header.dump(), "");
  test::WriteFile(path, front);
  std::filesystem::resize_file(path, front.size() + at);
  std::FILE* file = std::fopen(path.c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  for (const Marker& marker : kMarkers) {
    const Json& entry = header[marker.tensor];
    const uint64_t element =
        marker.row * entry["shape"][1].get<uint64_t>() + marker.column;
    const uint64_t byte =
        front.size() + entry["data_offsets"][0].get<uint64_t>() + 4 * element;
    ASSERT_EQ(std::fseek(file, static_cast<long>(byte), SEEK_SET), 0);
    ASSERT_EQ(std::fwrite(&marker.value, 4, 1, file), 1u);
  }
  ASSERT_EQ(std::fclose(file), 0);
}

// One weight of a model file.
float ReadWeight(const WeightFile& file, const PartRef& ref, uint64_t record,
                 uint64_t element) {
  const Segment& segment = file.segments()[ref.segment];
  std::vector<std::byte> bytes(segment.stride_bytes);
  EXPECT_TRUE(ReadExactly(file.file(),
                          segment.offset_bytes + record * segment.stride_bytes,
                          bytes, "a record")
                  .ok());
  const WeightView view = {bytes.data() + ref.offset_bytes, bytes.size(),
                           WeightTypeOf(ref.encoding),
                           bytes.data() + ref.scales_offset_bytes};
  return reference::WeightAt(view, 0, element);
}

// Converts in a child process, so that only the conversion counts; returns the
// most bytes that were resident there, 0 after a failure.
uint64_t PeakOfConversion(const std::string& source, const std::string& out,
                          Encoding encoding) {
  int fds[2];
  EXPECT_EQ(pipe(fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    ConvertOptions options;
    options.weights = encoding;
    options.num_threads = kNumThreads;
    const auto report = Convert(source, out, options);
    if (!report) {
      std::fprintf(stderr, "%s\n", report.error().message().c_str());
      _exit(1);
    }
    const uint64_t peak = ReadProcessMemory()->peak_resident_bytes;
    _exit(write(fds[1], &peak, sizeof(peak)) == sizeof(peak) ? 0 : 2);
  }
  close(fds[1]);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  uint64_t peak = 0;
  EXPECT_EQ(read(fds[0], &peak, sizeof(peak)), ssize_t{sizeof(peak)});
  close(fds[0]);
  return peak;
}

class ConvertMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
#ifdef FLASHELM_FOREIGN_MEMORY
    GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
    if (!ReadProcessMemory()) GTEST_SKIP() << "no peak memory on this platform";
  }
};

TEST_F(ConvertMemoryTest, ALayerOf3bTakesAtMost256MiB) {
  TempDirectory directory;
  WriteLastLayerOf3b(directory);
  for (const Encoding encoding :
       {Encoding::kBf16, Encoding::kF32, Encoding::kQ8, Encoding::kQ4}) {
    SCOPED_TRACE(EncodingName(encoding));
    const std::string path = directory.File("m.felm");
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t peak = PeakOfConversion(directory.path(), path, encoding);
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    const uint64_t source_bytes =
        std::filesystem::file_size(directory.File("model.safetensors"));
    std::printf("%s: peak resident %.1f MiB, %.0f MB/s of source\n",
                std::string(EncodingName(encoding)).c_str(),
                static_cast<double>(peak) / (1 << 20),
                static_cast<double>(source_bytes) / 1e6 / seconds.count());
    EXPECT_GT(peak, 0u);
    EXPECT_LE(peak, kMaxResidentBytes);

    auto file = WeightFile::Open(path, CacheMode::kBuffered);
    ASSERT_TRUE(file) << file.error().message();
    auto config = ConfigFromJson(file->config(), path);
    ASSERT_TRUE(config);
    auto weights = FindWeights(*config, *file);
    ASSERT_TRUE(weights);
    const LayerWeights& layer = weights->layers[0];
    for (const Marker& marker : kMarkers) {
      SCOPED_TRACE(marker.value);
      if (marker.tensor == kProj2) {
        EXPECT_EQ(ReadWeight(*file, layer.down, marker.column, marker.row),
                  marker.value);
      } else if (marker.row < kFfnDim) {
        EXPECT_EQ(ReadWeight(*file, layer.gate, marker.row, marker.column),
                  marker.value);
      } else {
        EXPECT_EQ(
            ReadWeight(*file, layer.up, marker.row - kFfnDim, marker.column),
            marker.value);
      }
    }
    std::filesystem::remove(path);
  }
}

TEST_F(ConvertMemoryTest, TheLargestTokenizerTakesAtMost256MiB) {
  TempDirectory directory;
  test::CheckpointOptions options;
  options.vocab_size = 16;
  test::WriteCheckpoint(directory.path(), options);
  std::mt19937_64 random(1);  // Bytes that do not compress.
  std::string tokenizer(size_t{64} << 20, '\0');
  for (size_t at = 0; at < tokenizer.size(); at += 8) {
    const uint64_t bits = random();
    std::memcpy(tokenizer.data() + at, &bits, sizeof(bits));
  }
  test::WriteFile(directory.File("tokenizer.model"), tokenizer);
  std::string().swap(tokenizer);  // A child begins with its parent's pages.
  const uint64_t peak = PeakOfConversion(
      directory.path(), directory.File("m.felm"), Encoding::kBf16);
  std::printf("peak resident %.1f MiB\n",
              static_cast<double>(peak) / (1 << 20));
  EXPECT_GT(peak, 0u);
  EXPECT_LE(peak, kMaxResidentBytes);
}

}  // namespace
}  // namespace flashelm
