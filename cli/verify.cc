
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/model_file.h"

namespace flashelm::cli {

Status RunVerify(const VerifyArgs& args) {
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model, ModelFile::Open(args.model));
  ProgressBar bar;
  FLASHELM_ASSIGN_OR_RETURN(
      const VerifyReport report, model.Verify(cancel, [&](uint64_t done) {
        bar.Show("verifying", done, model.weight_file().weight_bytes());
      }));
  bar.Clear();
  if (args.json) {
    nlohmann::ordered_json json;
    json["model_path"] = args.model;
    json["model_size_bytes"] = model.file_bytes();
    json["n_checksums"] = report.num_checksums;
    json["verified_bytes"] = report.num_bytes;
    json["ok"] = true;
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    std::printf("%s: ok, %llu checksums over %llu bytes of weights\n",
                args.model.c_str(),
                static_cast<unsigned long long>(report.num_checksums),
                static_cast<unsigned long long>(report.num_bytes));
  }
  return OkStatus();
}

}  // namespace flashelm::cli
