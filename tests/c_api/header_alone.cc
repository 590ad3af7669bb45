// The same as C++17.
#include "flashelm/flashelm.h"

flashelm_code flashelm_header_alone(void);

flashelm_code flashelm_header_alone(void) {
  flashelm_engine_options options{};
  flashelm_source source{};
  flashelm_plan plan{};
  source.path = "none";
  return flashelm_estimate(&source, &options, &plan, nullptr);
}
