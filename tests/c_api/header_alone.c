/* That the header needs nothing before it, as C99 and as C++17. */
#include "flashelm/flashelm.h"

flashelm_code flashelm_header_alone(void);

flashelm_code flashelm_header_alone(void) {
  flashelm_engine_options options = {.struct_size = sizeof options};
  flashelm_source source = {.struct_size = sizeof source};
  flashelm_plan plan = {.struct_size = sizeof plan};
  source.path = "none";
  return flashelm_estimate(&source, &options, &plan, NULL);
}
