// The C interface: versions, names, tokens.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/c_api_state.h"
#include "core/c_api_support.h"
#include "core/tokenizer.h"

using namespace flashelm;  // NOLINT: the functions of the C interface follow.

const char* flashelm_version(void) { return FLASHELM_VERSION; }

uint32_t flashelm_abi_version(void) { return FLASHELM_ABI_VERSION; }

const char* flashelm_code_name(int32_t code) {
  static constexpr std::array<const char*, 10> kNames = {
      "OK",          "INVALID_ARGUMENT",  "NOT_FOUND",
      "DATA_LOSS",   "BUDGET_INFEASIBLE", "RESOURCE_EXHAUSTED",
      "UNAVAILABLE", "UNIMPLEMENTED",     "CANCELLED",
      "INTERNAL",
  };
  const auto index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : "UNKNOWN";
}

flashelm_code flashelm_tokenize(const flashelm_engine* engine, const char* text,
                                size_t text_bytes, int add_bos, uint32_t* ids,
                                size_t capacity, size_t* num_ids,
                                flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(num_ids, "num_ids"));
    if (text_bytes > 0) FLASHELM_RETURN_IF_ERROR(CheckNotNull(text, "text"));
    if (capacity > 0) FLASHELM_RETURN_IF_ERROR(CheckNotNull(ids, "ids"));
    const Tokenizer& tokenizer = engine->state->engine->tokenizer();
    const std::string_view view(text_bytes > 0 ? text : "", text_bytes);
    if (ids == nullptr) {
      *num_ids = tokenizer.CountTokens(view, add_bos != 0);
      return OkStatus();
    }
    const std::vector<TokenId> ours = tokenizer.Encode(view, add_bos != 0);
    *num_ids = ours.size();
    if (capacity < ours.size()) {
      return InvalidArgument("room for ", capacity, " ids, the text has ",
                             ours.size());
    }
    std::copy(ours.begin(), ours.end(), ids);
    return OkStatus();
  });
}

flashelm_code flashelm_detokenize(const flashelm_engine* engine,
                                  const uint32_t* ids, size_t num_ids,
                                  char* text, size_t capacity,
                                  size_t* text_bytes, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(text_bytes, "text_bytes"));
    if (num_ids > 0) FLASHELM_RETURN_IF_ERROR(CheckNotNull(ids, "ids"));
    if (capacity > 0) FLASHELM_RETURN_IF_ERROR(CheckNotNull(text, "text"));
    const Engine& ours = *engine->state->engine;
    for (size_t i = 0; i < num_ids; ++i) {
      if (ids[i] >= ours.config().vocab_size) {
        return InvalidArgument("token ", i, " is ", ids[i],
                               ", the vocabulary has ",
                               ours.config().vocab_size);
      }
    }
    const std::string decoded = ours.tokenizer().Decode({ids, num_ids});
    *text_bytes = decoded.size();
    if (text == nullptr) return OkStatus();
    if (capacity <= decoded.size()) {
      return InvalidArgument("room for ", capacity, " bytes, the text has ",
                             decoded.size(), " and a 0 at its end");
    }
    CopyText(decoded, text, capacity);
    return OkStatus();
  });
}
