#include "storage/weight_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/model_config.h"
#include "core/model_layout.h"
#include "tests/storage/felm_image.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

Result<WeightFile> Open(std::vector<std::byte> file) {
  return WeightFile::Open(
      std::make_unique<MemoryFile>(ShareBytes(std::move(file))));
}

const TestModel& TinyModel() {
  static const TestModel model = MakeTestModel(TinyContents(), 2);
  return model;
}

TEST(WeightFileTest, GivesBackWhatTheWriterGot) {
  const WeightFileContents contents = TestModelContents();
  const WeightFile weights = SharedTestModel().Open();
  EXPECT_EQ(weights.config(), contents.config);
  EXPECT_EQ(weights.provenance(), contents.provenance);
  EXPECT_EQ(weights.ReadTokenizer().value(), contents.tokenizer);
  ASSERT_EQ(weights.segments().size(), contents.segments.size());
  uint64_t num_bytes = 0;
  for (size_t i = 0; i < contents.segments.size(); ++i) {
    const Segment& expected = contents.segments[i];
    const Segment& segment = weights.segments()[i];
    EXPECT_EQ(segment.kind, expected.kind);
    EXPECT_EQ(segment.layer, expected.layer);
    EXPECT_EQ(segment.num_records, expected.num_records);
    EXPECT_EQ(segment.stride_bytes, expected.stride_bytes);
    EXPECT_EQ(segment.offset_bytes % kIoAlignment, 0u);
    ASSERT_EQ(segment.parts.size(), expected.parts.size());
    for (size_t p = 0; p < expected.parts.size(); ++p) {
      EXPECT_EQ(segment.parts[p].name, expected.parts[p].name);
      EXPECT_EQ(segment.parts[p].encoding, expected.parts[p].encoding);
      EXPECT_EQ(segment.parts[p].offset_bytes, expected.parts[p].offset_bytes);
      EXPECT_EQ(segment.parts[p].num_elements, expected.parts[p].num_elements);
    }
    // The bytes are where the directory says.
    EXPECT_EQ(
        std::memcmp(SharedTestModel().file.data() + segment.offset_bytes,
                    SharedTestModel().segments[i].data(), segment.num_bytes()),
        0);
    num_bytes += segment.num_bytes();
  }
  EXPECT_EQ(weights.weight_bytes(), num_bytes);
  ASSERT_EQ(weights.tensors().size(), contents.tensors.size());
  for (const Tensor& expected : contents.tensors) {
    const Tensor* tensor = weights.FindTensor(expected.name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->rows, expected.rows);
    EXPECT_EQ(tensor->cols, expected.cols);
    EXPECT_EQ(tensor->planes.size(), 1u);
  }
  EXPECT_EQ(weights.FindTensor("nobody"), nullptr);
}

TEST(WeightFileTest, TheSameContentsGiveTheSameBytes) {
  EXPECT_EQ(MakeTestModel(TestModelContents(), 1).file, SharedTestModel().file);
}

TEST(WeightFileTest, OpensFromTheDiskInBothModes) {
  const TempDirectory directory;
  const std::string path = directory.File("model.felm");
  WriteAllBytes(path, SharedTestModel().file);
  for (const CacheMode mode : {CacheMode::kBuffered, CacheMode::kDirect}) {
    const auto weights = WeightFile::Open(path, mode);
    ASSERT_TRUE(weights) << weights.error().message();
    EXPECT_EQ(weights->path(), path);
    EXPECT_TRUE(weights->ReadTokenizer());
  }
  const auto missing =
      WeightFile::Open(directory.File("none"), CacheMode::kDirect);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), StatusCode::kNotFound);
}

TEST(WeightFileTest, PartsOfCodesCountTheirScales) {
  struct Case {
    Encoding encoding;
    uint64_t num_elements;
    uint64_t elements_bytes;
    uint64_t num_bytes;
  };
  for (const Case& c :
       {Case{Encoding::kF32, 33, 132, 132}, Case{Encoding::kBf16, 33, 66, 66},
        Case{Encoding::kQ8, 32, 32, 34}, Case{Encoding::kQ8, 3072, 3072, 3264},
        Case{Encoding::kQ4, 32, 16, 18}, Case{Encoding::kQ4, 3072, 1536, 1728},
        Case{Encoding::kNibble, 3072, 1536, 1536}}) {
    SCOPED_TRACE(EncodingName(c.encoding));
    const Part part{"row", c.encoding, 64, c.num_elements};
    EXPECT_EQ(part.num_bytes(), c.num_bytes);
    EXPECT_EQ(part.scales_offset_bytes(), 64 + c.elements_bytes);
    EXPECT_EQ(EncodingFromName(EncodingName(c.encoding)), c.encoding);
  }
}

TEST(WeightFileTest, EveryKindOfSegmentHasAName) {
  const char* const names[] = {
      "embedding", "norms",  "qkv",      "attention_out", "predictor",
      "ffn_gate",  "ffn_up", "ffn_down", "ffn",           "final_norm"};
  for (size_t i = 0; i < std::size(names); ++i) {
    const auto kind = static_cast<SegmentKind>(i);
    EXPECT_EQ(SegmentKindName(kind), names[i]);
    EXPECT_EQ(SegmentKindFromName(names[i]), kind);
  }
  EXPECT_FALSE(SegmentKindFromName("router"));
}

TEST(WeightFileTest, BundlesOf3bAreWholeCacheLinesInEveryEncoding) {
  ModelConfig config;
  config.model_dim = 3072;
  config.layers = {{24, 6, 1536}};
  const auto stride = [&](Encoding encoding) -> uint64_t {
    const ModelLayout layout =
        MakeLayout(config, MatrixEncodings::All(encoding));
    for (const Segment& segment : layout.segments) {
      if (segment.kind == SegmentKind::kFfn) return segment.stride_bytes;
    }
    return 0;
  };
  EXPECT_EQ(stride(Encoding::kBf16), 18432u);
  EXPECT_EQ(stride(Encoding::kQ8), 9792u);
  EXPECT_EQ(stride(Encoding::kQ4), 5184u);
}

TEST(WeightFileTest, ReadChecksumsRefusesATableThatIsTooSmall) {
  const WeightFile weights = SharedTestModel().Open();
  std::vector<std::byte> table(8);
  EXPECT_EQ(weights.ReadChecksums(table).code(), StatusCode::kInternal);
}

// ---------------------------------------------------------------------------

TEST(WeightFileMalformedTest, RefusesEveryTruncation) {
  const std::vector<std::byte>& file = TinyModel().file;
  const Section manifest = ReadFelmHeader(file).sections[kManifest];
  const uint64_t front = manifest.offset_bytes + manifest.stored_bytes;
  for (uint64_t size = 0; size < front; ++size) {
    const std::vector<std::byte> cut(
        file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
    const auto weights = Open(cut);
    ASSERT_FALSE(weights) << size;
    ASSERT_EQ(weights.error().code(), StatusCode::kDataLoss);
    // Cut off while it is open: the size is as the header says.
    const auto shrunk = WeightFile::Open(std::make_unique<MemoryFile>(
        ShareBytes(cut), file.size(), "shrunk.felm"));
    ASSERT_FALSE(shrunk) << size;
    ASSERT_EQ(shrunk.error().code(), StatusCode::kDataLoss);
    ASSERT_NE(shrunk.error().message().find("shrunk.felm"), std::string::npos);
  }
  // Page by page to the end.
  for (uint64_t size = RoundUp(front, kIoAlignment); size < file.size();
       size += kIoAlignment) {
    const auto weights =
        Open({file.begin(), file.begin() + static_cast<ptrdiff_t>(size)});
    ASSERT_FALSE(weights) << size;
    ASSERT_EQ(weights.error().code(), StatusCode::kDataLoss);
  }
  EXPECT_TRUE(Open(file));
}

TEST(WeightFileMalformedTest, RefusesEveryFlippedByteOfHeaderAndManifest) {
  const std::vector<std::byte>& file = TinyModel().file;
  const Section manifest = ReadFelmHeader(file).sections[kManifest];
  const uint64_t front = manifest.offset_bytes + manifest.stored_bytes;
  const SharedBytes bytes = ShareBytes(file);
  for (uint64_t at = 0; at < front; ++at) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      (*bytes)[at] ^= static_cast<std::byte>(flip);
      const auto weights =
          WeightFile::Open(std::make_unique<MemoryFile>(bytes));
      (*bytes)[at] ^= static_cast<std::byte>(flip);
      ASSERT_FALSE(weights) << "byte " << at;
      // Bytes 8 to 11 are the version, which is looked at first.
      ASSERT_EQ(weights.error().code(), at >= 8 && at < 12
                                            ? StatusCode::kUnimplemented
                                            : StatusCode::kDataLoss)
          << "byte " << at;
    }
  }
}

template <class T>
void Poke(std::vector<std::byte>& file, size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof(value));
}

constexpr uint64_t kHuge = uint64_t{1} << 63;

struct Malformed {
  const char* name;
  StatusCode code;
  const char* says;
  FelmEdit edit;
};

Malformed InManifest(const char* name, StatusCode code, const char* says,
                     std::function<void(Json&)> edit) {
  return {name, code, says, {std::move(edit), {}, {}, {}}};
}
Malformed AsManifest(const char* name, const char* says,
                     std::function<std::string(const Json&)> text) {
  return {name, StatusCode::kDataLoss, says, {{}, std::move(text), {}, {}}};
}
Malformed InHeader(const char* name, StatusCode code, const char* says,
                   std::function<void(FelmHeader&)> edit) {
  return {name, code, says, {{}, {}, std::move(edit), {}}};
}
Malformed InBytes(const char* name, StatusCode code, const char* says,
                  std::function<void(std::vector<std::byte>&)> edit) {
  return {name, code, says, {{}, {}, {}, std::move(edit)}};
}

std::string Repeat(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

// All start from SharedTestModel(): segment 0 is the embedding, 4 the first
// ffn with three parts; tensor 0 is the embedding.
std::vector<Malformed> MalformedFiles() {
  constexpr StatusCode kLoss = StatusCode::kDataLoss;
  constexpr StatusCode kUnknown = StatusCode::kUnimplemented;
  std::vector<Malformed> cases;
  const auto add = [&](Malformed malformed) {
    cases.push_back(std::move(malformed));
  };
  // A member of segment 0.
  const auto segment = [&](const char* name, StatusCode code, const char* says,
                           const char* key, Json value) {
    add(InManifest(name, code, says,
                   [=](Json& m) { m["segments"][0][key] = value; }));
  };
  const auto part = [&](const char* name, StatusCode code, const char* says,
                        const char* key, Json value) {
    add(InManifest(name, code, says, [=](Json& m) {
      m["segments"][4]["parts"][1][key] = value;
    }));
  };
  const auto tensor = [&](const char* name, StatusCode code, const char* says,
                          const char* key, Json value) {
    add(InManifest(name, code, says,
                   [=](Json& m) { m["tensors"][0][key] = value; }));
  };
  const auto plane = [&](const char* name, StatusCode code, const char* says,
                         const char* key, Json value) {
    add(InManifest(name, code, says, [=](Json& m) {
      m["tensors"][0]["planes"][0][key] = value;
    }));
  };

  // The header.
  add(InBytes("another magic", kLoss, "not a FlashELM model file",
              [](auto& f) { f[0] = std::byte{'G'}; }));
  add(InBytes("version 2", kUnknown, "version 2",
              [](auto& f) { Poke<uint32_t>(f, 8, 2); }));
  add(InBytes("version 0", kUnknown, "version 0",
              [](auto& f) { Poke<uint32_t>(f, 8, 0); }));
  add(InBytes("a longer header", kLoss, "header of 8192",
              [](auto& f) { Poke<uint32_t>(f, 12, 8192); }));
  add(InBytes("bytes behind the end", kLoss, "copied whole",
              [](auto& f) { f.resize(f.size() + 1); }));
  add(InBytes("a page behind the end", kLoss, "copied whole",
              [](auto& f) { f.resize(f.size() + kIoAlignment); }));
  add(InBytes("the last page missing", kLoss, "copied whole",
              [](auto& f) { f.resize(f.size() - kIoAlignment); }));
  add(InHeader("another file size", kLoss, "copied whole",
               [](auto& h) { h.file_bytes -= kIoAlignment; }));
  add(InHeader("a file size of 2^63", kLoss, "copied whole",
               [](auto& h) { h.file_bytes = kHuge; }));
  for (uint32_t id = 0; id < kNumSections; ++id) {
    const char* name = kSectionNames[id].data();
    add(InHeader("a section beyond the file", kLoss, name, [id](auto& h) {
      h.sections[id].offset_bytes = h.file_bytes;
    }));
    add(InHeader("a section at 2^63", kLoss, name,
                 [id](auto& h) { h.sections[id].offset_bytes = kHuge; }));
    add(InHeader("a section that wraps", kLoss, name, [id](auto& h) {
      h.sections[id].stored_bytes = UINT64_MAX - kFelmHeaderBytes;
    }));
    add(InHeader("a section in the header", kLoss, name,
                 [id](auto& h) { h.sections[id].offset_bytes = 64; }));
    add(InHeader("a codec nobody knows", kUnknown, "codec 7",
                 [id](auto& h) { h.sections[id].codec = 7; }));
    add(InHeader("2^63 bytes after decompression", kLoss, name,
                 [id](auto& h) { h.sections[id].raw_bytes = kHuge; }));
  }
  add(InHeader("a manifest of 1 GiB when decompressed", kLoss, "manifest",
               [](auto& h) { h.sections[kManifest].raw_bytes = 1u << 30; }));
  add(InHeader("a manifest of 32 MiB when decompressed", kLoss, "manifest",
               [](auto& h) { h.sections[kManifest].raw_bytes = 32u << 20; }));
  add(InHeader("a manifest one byte longer", kLoss, "manifest",
               [](auto& h) { ++h.sections[kManifest].raw_bytes; }));
  add(InHeader("a manifest one byte shorter", kLoss, "manifest",
               [](auto& h) { --h.sections[kManifest].raw_bytes; }));
  add(InHeader("a manifest said to be plain", kLoss, "manifest", [](auto& h) {
    h.sections[kManifest].codec = 0;
    h.sections[kManifest].raw_bytes = h.sections[kManifest].stored_bytes;
  }));
  add(InHeader("another checksum of the manifest", kLoss, "damaged",
               [](auto& h) { h.sections[kManifest].checksum ^= 1; }));
  add(InHeader("a compressed checksum table", kLoss, "compressed",
               [](auto& h) { h.sections[kChecksums].codec = 1; }));
  add(InHeader("sections in each other", kLoss, "inside",
               [](auto& h) { h.sections[kTokenizer].offset_bytes = 4097; }));
  add(InHeader("sections in another order", kLoss, "inside", [](auto& h) {
    std::swap(h.sections[kTokenizer].offset_bytes,
              h.sections[kChecksums].offset_bytes);
  }));

  // The manifest as a text.
  add(AsManifest("an empty manifest", "JSON", [](auto&) { return ""; }));
  add(AsManifest("no JSON", "JSON", [](auto&) { return "hello"; }));
  add(AsManifest("half a manifest", "JSON", [](const Json& m) {
    return m.dump().substr(0, m.dump().size() / 2);
  }));
  add(AsManifest("something behind the manifest", "JSON",
                 [](const Json& m) { return m.dump() + "x"; }));
  add(AsManifest("two manifests", "JSON",
                 [](const Json& m) { return m.dump() + m.dump(); }));
  add(AsManifest("not an object", "expected an object",
                 [](auto&) { return "[]"; }));
  add(AsManifest("deeper than a manifest is", "nested deeper", [](auto&) {
    return Repeat("[", 100000) + Repeat("]", 100000);
  }));
  add(AsManifest("deep objects", "nested deeper", [](auto&) {
    return Repeat("{\"a\":", 100000) + "1" + Repeat("}", 100000);
  }));
  add(AsManifest("a million values", "values",
                 [](auto&) { return "[" + Repeat("1,", 1000000) + "1]"; }));
  add(AsManifest("a key twice", "twice", [](const Json& m) {
    return "{\"config\":{}," + m.dump().substr(1);
  }));
  add(AsManifest("a zero byte", "JSON", [](const Json& m) {
    return m.dump() + std::string(1, '\0');
  }));

  // What it says.
  for (const char* key : {"config", "provenance", "segments", "tensors"}) {
    add(InManifest("a missing key", kLoss, key,
                   [=](Json& m) { m.erase(key); }));
    add(InManifest("a key of another type", kLoss, key,
                   [=](Json& m) { m[key] = 1; }));
  }
  for (const char* key :
       {"kind", "codec", "addressing", "offset", "records", "stride",
        "checksum", "records_per_checksum", "first_checksum_byte", "parts"}) {
    add(InManifest("a segment without a key", kLoss, key,
                   [=](Json& m) { m["segments"][0].erase(key); }));
    add(InManifest("a segment with null for a key", kLoss, key,
                   [=](Json& m) { m["segments"][0][key] = nullptr; }));
  }
  for (const char* key : {"name", "encoding", "offset", "elements"}) {
    add(InManifest("a part without a key", kLoss, key,
                   [=](Json& m) { m["segments"][0]["parts"][0].erase(key); }));
  }
  for (const char* key : {"name", "rows", "cols", "planes"}) {
    add(InManifest("a tensor without a key", kLoss, key,
                   [=](Json& m) { m["tensors"][0].erase(key); }));
  }
  for (const char* key : {"segment", "part", "bits", "combine"}) {
    add(InManifest("a plane without a key", kLoss, key,
                   [=](Json& m) { m["tensors"][0]["planes"][0].erase(key); }));
  }

  segment("an unknown kind", kUnknown, "\"router\"", "kind", "router");
  segment("an unknown codec", kUnknown, "\"lz4\"", "codec", "lz4");
  segment("an unknown addressing", kUnknown, "\"index\"", "addressing",
          "index");
  segment("an unknown checksum", kUnknown, "\"crc32\"", "checksum", "crc32");
  segment("a kind of a megabyte", kUnknown, "...", "kind",
          std::string(1u << 20, 'x'));
  segment("a layer of 2^32", kLoss, "layer", "layer", uint64_t{1} << 32);
  segment("a negative layer", kLoss, "layer", "layer", -1);
  segment("an offset between pages", kLoss, "multiples", "offset", 24577);
  segment("an offset in the header", kLoss, "inside", "offset", 0);
  segment("an offset in the manifest", kLoss, "inside", "offset", 4096);
  segment("an offset beyond the file", kLoss, "the file has", "offset",
          uint64_t{1} << 40);
  segment("an offset of 2^63", kLoss, "the file has", "offset", kHuge);
  segment("a fractional offset", kLoss, "whole number", "offset", 4096.5);
  segment("an offset beyond 64 bits", kLoss, "whole number", "offset", 1e30);
  segment("no records", kLoss, "0 records", "records", 0);
  segment("2^63 records", kLoss, "records", "records", kHuge);
  segment("records that wrap to few bytes", kLoss, "records", "records",
          (uint64_t{1} << 55) + 1);
  segment("more records than the file", kLoss, "the file has", "records",
          1000000);
  segment("records into the next segment", kLoss, "inside", "records", 110);
  segment("no stride", kLoss, "of 0 bytes", "stride", 0);
  segment("a stride of 2^63", kLoss, "records", "stride", kHuge);
  segment("a stride that breaks alignment", kLoss, "aligned", "stride", 1537);
  segment("a stride shorter than its part", kLoss, "does not fit", "stride",
          1534);
  segment("no records per checksum", kLoss, "per checksum",
          "records_per_checksum", 0);
  segment("more records per checksum than there are", kLoss, "per checksum",
          "records_per_checksum", 101);
  segment("2^63 records per checksum", kLoss, "per checksum",
          "records_per_checksum", kHuge);
  segment("checksums behind the table", kLoss, "the table has",
          "first_checksum_byte", 100000);
  segment("checksums at 2^63", kLoss, "the table has", "first_checksum_byte",
          kHuge);
  segment("checksums that wrap", kLoss, "the table has", "first_checksum_byte",
          UINT64_MAX - 3);
  segment("checksums between words", kLoss, "multiples", "first_checksum_byte",
          2);
  segment("more checksums than the table has", kLoss, "the table has",
          "records_per_checksum", 1);
  segment("no parts", kLoss, "no parts", "parts", Json::array());
  segment("parts that are numbers", kLoss, "expected an object", "parts",
          Json::array({1, 2}));
  add(InManifest("checksums of two segments in each other", kLoss, "inside",
                 [](Json& m) { m["segments"][1]["first_checksum_byte"] = 0; }));
  add(InManifest("two segments in one place", kLoss, "inside", [](Json& m) {
    m["segments"][5]["offset"] = m["segments"][4]["offset"];
  }));
  add(InManifest("segments in another order", kLoss, "inside", [](Json& m) {
    std::swap(m["segments"][4], m["segments"][5]);
  }));
  add(InManifest("a segment that is a number", kLoss, "expected an object",
                 [](Json& m) { m["segments"][0] = 7; }));
  add(InManifest("no segments at all", kLoss, "ends at byte",
                 [](Json& m) { m["segments"] = Json::array(); }));
  add(InManifest("the last segment missing", kLoss, "the last segment ends",
                 [](Json& m) {
                   m["segments"].erase(9);
                   m["tensors"].erase(m["tensors"].size() - 1);
                 }));

  part("an unknown encoding", kUnknown, "\"q3_k\"", "encoding", "q3_k");
  part("a part outside the record", kLoss, "does not fit", "offset", 2050);
  part("a part at 2^63", kLoss, "does not fit", "offset", kHuge);
  part("a part of 2^63 elements", kLoss, "does not fit", "elements", kHuge);
  part("a part that wraps", kLoss, "does not fit", "elements",
       (uint64_t{1} << 60) + 1);
  part("parts in each other", kLoss, "overlaps", "offset", 1022);
  part("a part between elements", kLoss, "aligned", "offset", 1025);
  part("a part too wide for its place", kLoss, "overlaps", "elements", 513);

  // Codes: segment 4 has three parts of 512 elements in 1024 bytes each.
  const auto coded = [&](const char* name, const char* says, Json edits) {
    add(InManifest(name, kLoss, says, [=](Json& m) {
      m["segments"][4]["parts"][1].update(edits);
    }));
  };
  coded("q8 that ends inside a group", "whole groups of 32",
        {{"encoding", "q8"}, {"elements", 500}});
  coded("q4 of half a group", "whole groups of 32",
        {{"encoding", "q4"}, {"elements", 16}});
  coded("nibbles that end inside a group", "whole groups of 32",
        {{"encoding", "nibble"}, {"elements", 33}});
  coded("q4 with scales between bytes of others", "aligned to 2",
        {{"encoding", "q4"}, {"offset", 1025}});
  coded("q8 whose scales run into the next part", "overlaps",
        {{"encoding", "q8"}, {"elements", 992}});
  coded("q4 whose scales run into the next part", "overlaps",
        {{"encoding", "q4"}, {"elements", 1824}});
  coded("q8 whose scales run out of the record", "does not fit",
        {{"encoding", "q8"}, {"elements", 1952}});
  coded("q4 of 2^63 elements", "does not fit",
        {{"encoding", "q4"}, {"elements", kHuge}});
  coded("q8 that wraps to one group", "does not fit",
        {{"encoding", "q8"}, {"elements", (uint64_t{1} << 61) + 32}});
  coded("q4 in a plane of 16 bits", "encoding q4 has 4", {{"encoding", "q4"}});
  coded("q8 in a plane of 16 bits", "encoding q8 has 8", {{"encoding", "q8"}});
  add(InManifest("a stride that puts every other scale between words", kLoss,
                 "aligned to 2", [](Json& m) {
                   m["segments"][0]["parts"][0]["encoding"] = "q8";
                   m["segments"][0]["stride"] = 1535;
                 }));
  const auto nibbles = [](Json& m, const char* combine) {
    m["segments"][0]["parts"][0]["encoding"] = "nibble";
    m["tensors"][0]["planes"][0]["bits"] = 4;
    m["tensors"][0]["planes"][0]["combine"] = combine;
  };
  add(InManifest("nibbles without a plane that they refine", kLoss,
                 "with the q4 plane before it",
                 [=](Json& m) { nibbles(m, "low-nibble"); }));
  add(InManifest("nibbles that are a plane of their own", kLoss,
                 "with the q4 plane before it",
                 [=](Json& m) { nibbles(m, "none"); }));
  plane("bf16 that is said to refine", kLoss, "plane 0 is bf16", "combine",
        "low-nibble");

  tensor("other rows", kLoss, "shape [99", "rows", 99);
  tensor("other columns", kLoss, "767", "cols", 767);
  tensor("2^63 rows", kLoss, "shape", "rows", kHuge);
  tensor("no planes", kLoss, "no planes", "planes", Json::array());
  tensor("a name that is a number", kLoss, "expected a string", "name", 5);
  add(InManifest("a tensor twice", kLoss, "twice",
                 [](Json& m) { m["tensors"].push_back(m["tensors"][0]); }));
  plane("a segment that is not there", kLoss, "segment 10", "segment", 10);
  plane("segment 2^32", kLoss, "segment", "segment", uint64_t{1} << 32);
  plane("another segment", kLoss, "shape", "segment", 2);
  plane("a part that is not there", kLoss, "part 1", "part", 1);
  plane("other bits", kLoss, "bits", "bits", 32);
  return cases;
}

TEST(WeightFileMalformedTest, NamesWhatIsWrong) {
  const std::vector<Malformed> cases = MalformedFiles();
  for (const Malformed& malformed : cases) {
    SCOPED_TRACE(StatusMessage::Join(malformed.name, " / ", malformed.says));
    const auto weights = Open(EditFelm(SharedTestModel().file, malformed.edit));
    if (weights) {
      ADD_FAILURE() << "opened";
      continue;
    }
    const Status& status = weights.error();
    EXPECT_EQ(status.code(), malformed.code) << status.message();
    EXPECT_NE(status.message().find(malformed.says), std::string::npos)
        << status.message();
    EXPECT_EQ(status.message().rfind("memory.felm", 0), 0u);
    EXPECT_LT(status.message().size(), 1000u);
  }
  EXPECT_GE(cases.size(), 100u);
}

TEST(WeightFileMalformedTest, AnUntouchedEditOpens) {
  FelmEdit edit;
  edit.manifest = [](Json& m) { m["unknown_key"] = "is ignored"; };
  EXPECT_TRUE(Open(EditFelm(SharedTestModel().file, edit)));
}

// A large file whose sections are said to be large: nothing may be taken for
// them. MemoryFile claims the size, so none of this is anywhere.
TEST(WeightFileMalformedTest, LargeFilesDoNotMakeLargeSections) {
  constexpr uint64_t kFileBytes = uint64_t{1} << 50;
  for (const SectionId id : {kManifest, kTokenizer}) {
    FelmEdit edit;
    edit.header = [id](FelmHeader& header) {
      header.file_bytes = kFileBytes;
      header.sections[id].stored_bytes = uint64_t{1} << 45;
    };
    const auto weights = WeightFile::Open(std::make_unique<MemoryFile>(
        ShareBytes(EditFelm(SharedTestModel().file, edit)), kFileBytes,
        "large.felm"));
    ASSERT_FALSE(weights);
    EXPECT_EQ(weights.error().code(), StatusCode::kDataLoss);
    EXPECT_NE(weights.error().message().find("expected at most"),
              std::string::npos);
  }
}

// The embedding, said to fill a file of 2^62 bytes.
TEST(WeightFileMalformedTest, LargeFilesDoNotMakeLargeUnits) {
  constexpr uint64_t kFileBytes = uint64_t{1} << 62;
  const auto open = [&](uint64_t records, uint64_t stride,
                        uint64_t per_checksum, const char* kind) {
    FelmEdit edit;
    edit.manifest = [&](Json& m) {
      Json& segment = m["segments"][0];
      segment["records"] = records;
      segment["stride"] = stride;
      segment["records_per_checksum"] = per_checksum;
      segment["checksum"] = kind;
    };
    edit.header = [&](FelmHeader& header) { header.file_bytes = kFileBytes; };
    const auto weights = WeightFile::Open(std::make_unique<MemoryFile>(
        ShareBytes(EditFelm(SharedTestModel().file, edit)), kFileBytes,
        "large.felm"));
    EXPECT_FALSE(weights);
    return weights ? OkStatus() : weights.error();
  };
  // One checksum for petabytes.
  EXPECT_NE(open(uint64_t{1} << 40, 1536, uint64_t{1} << 40, "xxh3")
                .message()
                .find("share a checksum"),
            std::string::npos);
  // One record of petabytes.
  EXPECT_NE(open(1, uint64_t{1} << 50, 1, "xxh3").message().find("share"),
            std::string::npos);
  // A page run times a block beyond 64 bits.
  EXPECT_NE(open((uint64_t{1} << 53) + 1, 258, (uint64_t{1} << 53) + 1, "xxh3")
                .message()
                .find("share"),
            std::string::npos);
  // Checksums whose bytes wrap to 0.
  EXPECT_NE(open(uint64_t{1} << 61, 1, 1, "xxh3").message().find("table has"),
            std::string::npos);
}

TEST(WeightFileMalformedTest, DamageToTokenizerAndTableIsFoundWhenRead) {
  const FelmHeader header = ReadFelmHeader(SharedTestModel().file);
  for (const SectionId id : {kTokenizer, kChecksums}) {
    const Section& section = header.sections[id];
    for (uint64_t at = 0; at < section.stored_bytes; at += 3) {
      std::vector<std::byte> file = SharedTestModel().file;
      file[section.offset_bytes + at] ^= std::byte{4};
      const auto weights = Open(std::move(file));
      ASSERT_TRUE(weights);
      MemoryBudget budget(UINT64_MAX);
      auto table = AlignedBuffer::Create(header.sections[kChecksums].raw_bytes,
                                         budget, "table");
      ASSERT_TRUE(table);
      const auto tokenizer = weights->ReadTokenizer();
      const Status checksums = weights->ReadChecksums(table->bytes());
      EXPECT_EQ(tokenizer.has_value(), id != kTokenizer);
      EXPECT_EQ(checksums.ok(), id != kChecksums);
      const Status& status = id == kTokenizer ? tokenizer.error() : checksums;
      EXPECT_EQ(status.code(), StatusCode::kDataLoss);
      EXPECT_NE(status.message().find(kSectionNames[id]), std::string::npos);
    }
  }
}

TEST(WeightFileMalformedTest, ATokenizerFrameThatLiesIsRefused) {
  FelmEdit edit;
  edit.header = [](FelmHeader& header) {
    header.sections[kTokenizer].raw_bytes = 1u << 20;
  };
  const auto weights = Open(EditFelm(SharedTestModel().file, edit));
  ASSERT_TRUE(weights);
  const auto tokenizer = weights->ReadTokenizer();
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code(), StatusCode::kDataLoss);
}

TEST(WeightFileMalformedTest, ATableBetweenPagesIsRefused) {
  FelmEdit edit;
  edit.header = [](FelmHeader& header) {
    Section& table = header.sections[kChecksums];
    table.offset_bytes += 8;
    table.stored_bytes = table.raw_bytes;
  };
  const auto weights = Open(EditFelm(SharedTestModel().file, edit));
  ASSERT_TRUE(weights) << weights.error().message();
  MemoryBudget budget(UINT64_MAX);
  auto table = AlignedBuffer::Create(8192, budget, "table");
  ASSERT_TRUE(table);
  EXPECT_EQ(weights->ReadChecksums(table->bytes()).code(),
            StatusCode::kDataLoss);
}

// ---------------------------------------------------------------------------

ModelConfig OneLayerConfig() {
  ModelConfig config;
  config.vocab_size = 16;
  config.model_dim = 32;
  config.head_dim = 16;
  config.num_gqa_groups = 2;
  config.max_context = 64;
  config.activation = "swish";
  config.layers = {{2, 1, 12}};
  return config;
}

WeightFileContents LayoutContents(const ModelConfig& config, Encoding encoding,
                                  const LayoutOptions& options) {
  ModelLayout layout =
      MakeLayout(config, MatrixEncodings::All(encoding), options);
  WeightFileContents contents;
  contents.config = ConfigToJson(config);
  contents.segments = std::move(layout.segments);
  contents.tensors = std::move(layout.tensors);
  return contents;
}

TEST(WeightFileTest, FindsAGateInASegmentOfItsOwn) {
  const ModelConfig config = OneLayerConfig();
  const WeightFileContents contents =
      LayoutContents(config, Encoding::kQ8, {.split_gate = true});
  const WeightFile weights = MakeTestModel(contents, 7).Open();
  std::vector<SegmentKind> kinds;
  for (const Segment& segment : weights.segments()) {
    kinds.push_back(segment.kind);
  }
  EXPECT_EQ(kinds,
            (std::vector<SegmentKind>{
                SegmentKind::kEmbedding, SegmentKind::kNorms, SegmentKind::kQkv,
                SegmentKind::kAttentionOut, SegmentKind::kFfnGate,
                SegmentKind::kFfn, SegmentKind::kFinalNorm}));
  const auto found = FindWeights(config, weights);
  ASSERT_TRUE(found) << found.error().message();
  const LayerWeights& layer = found->layers[0];
  EXPECT_TRUE(layer.has_split_gate());
  EXPECT_FALSE(layer.importance);
  EXPECT_EQ(layer.gate.segment, 4u);
  EXPECT_EQ(layer.gate.offset_bytes, 0u);
  EXPECT_EQ(layer.up.segment, 5u);
  EXPECT_EQ(layer.up.offset_bytes, 0u);
  EXPECT_EQ(layer.down.segment, 5u);
  EXPECT_EQ(layer.down.offset_bytes, 34u);
  // Each neuron has a checksum, as in bundles.
  const Segment& gates = weights.segments()[4];
  EXPECT_EQ(gates.stride_bytes, 64u);
  EXPECT_EQ(gates.records_per_checksum, 1u);
  EXPECT_EQ(gates.Describe(), "layer 0 ffn_gate");
}

TEST(WeightFileTest, FindsRowsInSegmentsOfTheirOwn) {
  const ModelConfig config = OneLayerConfig();
  const WeightFileContents contents =
      LayoutContents(config, Encoding::kQ8, {.rows = true});
  const WeightFile weights = MakeTestModel(contents, 7).Open();
  const auto found = FindWeights(config, weights);
  ASSERT_TRUE(found) << found.error().message();
  const LayerWeights& layer = found->layers[0];
  EXPECT_TRUE(layer.has_split_gate());
  EXPECT_TRUE(layer.has_split_down());
  const std::pair<const PartRef*, const char*> parts[] = {
      {&layer.gate, "layer 0 ffn_gate"},
      {&layer.up, "layer 0 ffn_up"},
      {&layer.down, "layer 0 ffn_down"}};
  uint32_t index = 4;
  for (const auto& [part, name] : parts) {
    EXPECT_EQ(part->segment, index++);
    EXPECT_EQ(part->offset_bytes, 0u);
    const Segment& segment = weights.segments()[part->segment];
    EXPECT_EQ(segment.Describe(), name);
    EXPECT_EQ(segment.records_per_checksum, 1u);
  }

  WeightFileContents other = contents;
  other.segments[6].kind = SegmentKind::kFfn;
  const auto refused = FindWeights(config, MakeTestModel(other, 7).Open());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kDataLoss);
  EXPECT_NE(refused.error().message().find(
                "\"layers.0.ffn_down\" lies in a ffn segment, expected "
                "ffn_down"),
            std::string::npos)
      << refused.error().message();
}

TEST(WeightFileTest, FindsTheImportanceOfNeurons) {
  const ModelConfig config = OneLayerConfig();
  const WeightFileContents contents =
      LayoutContents(config, Encoding::kBf16, {.neuron_stats = true});
  const WeightFile weights = MakeTestModel(contents, 8).Open();
  const auto found = FindWeights(config, weights);
  ASSERT_TRUE(found) << found.error().message();
  const LayerWeights& layer = found->layers[0];
  EXPECT_FALSE(layer.has_split_gate());
  ASSERT_TRUE(layer.importance);
  const Segment& segment = weights.segments()[layer.importance->segment];
  EXPECT_EQ(segment.kind, SegmentKind::kPredictor);
  EXPECT_EQ(segment.num_records, 1u);
  EXPECT_EQ(segment.parts[0].num_elements, 12u);
  EXPECT_LT(layer.importance->segment, layer.gate.segment);
}

// Two layers, the second as in a file of another layout.
WeightFileContents Mixed(const ModelConfig& config, const LayoutOptions& first,
                         const LayoutOptions& second) {
  WeightFileContents mixed = LayoutContents(config, Encoding::kF32, first);
  const WeightFileContents other =
      LayoutContents(config, Encoding::kF32, second);
  const auto begin_of = [](const WeightFileContents& contents) {
    const auto& segments = contents.segments;
    return static_cast<size_t>(
        std::find_if(segments.begin(), segments.end(),
                     [](const Segment& s) { return s.layer == 1u; }) -
        segments.begin());
  };
  const size_t end = begin_of(mixed);
  const size_t begin = begin_of(other);
  mixed.segments.resize(end);
  mixed.segments.insert(mixed.segments.end(),
                        other.segments.begin() + static_cast<ptrdiff_t>(begin),
                        other.segments.end());
  std::erase_if(mixed.tensors,
                [&](const Tensor& t) { return t.planes[0].segment >= end; });
  for (Tensor tensor : other.tensors) {
    uint32_t& segment = tensor.planes[0].segment;
    if (segment < begin) continue;
    segment = static_cast<uint32_t>(segment - begin + end);
    mixed.tensors.push_back(tensor);
  }
  return mixed;
}

TEST(WeightFileTest, RefusesLayersOfDifferentForms) {
  ModelConfig config = OneLayerConfig();
  config.layers.push_back(config.layers[0]);
  const std::vector<LayoutOptions> forms = {
      {}, {.neuron_stats = true}, {.split_gate = true}, {.rows = true}};
  for (size_t i = 0; i < forms.size(); ++i) {
    for (size_t j = 0; j < forms.size(); ++j) {
      const auto found = FindWeights(
          config, MakeTestModel(Mixed(config, forms[i], forms[j]), 10).Open());
      ASSERT_EQ(found.has_value(), i == j) << i << j;
      if (i == j) continue;
      EXPECT_EQ(found.error().code(), StatusCode::kUnimplemented);
      EXPECT_NE(found.error().message().find("layers 0 and 1"),
                std::string::npos);
    }
  }
}

TEST(WeightFileTest, ASegmentThatIsNobodysIsRefused) {
  const ModelConfig config = OneLayerConfig();
  WeightFileContents contents =
      LayoutContents(config, Encoding::kF32, {.neuron_stats = true});
  // A predictor segment whose importance has another name.
  for (Tensor& tensor : contents.tensors) {
    if (tensor.name == "layers.0.ffn_importance") tensor.name = "other";
  }
  const auto found = FindWeights(config, MakeTestModel(contents, 11).Open());
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), StatusCode::kDataLoss);
  EXPECT_NE(found.error().message().find("belongs to no tensor"),
            std::string::npos);
}

TEST(WeightFileTest, FrequenciesMayBeMissing) {
  const ModelConfig config = OneLayerConfig();
  WeightFileContents contents =
      LayoutContents(config, Encoding::kF32, {.neuron_stats = true});
  std::erase_if(contents.tensors, [](const Tensor& tensor) {
    return tensor.name == "layers.0.ffn_frequency";
  });
  const auto found = FindWeights(config, MakeTestModel(contents, 12).Open());
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_TRUE(found->layers[0].importance);
  EXPECT_FALSE(found->layers[0].frequency);
}

TEST(WeightFileTest, RefusesCalibratedLayersThatContradictTheModel) {
  const ModelConfig config = OneLayerConfig();
  const WeightFileContents good = LayoutContents(
      config, Encoding::kF32, {.split_gate = true, .neuron_stats = true});
  ASSERT_TRUE(FindWeights(config, MakeTestModel(good, 9).Open()));
  constexpr size_t kPredictor = 4;
  constexpr size_t kGate = 5;
  const auto refused = [&](const WeightFileContents& contents, StatusCode code,
                           const std::string& part) {
    const auto found = FindWeights(config, MakeTestModel(contents, 9).Open());
    ASSERT_FALSE(found) << part;
    EXPECT_EQ(found.error().code(), code) << found.error().message();
    EXPECT_NE(found.error().message().find(part), std::string::npos)
        << found.error().message();
  };
  const auto tensor_of = [](WeightFileContents& contents,
                            size_t segment) -> Tensor& {
    return *std::find_if(
        contents.tensors.begin(), contents.tensors.end(),
        [&](const Tensor& t) { return t.planes[0].segment == segment; });
  };

  WeightFileContents other = good;
  other.segments[kGate].kind = SegmentKind::kQkv;
  refused(other, StatusCode::kDataLoss, "\"layers.0.ffn_gate\" lies in a qkv");

  other = good;
  other.segments[kGate + 1].kind = SegmentKind::kFfnGate;
  refused(other, StatusCode::kDataLoss,
          "\"layers.0.ffn_up\" lies in a ffn_gate segment, expected ffn");

  other = good;
  other.segments[kPredictor].kind = SegmentKind::kNorms;
  refused(other, StatusCode::kDataLoss,
          "\"layers.0.ffn_importance\" lies in a norms");

  other = good;
  other.segments[kPredictor].parts[0].num_elements = 11;
  tensor_of(other, kPredictor).cols = 11;
  refused(other, StatusCode::kDataLoss,
          "\"layers.0.ffn_importance\" has shape [1, 11], expected [1, 12]");

  other = good;
  other.segments[kPredictor].parts[0].encoding = Encoding::kBf16;
  tensor_of(other, kPredictor).planes[0].bits = 16;
  refused(other, StatusCode::kUnimplemented, "is bf16, expected f32");
}

// A model of one layer whose gate, up and down are q4 with a refining plane of
// nibbles each, in a second ffn segment.
TEST(WeightFileTest, ListsTwoPlanesThatTheEngineRefusesByName) {
  const ModelConfig config = OneLayerConfig();
  const ModelLayout layout =
      MakeLayout(config, MatrixEncodings::All(Encoding::kQ4));
  const WeightFileContents one_plane =
      LayoutContents(config, Encoding::kQ4, {});
  const WeightFile plain = MakeTestModel(one_plane, 5).Open();
  EXPECT_TRUE(FindWeights(config, plain));

  WeightFileContents two_planes = one_plane;
  const auto ffn = std::find_if(
      layout.segments.begin(), layout.segments.end(),
      [](const Segment& s) { return s.kind == SegmentKind::kFfn; });
  ASSERT_NE(ffn, layout.segments.end());
  const auto coarse = static_cast<uint32_t>(ffn - layout.segments.begin());
  // Behind the final norm, which keeps the numbers of the others.
  const auto refining = static_cast<uint32_t>(layout.segments.size());
  Segment nibbles = *ffn;
  nibbles.stride_bytes = 0;
  for (Part& part : nibbles.parts) {
    part.encoding = Encoding::kNibble;
    part.offset_bytes = nibbles.stride_bytes;
    nibbles.stride_bytes += part.num_bytes();
  }
  two_planes.segments.push_back(nibbles);
  for (Tensor& tensor : two_planes.tensors) {
    if (tensor.planes[0].segment != coarse) continue;
    Plane plane = tensor.planes[0];
    plane.segment = refining;
    plane.combine = kCombineNibbles;
    tensor.planes.push_back(plane);
  }
  const TestModel model = MakeTestModel(two_planes, 6);
  const WeightFile weights = model.Open();
  const Tensor* gate = weights.FindTensor("layers.0.ffn_gate");
  ASSERT_NE(gate, nullptr);
  ASSERT_EQ(gate->planes.size(), 2u);
  EXPECT_EQ(gate->planes[0].segment, coarse);
  EXPECT_EQ(gate->planes[0].combine, "none");
  EXPECT_EQ(gate->planes[1].segment, refining);
  EXPECT_EQ(gate->planes[1].combine, "low-nibble");
  EXPECT_EQ(gate->planes[1].bits, 4u);
  EXPECT_EQ(weights.segments()[refining].num_records, 12u);
  EXPECT_EQ(weights.segments()[refining].stride_bytes, 3u * 16);

  const auto found = FindWeights(config, weights);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), StatusCode::kUnimplemented);
  for (const char* part : {"layers.0.ffn_gate", "2 planes", "\"low-nibble\""}) {
    EXPECT_NE(found.error().message().find(part), std::string::npos)
        << found.error().message();
  }

  // One plane of two that was left: it would have to be combined with nothing.
  FelmEdit edit;
  edit.manifest = [](Json& m) {
    for (Json& tensor : m["tensors"]) {
      if (tensor["name"] == "layers.0.ffn_gate") tensor["planes"].erase(0);
    }
  };
  const auto half = Open(EditFelm(model.file, edit));
  ASSERT_FALSE(half);
  EXPECT_EQ(half.error().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace flashelm
