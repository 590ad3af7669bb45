#include "tests/storage/model_builder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <utility>

#include "tests/temp_directory.h"

namespace flashelm {

WeightFile TestModel::Open(SharedBytes bytes) {
  auto weights = WeightFile::Open(std::make_unique<MemoryFile>(bytes));
  if (!weights) ADD_FAILURE() << weights.error().message();
  return std::move(weights).value();
}

void AddSegment(WeightFileContents& contents, SegmentKind kind,
                std::optional<uint32_t> layer, uint64_t num_records,
                uint64_t elements, const std::vector<std::string>& parts) {
  Segment segment;
  segment.kind = kind;
  segment.layer = layer;
  segment.num_records = num_records;
  for (const std::string& name : parts) {
    segment.parts.push_back(
        {name, Encoding::kBf16, segment.stride_bytes, elements});
    segment.stride_bytes += segment.parts.back().num_bytes();
    const auto index = static_cast<uint32_t>(contents.segments.size());
    const auto part = static_cast<uint32_t>(segment.parts.size() - 1);
    contents.tensors.push_back(
        {StatusMessage::Join("tensor ", index, ".", name),
         num_records,
         elements,
         {{index, part, EncodingBits(Encoding::kBf16), "none"}}});
  }
  contents.segments.push_back(std::move(segment));
}

WeightFileContents TestModelContents() {
  WeightFileContents contents;
  contents.config = {{"made_for", "tests"}};
  contents.provenance = {{"source", "random"}};
  contents.tokenizer = "a tokenizer, as far as this room knows";
  const std::vector<std::string> bundle = {"gate", "up", "down"};
  // Page runs of 8 records, checksums of 40.
  AddSegment(contents, SegmentKind::kEmbedding, {}, 100, 768, {"row"});
  AddSegment(contents, SegmentKind::kNorms, 0, 1, 40, {"a", "b"});
  // A record is a page.
  AddSegment(contents, SegmentKind::kQkv, 0, 24, 2048, {"row"});
  AddSegment(contents, SegmentKind::kAttentionOut, 0, 40, 320, {"row"});
  // 3072 bytes: runs of 4.
  AddSegment(contents, SegmentKind::kFfn, 0, 21, 512, bundle);
  AddSegment(contents, SegmentKind::kNorms, 1, 1, 40, {"a", "b"});
  AddSegment(contents, SegmentKind::kQkv, 1, 10, 1024, {"row"});
  // 1600 bytes: runs of 64, of which there is one and a bit.
  AddSegment(contents, SegmentKind::kAttentionOut, 1, 70, 800, {"row"});
  // 1536 bytes: runs of 8.
  AddSegment(contents, SegmentKind::kFfn, 1, 30, 256, bundle);
  AddSegment(contents, SegmentKind::kFinalNorm, {}, 1, 40, {"a"});
  return contents;
}

WeightFileContents TinyContents() {
  WeightFileContents contents;
  contents.tokenizer = "t";
  AddSegment(contents, SegmentKind::kEmbedding, {}, 2, 64, {"row"});
  return contents;
}

TestModel MakeTestModel(const WeightFileContents& contents, uint64_t seed) {
  TestModel model;
  std::mt19937_64 random(seed);
  for (const Segment& segment : contents.segments) {
    std::vector<std::byte>& bytes =
        model.segments.emplace_back(segment.num_bytes());
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  }
  const test::TempDirectory directory;
  const std::string path = directory.File("model.felm");
  auto writer = WeightFileWriter::Create(path, contents);
  if (!writer) {
    ADD_FAILURE() << writer.error().message();
    return model;
  }
  for (const std::vector<std::byte>& segment : model.segments) {
    EXPECT_TRUE(writer->Append(segment).ok());
  }
  EXPECT_TRUE(writer->Finish());
  model.file = ReadAllBytes(path);
  return model;
}

const TestModel& SharedTestModel() {
  static const TestModel model = MakeTestModel(TestModelContents(), 1);
  return model;
}

std::vector<std::byte> ReadAllBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << path;
  std::vector<char> text{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void WriteAllBytes(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(out.good()) << path;
}

}  // namespace flashelm
