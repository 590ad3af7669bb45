// A timeline of reading and computing, for chrome://tracing or Perfetto.
#ifndef FLASHELM_CORE_TRACE_FILE_H_
#define FLASHELM_CORE_TRACE_FILE_H_

#include <cstdint>
#include <string>

#include "core/engine.h"

namespace flashelm {

// Sweeps that --trace has room for: some hundred KB for a large model.
inline constexpr uint64_t kMaxTraceSweeps = 64;

// Memory that a trace takes while the model runs and is written.
uint64_t TraceBytes(const ModelConfig& config);

// Writes the trace of an engine that has one, in the Trace Event Format: a
// process for reads and one for computing, with a row for each layer, and one
// for the output head. Times are microseconds since the first event. Writing
// goes piece by piece. Errors as OutputFile's.
Status WriteTrace(const Engine& engine, const std::string& path);

}  // namespace flashelm

#endif  // FLASHELM_CORE_TRACE_FILE_H_
