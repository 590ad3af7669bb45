#include "bench/decoder.h"

#include <algorithm>
#include <random>
#include <span>
#include <utility>

#include "cli/engine_setup.h"

namespace flashelm {
namespace {

constexpr uint32_t kMaxPrompt = 16;

}  // namespace

Result<std::unique_ptr<Decoder>> Decoder::Create(const cli::EngineArgs& args) {
  std::unique_ptr<Decoder> decoder(new Decoder());
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model, ModelFile::Open(args.model));
  cli::EngineNeeds needs;
  needs.measures = &decoder->cancel_;
  cli::EngineArgs engine_args = args;
  const bool is_limited = args.mem_budget != kNoBudget;
  if (!is_limited) engine_args.mem_budget = "auto";
  engine_args.context = cli::ContextOf(args, model.config());
  FLASHELM_ASSIGN_OR_RETURN(cli::EngineSetup setup,
                            cli::SetUpEngine(model, engine_args, needs));
  if (!is_limited) setup.options.plan.budget_bytes = kUnlimitedBytes;
  setup.options.plan.whole_process = false;
  FLASHELM_ASSIGN_OR_RETURN(decoder->engine_,
                            Engine::Create(std::move(model), setup.options));
  FLASHELM_ASSIGN_OR_RETURN(decoder->session_,
                            Session::Create(*decoder->engine_));
  FLASHELM_RETURN_IF_ERROR(decoder->Begin());
  return decoder;
}

Status Decoder::Begin() {
  const uint32_t context = session_->context();
  if (context < 2) {
    return InvalidArgument("-c ", context,
                           ": expected room for a prompt and a token");
  }
  std::mt19937 random(1);
  tokens_.assign(context, engine_->config().bos_id);
  for (size_t i = 1; i < tokens_.size(); ++i) {
    tokens_[i] = static_cast<TokenId>(random() % session_->vocab_size());
  }
  num_prompt_ = std::min(kMaxPrompt, context / 2);
  const uint32_t last = num_prompt_ - 1;
  FLASHELM_RETURN_IF_ERROR(session_->Run(std::span(tokens_).first(num_prompt_),
                                         {&last, 1}, cancel_));
  // What only the first step does, such as to compare checksums.
  return Step();
}

Status Decoder::Step() {
  constexpr uint32_t kOnly = 0;
  if (session_->position() == session_->context()) {
    FLASHELM_RETURN_IF_ERROR(session_->Truncate(num_prompt_));
  }
  const std::span<const TokenId> token(&tokens_[session_->position()], 1);
  return session_->Run(token, {&kOnly, 1}, cancel_);
}

double Decoder::WeightBytes(double kept_fraction) const {
  const ModelFile& model = engine_->model();
  double neuron_bytes = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    for (const uint32_t i : layer.neuron_segments()) {
      const Segment& segment = model.weight_file().segments()[i];
      neuron_bytes += static_cast<double>(segment.num_records) *
                      static_cast<double>(segment.stride_bytes);
    }
  }
  return static_cast<double>(engine_->plan().weight_bytes) -
         (1 - kept_fraction) * neuron_bytes;
}

}  // namespace flashelm
