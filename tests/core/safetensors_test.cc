#include "core/convert/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/float_types.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm {
namespace {

using test::RawTensor;
using test::SafetensorsBytes;
using test::TempDirectory;

class SafetensorsTest : public testing::Test {
 protected:
  Result<SafetensorsFile> OpenBytes(std::string_view bytes) {
    test::WriteFile(path(), bytes);
    return SafetensorsFile::Open(path());
  }
  std::string path() const { return directory_.File("weights.safetensors"); }

  TempDirectory directory_;
};

TEST_F(SafetensorsTest, ListsTensorsInFileOrderWithTheirPlaces) {
  const std::vector<RawTensor> tensors = {
      {"z", "F32", {2, 3}, std::string(24, 'z')},
      {"empty", "F16", {0, 7}, ""},
      {"a", "BF16", {5}, std::string(10, 'a')},
      {"scalar", "F32", {}, std::string(4, 's')},
      {"odd", "I64", {1}, std::string(8, 'o')}};
  auto file = OpenBytes(SafetensorsBytes(tensors));
  ASSERT_TRUE(file) << file.error().message();
  ASSERT_EQ(file->tensors().size(), tensors.size());
  uint64_t at = file->data_offset_bytes();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const SafetensorsTensor& found = file->tensors()[i];
    EXPECT_EQ(found.name, tensors[i].name);
    EXPECT_EQ(found.type_name, tensors[i].dtype);
    EXPECT_EQ(found.shape, tensors[i].shape);
    EXPECT_EQ(found.offset_bytes, at);
    EXPECT_EQ(found.num_bytes, tensors[i].bytes.size());
    at += found.num_bytes;
  }
  EXPECT_EQ(file->Find("scalar")->num_elements, 1u);
  EXPECT_EQ(file->Find("a"), &file->tensors()[2]);
  EXPECT_EQ(file->Find("b"), nullptr);
}

TEST_F(SafetensorsTest, AFileWithoutTensorsIsAFile) {
  auto file = OpenBytes(SafetensorsBytes("{}", ""));
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_TRUE(file->tensors().empty());
}

TEST_F(SafetensorsTest, EveryF16AndBf16PatternIsReadExactly) {
  std::string patterns;
  for (uint32_t bits = 0; bits < 1u << 16; ++bits) {
    patterns += static_cast<char>(bits & 0xFF);
    patterns += static_cast<char>(bits >> 8);
  }
  const std::vector<RawTensor> tensors = {
      {"f16", "F16", {1u << 16}, patterns},
      {"bf16", "BF16", {256, 256}, patterns}};
  auto file = OpenBytes(SafetensorsBytes(tensors));
  ASSERT_TRUE(file) << file.error().message();
  std::vector<float> values(1u << 16);
  ASSERT_TRUE(file->ReadF32(*file->Find("f16"), 0, values).ok());
  for (uint32_t bits = 0; bits < values.size(); ++bits) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]),
              std::bit_cast<uint32_t>(F32FromF16(static_cast<F16>(bits))));
  }
  ASSERT_TRUE(file->ReadF32(*file->Find("bf16"), 0, values).ok());
  for (uint32_t bits = 0; bits < values.size(); ++bits) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]), bits << 16);
  }
}

TEST_F(SafetensorsTest, AnyRangeEqualsThatRangeOfTheWhole) {
  std::vector<float> values(10000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  std::vector<RawTensor> tensors;
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    tensors.push_back(
        {dtype, dtype, {100, 100}, test::EncodeValues(values, dtype)});
  }
  auto file = OpenBytes(SafetensorsBytes(tensors));
  ASSERT_TRUE(file) << file.error().message();
  std::mt19937 random(1);
  for (const SafetensorsTensor& tensor : file->tensors()) {
    std::vector<float> whole(values.size());
    ASSERT_TRUE(file->ReadF32(tensor, 0, whole).ok());
    for (int i = 0; i < 200; ++i) {
      const size_t first = random() % (whole.size() + 1);
      std::vector<float> part(random() % (whole.size() - first + 1));
      ASSERT_TRUE(file->ReadF32(tensor, first, part).ok());
      ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first));
    }
  }
}

TEST_F(SafetensorsTest, RangesBeyondTheTensorAreRefused) {
  const std::vector<RawTensor> tensors = {
      {"a", "F32", {4}, std::string(16, '\0')},
      {"b", "F32", {4}, std::string(16, '\0')}};
  auto file = OpenBytes(SafetensorsBytes(tensors));
  ASSERT_TRUE(file);
  const SafetensorsTensor& a = *file->Find("a");
  std::vector<float> out(2);
  EXPECT_TRUE(file->ReadF32(a, 2, out).ok());
  EXPECT_EQ(file->ReadF32(a, 3, out).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(file->ReadF32(a, 5, {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(file->ReadF32(a, UINT64_MAX, out).code(),
            StatusCode::kInvalidArgument);
  std::vector<std::byte> odd(3);
  EXPECT_EQ(file->ReadRaw(a, 0, odd).code(), StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsTest, AnUnknownTypeFailsOnlyWhenItsValuesAreAskedFor) {
  const std::vector<RawTensor> tensors = {{"bytes", "F8_E4M3", {3}, "abc"},
                                          {"a", "F32", {1}, "abcd"}};
  auto file = OpenBytes(SafetensorsBytes(tensors));
  ASSERT_TRUE(file) << file.error().message();
  std::vector<float> out(1);
  EXPECT_TRUE(file->ReadF32(*file->Find("a"), 0, out).ok());
  const Status status = file->ReadF32(*file->Find("bytes"), 0, out);
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("F8_E4M3"), std::string::npos);
  EXPECT_NE(status.message().find("bytes"), std::string::npos);
}

TEST_F(SafetensorsTest, AFileCutAnywhereIsRefused) {
  const std::vector<RawTensor> tensors = {{"w", "F32", {2}, "12345678"},
                                          {"v", "BF16", {1}, "ab"}};
  const std::string whole = SafetensorsBytes(tensors);
  ASSERT_TRUE(OpenBytes(whole));
  for (size_t size = 0; size < whole.size(); ++size) {
    auto file = OpenBytes(std::string_view(whole).substr(0, size));
    ASSERT_FALSE(file) << "cut to " << size << " bytes";
    EXPECT_EQ(file.error().code(), StatusCode::kDataLoss) << size;
    EXPECT_NE(file.error().message().find(path()), std::string::npos);
  }
  EXPECT_EQ(OpenBytes(whole + '\0').error().code(), StatusCode::kDataLoss);
}

TEST_F(SafetensorsTest, FlippedBitsInTheDirectoryGiveAFileOrAnError) {
  const std::vector<RawTensor> tensors = {
      {"w", "F32", {2, 2}, "0123456789abcdef"}, {"v", "BF16", {1}, "ab"}};
  const std::string whole = SafetensorsBytes(tensors);
  for (size_t bit = 0; bit < 8 * (whole.size() - 18); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    auto file = OpenBytes(damaged);
    if (file) {
      // What it lists can be read.
      for (const SafetensorsTensor& tensor : file->tensors()) {
        if (tensor.type == ElementType::kOther) continue;
        std::vector<float> out(tensor.num_elements);
        EXPECT_TRUE(file->ReadF32(tensor, 0, out).ok()) << bit;
      }
    } else {
      EXPECT_EQ(file.error().code(), StatusCode::kDataLoss) << bit;
    }
  }
}

TEST_F(SafetensorsTest, AMissingFileAndAPipeAreNotRead) {
  EXPECT_EQ(SafetensorsFile::Open(directory_.File("none")).error().code(),
            StatusCode::kNotFound);
  const std::string pipe = directory_.File("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(pipe).error().code(),
            StatusCode::kInvalidArgument);
}

struct Damage {
  const char* name;
  std::string bytes;
  const char* message;  // A part of it.
};

// One tensor "w" with the given members, and 16 bytes of data.
std::string OneTensor(const std::string& members) {
  return SafetensorsBytes("{\"w\":{" + members + "}}", std::string(16, '\0'));
}

TEST_F(SafetensorsTest, DamagedFilesAreRefusedWithTheReason) {
  const std::string length_2_63 = std::string(7, '\0') + '\x80';
  std::string many_values = "[";
  for (int i = 0; i < 300000; ++i) many_values += "0,";
  many_values += "0]";
  const std::vector<Damage> table = {
      {"empty file", "", "length of the directory"},
      {"directory length 0", std::string(16, '\0'), "directory of 0 bytes"},
      {"directory length 1", SafetensorsBytes("1", ""), "directory of 1 bytes"},
      {"directory length 2^63", length_2_63 + "{}", "9223372036854775808"},
      {"directory length 2^64 - 1", std::string(8, '\xFF') + "{}",
       "18446744073709551615"},
      {"directory one byte beyond the file",
       SafetensorsBytes("{}", "").substr(0, 9), "expected 2 to 1"},
      {"directory above 8 MiB",
       SafetensorsBytes("{}" + std::string(8u << 20, ' '), ""),
       "expected 2 to 8388608"},
      {"not JSON", SafetensorsBytes("{w}", ""), "not valid JSON at byte"},
      {"invalid UTF-8", SafetensorsBytes("{\"\xFF\":1}", ""), "not valid JSON"},
      {"an array", SafetensorsBytes("[]", ""), "expected an object"},
      {"deep JSON",
       SafetensorsBytes(std::string(100000, '[') + std::string(100000, ']'),
                        ""),
       "nested deeper"},
      {"many values", SafetensorsBytes("{\"w\":" + many_values + "}", ""),
       "more than"},
      {"repeated tensor",
       SafetensorsBytes("{\"w\":{\"dtype\":\"F32\",\"shape\":[1],"
                        "\"data_offsets\":[0,4]},\"w\":{}}",
                        "1234"),
       "appears twice"},
      {"metadata of numbers",
       SafetensorsBytes("{\"__metadata__\":{\"a\":1}}", ""),
       "expected an object of strings"},
      {"metadata is text", SafetensorsBytes("{\"__metadata__\":\"a\"}", ""),
       "expected an object of strings"},
      {"tensor is a number", SafetensorsBytes("{\"w\":1}", ""),
       "expected an object"},
      {"no dtype", OneTensor(R"("shape":[4],"data_offsets":[0,16])"),
       "\"dtype\" is missing"},
      {"dtype is a number",
       OneTensor(R"("dtype":4,"shape":[4],"data_offsets":[0,16])"),
       "expected a string"},
      {"no shape", OneTensor(R"("dtype":"F32","data_offsets":[0,16])"),
       "\"shape\" is missing"},
      {"negative shape",
       OneTensor(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"),
       "a dimension is -4"},
      {"fractional shape",
       OneTensor(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])"),
       "a dimension is 4.0"},
      {"shape beyond 2^64",
       OneTensor(R"("dtype":"F32","shape":[36893488147419103232],)"
                 R"("data_offsets":[0,16])"),
       "a dimension is 3.68"},
      {"nine dimensions",
       OneTensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],)"
                 R"("data_offsets":[0,16])"),
       "9 dimensions"},
      {"product of the shape beyond 2^64",
       OneTensor(R"("dtype":"F32","shape":[9223372036854775808,2],)"
                 R"("data_offsets":[0,16])"),
       "more than 2^64 elements"},
      {"bytes of the shape beyond 2^64",
       OneTensor(R"("dtype":"F32","shape":[9223372036854775808],)"
                 R"("data_offsets":[0,16])"),
       "more than 2^64"},
      {"no offsets", OneTensor(R"("dtype":"F32","shape":[4])"),
       "\"data_offsets\" is missing"},
      {"three offsets",
       OneTensor(R"("dtype":"F32","shape":[4],"data_offsets":[0,16,32])"),
       "expected two whole numbers"},
      {"negative offset",
       OneTensor(R"("dtype":"F32","shape":[4],"data_offsets":[-16,0])"),
       "\"data_offsets\" has -16"},
      {"begin after end",
       OneTensor(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"),
       "from byte 16 to 0"},
      {"end beyond the file",
       OneTensor(R"("dtype":"F32","shape":[5],"data_offsets":[0,20])"),
       "to 20 of the data, which has 16 bytes"},
      {"end at 2^64 - 1",
       OneTensor(R"("dtype":"F32","shape":[4],)"
                 R"("data_offsets":[0,18446744073709551615])"),
       "which has 16 bytes"},
      {"fewer bytes than the shape",
       OneTensor(R"("dtype":"F32","shape":[5],"data_offsets":[0,16])"),
       "takes 20"},
      {"more bytes than the shape",
       OneTensor(R"("dtype":"BF16","shape":[4],"data_offsets":[0,16])"),
       "takes 8"},
      {"overlapping tensors",
       SafetensorsBytes(
           R"({"v":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
           R"("w":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})",
           std::string(16, '\0')),
       "where the one before ends"},
      {"one tensor inside another",
       SafetensorsBytes(
           R"({"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
           R"("w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           std::string(16, '\0')),
       "where the one before ends"},
      {"hole between tensors",
       SafetensorsBytes(
           R"({"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
           R"("w":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})",
           std::string(16, '\0')),
       "no byte may be unused"},
      {"hole at the front",
       OneTensor(R"("dtype":"F32","shape":[3],"data_offsets":[4,16])"),
       "no byte may be unused"},
      {"bytes behind the tensors",
       OneTensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,12])"),
       "expected no bytes behind them"},
  };
  for (const Damage& damage : table) {
    SCOPED_TRACE(damage.name);
    auto file = OpenBytes(damage.bytes);
    if (file) {
      ADD_FAILURE() << "was opened";
      continue;
    }
    EXPECT_EQ(file.error().code(), StatusCode::kDataLoss);
    EXPECT_NE(file.error().message().find(damage.message), std::string::npos)
        << file.error().message();
    EXPECT_NE(file.error().message().find(path()), std::string::npos);
    EXPECT_LT(file.error().message().size(), 1000u);
  }
}

}  // namespace
}  // namespace flashelm
