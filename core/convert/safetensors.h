// One safetensors file: a length, a JSON directory, and bytes.
#ifndef FLASHELM_CORE_CONVERT_SAFETENSORS_H_
#define FLASHELM_CORE_CONVERT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "storage/file.h"

namespace flashelm {

// The element types that can be read. A tensor of another type may be in a file
// as long as nobody asks for its values.
enum class ElementType : uint8_t { kF32, kF16, kBf16, kOther };
// Bytes of one element; 0 for kOther.
uint32_t ElementBytes(ElementType type);

struct SafetensorsTensor {
  std::string name;
  ElementType type = ElementType::kOther;
  std::string type_name;        // As the file spells it.
  std::vector<uint64_t> shape;  // At most 8 dimensions; none for a scalar.
  uint64_t num_elements = 0;    // The product of `shape`.
  uint64_t offset_bytes = 0;    // In the file.
  uint64_t num_bytes = 0;

  // "tensor "name"", for messages.
  std::string Describe() const;
};

// "[3, 4]", for messages.
std::string DescribeShape(std::span<const uint64_t> shape);

// Every offset, size and count was checked against the file's size; the values
// were not read. The tensors cover the bytes behind the directory exactly, as
// the format demands. Immutable, so thread-safe. Move-only.
class SafetensorsFile {
 public:
  // kNotFound: no file. kDataLoss, naming file, tensor and byte: not a
  // safetensors file, or a damaged one. Memory: a small multiple of the
  // directory, which is refused above 8 MiB.
  static Result<SafetensorsFile> Open(const std::string& path);
  // The same over a file that is open already, without direct_io().
  static Result<SafetensorsFile> Open(std::unique_ptr<RandomAccessFile> file);

  const std::string& path() const { return file_->path(); }
  const RandomAccessFile& file() const { return *file_; }
  // Where the values of the first tensor begin.
  uint64_t data_offset_bytes() const { return data_offset_bytes_; }

  // In file order.
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  // The tensor of that name, or null. Linear in the number of tensors.
  const SafetensorsTensor* Find(std::string_view name) const;

  // Fills `out` with elements of `tensor`, one of tensors(), in row-major order
  // from element `first` on: as they are in the file, whole elements, or
  // widened to f32, which is exact.
  // kUnimplemented: an element type this reader does not know.
  // kInvalidArgument: beyond the tensor. kUnavailable: the device failed.
  Status ReadRaw(const SafetensorsTensor& tensor, uint64_t first,
                 std::span<std::byte> out) const;
  Status ReadF32(const SafetensorsTensor& tensor, uint64_t first,
                 std::span<float> out) const;

 private:
  Status ReadDirectory();

  std::unique_ptr<RandomAccessFile> file_;
  uint64_t data_offset_bytes_ = 0;
  std::vector<SafetensorsTensor> tensors_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_SAFETENSORS_H_
