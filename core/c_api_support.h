// What every function of the C interface needs: errors, and structs that grow.
#ifndef FLASHELM_CORE_C_API_SUPPORT_H_
#define FLASHELM_CORE_C_API_SUPPORT_H_

#include <cstddef>
#include <exception>
#include <new>
#include <string_view>
#include <type_traits>

#include "core/base/status.h"
#include "include/flashelm/flashelm.h"

namespace flashelm {

// Fills `error`, which may be null, and returns the code. Allocates nothing.
flashelm_code ReportError(StatusCode code, std::string_view message,
                          flashelm_error* error) noexcept;

// Runs body(), which returns a Status, so that nothing but a code comes out.
template <class Body>
flashelm_code ReportCall(flashelm_error* error, const Body& body) noexcept {
  try {
    const Status status = body();
    return ReportError(status.code(), status.message(), error);
  } catch (const std::bad_alloc&) {
    return ReportError(StatusCode::kResourceExhausted, "no memory left", error);
  } catch (const std::exception& exception) {
    return ReportError(StatusCode::kInternal, exception.what(), error);
  } catch (...) {
    return ReportError(StatusCode::kInternal, "an unknown exception", error);
  }
}

// kInvalidArgument, naming the parameter, when it is null.
Status CheckNotNull(const void* pointer, std::string_view name);

// The same as the templates below, for a struct of `known_bytes`.
Status CheckStructSize(const void* caller, std::string_view name);
Status ReadStructBytes(const void* caller, std::string_view name,
                       size_t known_bytes, void* ours);
void WriteStructBytes(const void* ours, size_t known_bytes, void* caller);

// A caller's struct, which may be of an older or newer library: fields that it
// lacks are 0. kInvalidArgument: null, no size that a struct can have, or
// fields that are not known here and not 0.
template <class Struct>
Status ReadStruct(const Struct* caller, std::string_view name, Struct& ours) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  return ReadStructBytes(caller, name, sizeof(Struct), &ours);
}

// Fills a caller's struct, whose size CheckStructSize() accepts, as far as it
// goes, and what it has beyond with zeros. `struct_size` stays.
template <class Struct>
void WriteStruct(const Struct& ours, Struct* caller) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  WriteStructBytes(&ours, sizeof(Struct), caller);
}

// Cuts `text` to what fits and ends it with a 0, between code points.
void CopyText(std::string_view text, char* target, size_t capacity);

}  // namespace flashelm

#endif  // FLASHELM_CORE_C_API_SUPPORT_H_
