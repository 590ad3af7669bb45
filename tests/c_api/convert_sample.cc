// convert_sample CHECKPOINT MODEL.felm: what `flashelm convert` does, where the
// command is not built.
#include <cstdio>

#include "core/convert/convert.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  flashelm::ConvertOptions options;
  options.weights = flashelm::Encoding::kBf16;
  const auto report = flashelm::Convert(argv[1], argv[2], options);
  if (report) return 0;
  std::fprintf(stderr, "%s\n", report.error().message().c_str());
  return 1;
}
