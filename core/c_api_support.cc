#include "core/c_api_support.h"

#include <algorithm>
#include <cstring>

namespace flashelm {
namespace {

// No struct of this interface ever becomes larger.
constexpr size_t kMaxStructBytes = 4096;

size_t StructSize(const void* caller) {
  size_t size = 0;
  std::memcpy(&size, caller, sizeof(size));
  return size;
}

// The codes are those of StatusCode.

template <StatusCode kCode, flashelm_code kCCode>
constexpr bool kSame = static_cast<int>(kCode) == static_cast<int>(kCCode);
static_assert(kSame<StatusCode::kOk, FLASHELM_OK>);
static_assert(kSame<StatusCode::kInvalidArgument, FLASHELM_INVALID_ARGUMENT>);
static_assert(kSame<StatusCode::kNotFound, FLASHELM_NOT_FOUND>);
static_assert(kSame<StatusCode::kDataLoss, FLASHELM_DATA_LOSS>);
static_assert(kSame<StatusCode::kBudgetInfeasible, FLASHELM_BUDGET_INFEASIBLE>);
static_assert(
    kSame<StatusCode::kResourceExhausted, FLASHELM_RESOURCE_EXHAUSTED>);
static_assert(kSame<StatusCode::kUnavailable, FLASHELM_UNAVAILABLE>);
static_assert(kSame<StatusCode::kUnimplemented, FLASHELM_UNIMPLEMENTED>);
static_assert(kSame<StatusCode::kCancelled, FLASHELM_CANCELLED>);
static_assert(kSame<StatusCode::kInternal, FLASHELM_INTERNAL>);

}  // namespace

void CopyText(std::string_view text, char* target, size_t capacity) {
  size_t size = std::min(text.size(), capacity - 1);
  // Back to the beginning of the code point that does not fit.
  if (size < text.size()) {
    while (size > 0 &&
           (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) {
      --size;
    }
  }
  std::memcpy(target, text.data(), size);
  target[size] = '\0';
}

flashelm_code ReportError(StatusCode code, std::string_view message,
                          flashelm_error* error) noexcept {
  if (error != nullptr) {
    error->code = static_cast<int32_t>(code);
    CopyText(message, error->message, sizeof(error->message));
  }
  return static_cast<flashelm_code>(code);
}

Status CheckNotNull(const void* pointer, std::string_view name) {
  if (pointer != nullptr) return OkStatus();
  return InvalidArgument(name, " is NULL");
}

Status CheckStructSize(const void* caller, std::string_view name) {
  FLASHELM_RETURN_IF_ERROR(CheckNotNull(caller, name));
  const size_t size = StructSize(caller);
  if (size < sizeof(size_t) || size > kMaxStructBytes ||
      size % alignof(void*) != 0) {
    return InvalidArgument(name, ": struct_size is ", size,
                           ", which is not its sizeof");
  }
  return OkStatus();
}

Status ReadStructBytes(const void* caller, std::string_view name,
                       size_t known_bytes, void* ours) {
  FLASHELM_RETURN_IF_ERROR(CheckStructSize(caller, name));
  const size_t size = StructSize(caller);
  const char* const bytes = static_cast<const char*>(caller);
  for (size_t i = known_bytes; i < size; ++i) {
    if (bytes[i] != 0) {
      return InvalidArgument(name, ": a field at byte ", i,
                             " is set, and this library knows the first ",
                             known_bytes, " bytes");
    }
  }
  std::memset(ours, 0, known_bytes);
  std::memcpy(ours, caller, std::min(size, known_bytes));
  return OkStatus();
}

void WriteStructBytes(const void* ours, size_t known_bytes, void* caller) {
  const size_t size = StructSize(caller);
  std::memset(caller, 0, size);
  std::memcpy(caller, ours, std::min(size, known_bytes));
  std::memcpy(caller, &size, sizeof(size));
}

}  // namespace flashelm
