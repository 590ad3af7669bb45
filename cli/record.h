// The JSON keys that verbs share, so that one tool can read what all of them
// write. What was not measured is null.
#ifndef FLASHELM_CLI_RECORD_H_
#define FLASHELM_CLI_RECORD_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/session.h"

namespace flashelm::cli {

using Json = nlohmann::ordered_json;

template <class T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// The value below which `part` of the values lie; nothing when there are none.
std::optional<double> Percentile(std::vector<double> values, double part);
std::optional<double> Median(std::vector<double> values);

// What happened between two looks at a session.
SessionStats Difference(const SessionStats& after, const SessionStats& before);
// Adds what a run took to those before it.
void AddStats(const SessionStats& run, SessionStats& sum);

// VmHWM of this process.
std::optional<uint64_t> PeakBytes();

// Times and bytes of a prompt and of the tokens after it.
struct Measurement {
  uint64_t n_prompt = 0;
  uint64_t n_gen = 0;
  std::optional<double> prompt_tps;
  std::optional<double> gen_tps;
  std::optional<double> ttft_ms;  // Until the first token, prompt included.
  std::vector<double> token_ms;   // From one token to the next.
  SessionStats decode;            // Of the passes after the prompt alone.
  // Whether reads were counted: those of mapped weights are the system's.
  bool counts_reads = true;

  // Per pass after the prompt; nothing when there was none.
  std::optional<double> PerPass(uint64_t total) const;
  std::optional<double> FlashBytesPerToken() const {
    return counts_reads ? PerPass(decode.store.stream_bytes) : std::nullopt;
  }
};

// The model: path, size, parameters, encoding.
void AddModelKeys(const ModelFile& model, Json& json);
// What was asked for and what was planned from it.
void AddPlanKeys(const PlanOptions& options, const MemoryPlan& plan,
                 Json& json);
// Both of the above, and what this process is: peak, reader, SIMD target.
void AddEngineKeys(const Engine& engine, Json& json);
// How many neurons were computed, and how well they were chosen; null where
// that is not known, or where all were computed.
void AddSparsityKeys(const SparsityStats& sparsity, Json& json);
void AddMeasurementKeys(const Measurement& measurement, Json& json);

// Text of a record, in one piece or in lines; bytes that are no UTF-8, as a
// path may have, become replacement characters.
std::string Dump(const Json& json, int indent);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_RECORD_H_
