#include "core/convert/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "core/base/checked_math.h"
#include "kernels/float_types.h"
#include "storage/json.h"

namespace flashelm {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxDirectoryBytes = uint64_t{8} << 20;
constexpr size_t kMaxDimensions = 8;

ElementType ElementTypeFromName(std::string_view name) {
  if (name == "F32") return ElementType::kF32;
  if (name == "F16") return ElementType::kF16;
  if (name == "BF16") return ElementType::kBf16;
  return ElementType::kOther;
}

// `where` begins every message: file and tensor.
Status ParseShape(const Json& entry, std::string_view where,
                  SafetensorsTensor& tensor) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* shape, GetArray(entry, "shape", where));
  if (shape->size() > kMaxDimensions) {
    return DataLoss(where, ": ", shape->size(),
                    " dimensions, expected at most ", kMaxDimensions);
  }
  tensor.num_elements = 1;
  for (const Json& dimension : *shape) {
    if (!dimension.is_number_unsigned()) {
      return DataLoss(where, ": a dimension is ", Describe(dimension),
                      ", expected a whole number of at least 0");
    }
    tensor.shape.push_back(dimension.get<uint64_t>());
    const auto product = CheckedMul(tensor.num_elements, tensor.shape.back());
    if (!product) {
      return DataLoss(where, ": a shape that begins with ",
                      DescribeShape(tensor.shape),
                      " has more than 2^64 elements");
    }
    tensor.num_elements = *product;
  }
  return OkStatus();
}

Status ParseOffsets(const Json& entry, std::string_view where,
                    uint64_t data_offset_bytes, uint64_t data_bytes,
                    SafetensorsTensor& tensor) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* offsets,
                            GetArray(entry, "data_offsets", where));
  if (offsets->size() != 2) {
    return DataLoss(where, ": \"data_offsets\" is ", Describe(*offsets),
                    ", expected two whole numbers");
  }
  for (const Json& offset : *offsets) {
    if (!offset.is_number_unsigned()) {
      return DataLoss(where, ": \"data_offsets\" has ", Describe(offset),
                      ", expected a whole number of at least 0");
    }
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data_bytes) {
    return DataLoss(where, ": values from byte ", begin, " to ", end,
                    " of the data, which has ", data_bytes, " bytes");
  }
  tensor.offset_bytes = data_offset_bytes + begin;
  tensor.num_bytes = end - begin;
  if (tensor.type == ElementType::kOther) return OkStatus();
  const auto expected =
      CheckedMul(tensor.num_elements, ElementBytes(tensor.type));
  if (!expected || *expected != tensor.num_bytes) {
    return DataLoss(
        where, ": ", tensor.num_bytes, " bytes of values at byte ",
        tensor.offset_bytes, ", but shape ", DescribeShape(tensor.shape),
        " of ", tensor.type_name, " takes ",
        expected ? StatusMessage::Join(*expected) : "more than 2^64");
  }
  return OkStatus();
}

Status CheckMetadata(const Json& metadata, std::string_view name) {
  const bool is_text =
      metadata.is_object() &&
      std::all_of(metadata.begin(), metadata.end(),
                  [](const Json& value) { return value.is_string(); });
  if (!is_text) {
    return DataLoss(name, ": \"__metadata__\" is ", Describe(metadata),
                    ", expected an object of strings");
  }
  return OkStatus();
}

}  // namespace

uint32_t ElementBytes(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return 4;
    case ElementType::kF16:
    case ElementType::kBf16:
      return 2;
    case ElementType::kOther:
      break;
  }
  return 0;
}

std::string SafetensorsTensor::Describe() const {
  return StatusMessage::Join("tensor ", flashelm::Describe(Json(name)));
}

std::string DescribeShape(std::span<const uint64_t> shape) {
  std::string out = "[";
  for (const uint64_t dimension : shape) {
    if (out.size() > 1) out += ", ";
    out += StatusMessage::Join(dimension);
  }
  return out + "]";
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  FLASHELM_ASSIGN_OR_RETURN(auto file, OpenFile(path, CacheMode::kBuffered));
  return Open(std::move(file));
}

Result<SafetensorsFile> SafetensorsFile::Open(
    std::unique_ptr<RandomAccessFile> file) {
  SafetensorsFile out;
  out.file_ = std::move(file);
  FLASHELM_RETURN_IF_ERROR(out.ReadDirectory());
  return out;
}

Status SafetensorsFile::ReadDirectory() {
  const std::string& name = path();
  const uint64_t size_bytes = file_->size_bytes();
  std::array<std::byte, kLengthBytes> length_bytes;
  FLASHELM_RETURN_IF_ERROR(
      ReadExactly(*file_, 0, length_bytes, "the length of the directory"));
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | std::to_integer<uint64_t>(length_bytes[i]);
  }
  const uint64_t most = std::min(size_bytes - kLengthBytes, kMaxDirectoryBytes);
  if (length < 2 || length > most) {
    return DataLoss(name, ": a directory of ", length,
                    " bytes at byte 8, expected 2 to ", most);
  }
  std::string text(length, '\0');
  FLASHELM_RETURN_IF_ERROR(ReadExactly(*file_, kLengthBytes,
                                       std::as_writable_bytes(std::span(text)),
                                       "the directory"));
  FLASHELM_ASSIGN_OR_RETURN(
      const Json directory,
      ParseJson(text, StatusMessage::Join(name, ": directory")));
  std::string().swap(text);  // An assignment would keep the memory.
  if (!directory.is_object()) {
    return DataLoss(name, ": the directory is ", Describe(directory),
                    ", expected an object");
  }
  data_offset_bytes_ = kLengthBytes + length;
  const uint64_t data_bytes = size_bytes - data_offset_bytes_;
  for (const auto& [key, entry] : directory.items()) {
    if (key == "__metadata__") {
      FLASHELM_RETURN_IF_ERROR(CheckMetadata(entry, name));
      continue;
    }
    SafetensorsTensor tensor;
    tensor.name = key;
    const std::string where =
        StatusMessage::Join(name, ": ", tensor.Describe());
    FLASHELM_ASSIGN_OR_RETURN(const std::string_view type_name,
                              GetString(entry, "dtype", where));
    tensor.type_name = std::string(type_name);
    tensor.type = ElementTypeFromName(type_name);
    FLASHELM_RETURN_IF_ERROR(ParseShape(entry, where, tensor));
    FLASHELM_RETURN_IF_ERROR(
        ParseOffsets(entry, where, data_offset_bytes_, data_bytes, tensor));
    tensors_.push_back(std::move(tensor));
  }
  // By end, too: an empty tensor lies in front of one with the same start.
  std::sort(tensors_.begin(), tensors_.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return std::tie(a.offset_bytes, a.num_bytes) <
                     std::tie(b.offset_bytes, b.num_bytes);
            });
  uint64_t at = data_offset_bytes_;
  for (const SafetensorsTensor& tensor : tensors_) {
    if (tensor.offset_bytes != at) {
      return DataLoss(name, ": ", tensor.Describe(), " begins at byte ",
                      tensor.offset_bytes, ", expected ", at,
                      tensor.offset_bytes < at ? ", where the one before ends"
                                               : ", as no byte may be unused");
    }
    at += tensor.num_bytes;
  }
  if (at != size_bytes) {
    return DataLoss(name, ": the tensors end at byte ", at, " of ", size_bytes,
                    ", expected no bytes behind them");
  }
  return OkStatus();
}

const SafetensorsTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto it = std::find_if(
      tensors_.begin(), tensors_.end(),
      [&](const SafetensorsTensor& tensor) { return tensor.name == name; });
  return it == tensors_.end() ? nullptr : &*it;
}

Status SafetensorsFile::ReadRaw(const SafetensorsTensor& tensor, uint64_t first,
                                std::span<std::byte> out) const {
  const uint32_t element_bytes = ElementBytes(tensor.type);
  if (element_bytes == 0) {
    return Unimplemented(path(), ": ", tensor.Describe(), " is of type ",
                         Describe(Json(tensor.type_name)),
                         ", known are F32, F16 and BF16");
  }
  const uint64_t count = out.size() / element_bytes;
  if (out.size() % element_bytes != 0 || first > tensor.num_elements ||
      count > tensor.num_elements - first) {
    return InvalidArgument(path(), ": ", tensor.Describe(), ": ", out.size(),
                           " bytes from element ", first, " of ",
                           tensor.num_elements);
  }
  return ReadExactly(*file_, tensor.offset_bytes + first * element_bytes, out,
                     tensor.name);
}

Status SafetensorsFile::ReadF32(const SafetensorsTensor& tensor, uint64_t first,
                                std::span<float> out) const {
  const std::span<std::byte> bytes = std::as_writable_bytes(out);
  if (ElementBytes(tensor.type) != 2) return ReadRaw(tensor, first, bytes);
  // The narrow values go to the back half and are widened from the front; a
  // chunk is copied out before its place is written, and those behind it lie
  // further back than what is written.
  const std::span<std::byte> narrow = bytes.last(bytes.size() / 2);
  FLASHELM_RETURN_IF_ERROR(ReadRaw(tensor, first, narrow));
  std::array<uint16_t, 2048> chunk;
  for (size_t at = 0; at < out.size(); at += chunk.size()) {
    const size_t count = std::min(chunk.size(), out.size() - at);
    std::memcpy(chunk.data(), narrow.data() + at * 2, count * 2);
    if (tensor.type == ElementType::kF16) {
      ConvertF16ToF32(chunk.data(), count, out.data() + at);
    } else {
      ConvertBf16ToF32(chunk.data(), count, out.data() + at);
    }
  }
  return OkStatus();
}

}  // namespace flashelm
