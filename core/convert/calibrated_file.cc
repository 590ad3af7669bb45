#include "core/convert/calibrated_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/calibration.h"
#include "core/model_layout.h"
#include "core/record_reader.h"
#include "predictor/gate_selector.h"
#include "predictor/predictor_file.h"
#include "storage/output_file.h"
#include "storage/weight_file.h"
#include "storage/weight_file_writer.h"

namespace flashelm {
namespace {

// Half of what a manifest may take, and some levels less than it may nest.
constexpr uint64_t kMaxCalibrationBytes = uint64_t{4} << 20;
constexpr JsonLimits kCalibrationLimits = {12, 1u << 17};

// Segments and tensors are those of the layout, in its order.
bool IsLaidOutAs(const WeightFile& file, const ModelLayout& layout) {
  const auto same_part = [](const Part& a, const Part& b) {
    return a.encoding == b.encoding && a.offset_bytes == b.offset_bytes &&
           a.num_elements == b.num_elements;
  };
  const auto same_segment = [&](const Segment& a, const Segment& b) {
    return a.kind == b.kind && a.layer == b.layer &&
           a.num_records == b.num_records && a.stride_bytes == b.stride_bytes &&
           std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(),
                      b.parts.end(), same_part);
  };
  const auto same_plane = [](const Plane& a, const Plane& b) {
    return a.segment == b.segment && a.part == b.part && a.combine == b.combine;
  };
  const auto same_tensor = [&](const Tensor& a, const Tensor& b) {
    return a.name == b.name && a.rows == b.rows && a.cols == b.cols &&
           std::equal(a.planes.begin(), a.planes.end(), b.planes.begin(),
                      b.planes.end(), same_plane);
  };
  return std::equal(file.segments().begin(), file.segments().end(),
                    layout.segments.begin(), layout.segments.end(),
                    same_segment) &&
         std::equal(file.tensors().begin(), file.tensors().end(),
                    layout.tensors.begin(), layout.tensors.end(), same_tensor);
}

// kInvalidArgument: not a permutation of the neurons of every layer.
Status CheckOrders(const ModelConfig& config,
                   const std::vector<std::vector<uint32_t>>& orders) {
  if (orders.empty()) return OkStatus();
  if (orders.size() != config.num_layers()) {
    return InvalidArgument("orders of neurons for ", orders.size(),
                           " layers, the model has ", config.num_layers());
  }
  for (size_t i = 0; i < orders.size(); ++i) {
    const uint32_t ffn_dim = config.layers[i].ffn_dim;
    if (orders[i].empty()) continue;
    if (orders[i].size() != ffn_dim) {
      return InvalidArgument("an order of ", orders[i].size(),
                             " neurons for layer ", i, ", which has ", ffn_dim);
    }
    std::vector<bool> is_taken(ffn_dim);
    for (const uint32_t neuron : orders[i]) {
      if (neuron >= ffn_dim || is_taken[neuron]) {
        return InvalidArgument(
            "the order of layer ", i, " has neuron ", neuron,
            neuron >= ffn_dim ? ", the layer has " : " twice, of ", ffn_dim);
      }
      is_taken[neuron] = true;
    }
  }
  return OkStatus();
}

// kInvalidArgument: not for every layer, or not for its neurons.
Status CheckFrequencyAndPredictors(const ModelConfig& config,
                                   const CalibratedFileOptions& options) {
  const size_t num_layers = config.num_layers();
  for (const size_t found :
       {options.frequency.size(), options.predictors.size()}) {
    if (found != 0 && found != num_layers) {
      return InvalidArgument("frequencies or predictors for ", found,
                             " layers, the model has ", num_layers);
    }
  }
  for (size_t i = 0; i < num_layers; ++i) {
    const uint32_t ffn_dim = config.layers[i].ffn_dim;
    if (!options.frequency.empty() && options.frequency[i].size() != ffn_dim) {
      return InvalidArgument("frequencies of ", options.frequency[i].size(),
                             " neurons for layer ", i, ", which has ", ffn_dim);
    }
    if (options.predictors.empty()) continue;
    const auto opened =
        OpenPredictor(options.predictors[i], ffn_dim, config.model_dim,
                      StatusMessage::Join("the predictor of layer ", i));
    if (!opened) return InvalidArgument(opened.error().message());
  }
  return OkStatus();
}

// kInvalidArgument: not an object, or more than a manifest has room for.
Result<Json> CleanCalibration(const Json& calibration) {
  if (!calibration.is_object()) {
    return InvalidArgument("the calibration is ", Describe(calibration),
                           ", expected an object");
  }
  // JSON is UTF-8, a text in there need not be.
  const std::string text =
      calibration.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxCalibrationBytes) {
    return InvalidArgument("a calibration of ", text.size(),
                           " bytes, expected at most ", kMaxCalibrationBytes);
  }
  auto clean = ParseJson(text, kCalibrationKey, kCalibrationLimits);
  if (!clean) return InvalidArgument(clean.error().message());
  return clean;
}

class Rewriter {
 public:
  Rewriter(const ModelFile& in, const CalibratedFileOptions& options,
           WeightFileWriter& writer)
      : in_(in), file_(in.weight_file()), options_(options), writer_(writer) {
    for (const Segment& segment : writer.segments()) {
      total_bytes_ += segment.num_bytes();
    }
  }

  // Takes the memory.
  Status Prepare();
  Status WriteSegments();

 private:
  // Where a part of a record comes from, and where it goes.
  struct PartCopy {
    uint32_t from_segment = 0;  // The same for all parts of a record.
    uint64_t from_bytes = 0;
    uint64_t to_bytes = 0;
    uint64_t num_bytes = 0;
  };

  Status Append(std::span<const std::byte> records);

  Status CopySegment(const Segment& from);
  // Predictor, gates where they are split off, and bundles of a layer.
  // `segments`: of the output.
  Status WriteFfn(uint32_t layer, std::span<const Segment> segments);
  // Fills predictor_ but for the importance, with which the other writes it.
  void GatherPredictor(uint32_t layer, const Segment& to);
  Status AppendPredictor(const Segment& to);
  // Fills block_ with records [first, first + count) of `to`. When
  // `with_importance`, reads all neurons, and multiplies importance_ by the
  // norms of what up rows and down columns the input has side by side with the
  // first part of `to`.
  Status Gather(uint32_t layer, const Segment& to, uint64_t first,
                uint64_t count, bool with_importance);
  std::vector<PartCopy> PartCopies(const LayerWeights& weights,
                                   const Segment& to) const;
  // The product of the norms of up row and down column, as far as they are in
  // records of `from`.
  double NormsIn(const LayerWeights& weights, const Segment& from,
                 const std::byte* record);

  const ModelFile& in_;
  const WeightFile& file_;
  const CalibratedFileOptions& options_;
  WeightFileWriter& writer_;
  MemoryBudget budget_{UINT64_MAX};
  std::optional<RecordReader> reader_;  // After Prepare().
  AlignedBuffer block_;                 // As it will be written.
  AlignedBuffer predictor_;             // A record of a predictor segment.
  std::vector<uint32_t> new_place_;     // By the neuron's place in the input.
  std::vector<double> importance_;      // By the neuron's new place.
  std::vector<float> values_;           // [model_dim]: a row, decoded.
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

Status Rewriter::Prepare() {
  uint64_t record_bytes = 0;
  uint64_t block_bytes = 0;
  uint64_t predictor_bytes = 0;
  for (const Segment& segment : writer_.segments()) {
    if (HasNeurons(segment.kind)) {
      record_bytes = std::max(record_bytes, segment.stride_bytes);
      block_bytes = std::max(block_bytes, segment.num_bytes());
    } else if (segment.kind == SegmentKind::kPredictor) {
      predictor_bytes = std::max(predictor_bytes, segment.num_bytes());
    }
  }
  FLASHELM_ASSIGN_OR_RETURN(
      reader_, RecordReader::Create(file_, budget_, options_.block_bytes));
  FLASHELM_ASSIGN_OR_RETURN(
      block_, AlignedBuffer::Create(
                  std::clamp(options_.block_bytes, record_bytes, block_bytes),
                  budget_, "records"));
  FLASHELM_ASSIGN_OR_RETURN(
      predictor_, AlignedBuffer::Create(predictor_bytes, budget_, "predictor"));
  values_.resize(in_.config().model_dim);
  return OkStatus();
}

Status Rewriter::Append(std::span<const std::byte> records) {
  FLASHELM_RETURN_IF_ERROR(writer_.Append(records));
  done_bytes_ += records.size();
  if (options_.progress) options_.progress(done_bytes_, total_bytes_);
  return OkStatus();
}

Status Rewriter::WriteSegments() {
  // Both files have the segments in the same order, but that the FFN of a layer
  // is bundles with or without what a calibration puts in front of them.
  const std::span<const Segment> out = writer_.segments();
  size_t at = 0;
  for (const Segment& from : file_.segments()) {
    if (from.kind == SegmentKind::kPredictor ||
        from.kind == SegmentKind::kFfnGate ||
        from.kind == SegmentKind::kFfnUp) {
      continue;  // With the bundles or down columns, which follow.
    }
    if (from.kind != SegmentKind::kFfn && from.kind != SegmentKind::kFfnDown) {
      FLASHELM_RETURN_IF_ERROR(CopySegment(from));
      ++at;
      continue;
    }
    const size_t begin = at;
    while (out[at].kind != from.kind) ++at;
    ++at;
    FLASHELM_RETURN_IF_ERROR(
        WriteFfn(*from.layer, out.subspan(begin, at - begin)));
  }
  return OkStatus();
}

Status Rewriter::CopySegment(const Segment& from) {
  const uint64_t slab = reader_->SlabRecords(from);
  for (uint64_t first = 0; first < from.num_records; first += slab) {
    const uint64_t count = std::min(slab, from.num_records - first);
    FLASHELM_ASSIGN_OR_RETURN(
        const std::byte* records,
        reader_->Read(from, first, count, options_.cancel));
    FLASHELM_RETURN_IF_ERROR(
        Append(std::span(records, count * from.stride_bytes)));
  }
  return OkStatus();
}

Status Rewriter::WriteFfn(uint32_t layer, std::span<const Segment> segments) {
  const uint32_t ffn_dim = in_.config().layers[layer].ffn_dim;
  new_place_.resize(ffn_dim);
  const bool is_reordered =
      !options_.neuron_order.empty() && !options_.neuron_order[layer].empty();
  for (uint32_t i = 0; i < ffn_dim; ++i) {
    new_place_[is_reordered ? options_.neuron_order[layer][i] : i] = i;
  }
  // The importance comes first in the file, and is known when the first block
  // of what follows is, if that takes reading the bundles.
  const LayerWeights& weights = in_.weights().layers[layer];
  const bool was_split = weights.has_split_gate();
  importance_.assign(ffn_dim, 1.0);
  const Segment* predictor = nullptr;
  for (const Segment& to : segments) {
    if (to.kind == SegmentKind::kPredictor) {
      GatherPredictor(layer, to);
      if (was_split) {
        FLASHELM_RETURN_IF_ERROR(Gather(layer, segments.back(), 0, 0, true));
        if (weights.has_split_down()) {
          FLASHELM_RETURN_IF_ERROR(
              Gather(layer, segments.end()[-2], 0, 0, true));
        }
        FLASHELM_RETURN_IF_ERROR(AppendPredictor(to));
      } else {
        predictor = &to;
      }
      continue;
    }
    const uint64_t block = block_.size() / to.stride_bytes;
    for (uint64_t first = 0; first < to.num_records; first += block) {
      const uint64_t count = std::min(block, to.num_records - first);
      FLASHELM_RETURN_IF_ERROR(
          Gather(layer, to, first, count, predictor != nullptr));
      if (predictor != nullptr) {
        FLASHELM_RETURN_IF_ERROR(AppendPredictor(*predictor));
        predictor = nullptr;
      }
      FLASHELM_RETURN_IF_ERROR(
          Append(block_.bytes().first(count * to.stride_bytes)));
    }
  }
  return OkStatus();
}

Status Rewriter::AppendPredictor(const Segment& to) {
  const std::span<float> importance = predictor_.As<float>();
  for (size_t i = 0; i < importance_.size(); ++i) {
    importance[i] = ImportanceOfNorms(importance_[i]);
  }
  return Append(predictor_.bytes().first(to.num_bytes()));
}

void Rewriter::GatherPredictor(uint32_t layer, const Segment& to) {
  std::ranges::fill(predictor_.bytes(), std::byte{0});
  if (!options_.frequency.empty()) {
    auto* frequency =
        reinterpret_cast<float*>(predictor_.data() + to.parts[1].offset_bytes);
    for (size_t i = 0; i < new_place_.size(); ++i) {
      frequency[new_place_[i]] = options_.frequency[layer][i];
    }
  }
  if (to.parts.size() > 2) {
    const std::vector<std::byte>& predictor = options_.predictors[layer];
    std::memcpy(predictor_.data() + to.parts[2].offset_bytes, predictor.data(),
                predictor.size());
  }
}

Status Rewriter::Gather(uint32_t layer, const Segment& to, uint64_t first,
                        uint64_t count, bool with_importance) {
  const LayerWeights& weights = in_.weights().layers[layer];
  const std::vector<PartCopy> copies = PartCopies(weights, to);
  const Segment& from = file_.segments()[copies[0].from_segment];
  // Bytes between the last part and the next record are zero in the file.
  std::memset(block_.data(), 0, count * to.stride_bytes);
  const auto is_wanted = [&](uint32_t place) {
    return place >= first && place - first < count;
  };
  const uint64_t slab = reader_->SlabRecords(from);
  for (uint64_t begin = 0; begin < from.num_records; begin += slab) {
    const uint64_t records = std::min(slab, from.num_records - begin);
    const auto places = std::span(new_place_).subspan(begin, records);
    if (!with_importance &&
        std::none_of(places.begin(), places.end(), is_wanted)) {
      continue;
    }
    FLASHELM_ASSIGN_OR_RETURN(
        const std::byte* data,
        reader_->Read(from, begin, records, options_.cancel));
    for (uint64_t i = 0; i < records; ++i) {
      const std::byte* record = data + i * from.stride_bytes;
      if (with_importance) {
        importance_[places[i]] *= NormsIn(weights, from, record);
      }
      if (!is_wanted(places[i])) continue;
      std::byte* target = block_.data() + (places[i] - first) * to.stride_bytes;
      for (const PartCopy& copy : copies) {
        std::memcpy(target + copy.to_bytes, record + copy.from_bytes,
                    copy.num_bytes);
      }
    }
  }
  return OkStatus();
}

std::vector<Rewriter::PartCopy> Rewriter::PartCopies(
    const LayerWeights& weights, const Segment& to) const {
  // The parts of bundles, of which an output's segment has one, the last two,
  // or all.
  const std::array parts = {&weights.gate, &weights.up, &weights.down};
  size_t skipped = 0;
  if (to.kind == SegmentKind::kFfnDown) {
    skipped = 2;
  } else if (to.kind == SegmentKind::kFfnUp || to.parts.size() == 2) {
    skipped = 1;
  }
  std::vector<PartCopy> copies;
  for (size_t i = 0; i < to.parts.size(); ++i) {
    copies.push_back({parts[skipped + i]->segment,
                      parts[skipped + i]->offset_bytes,
                      to.parts[i].offset_bytes, to.parts[i].num_bytes()});
  }
  return copies;
}

double Rewriter::NormsIn(const LayerWeights& weights, const Segment& from,
                         const std::byte* record) {
  double product = 1;
  for (const PartRef* part : {&weights.up, &weights.down}) {
    if (&file_.segments()[part->segment] == &from) {
      product *= RowNorm(*part, record, values_);
    }
  }
  return product;
}

}  // namespace

Result<uint64_t> WriteCalibratedFile(const ModelFile& in,
                                     const std::string& out_path,
                                     const CalibratedFileOptions& options) {
  const WeightFile& file = in.weight_file();
  const ModelConfig& config = in.config();
  const ModelWeights& weights = in.weights();
  FLASHELM_RETURN_IF_ERROR(CheckOutputPath(out_path, {in.path()}));
  FLASHELM_RETURN_IF_ERROR(CheckOrders(config, options.neuron_order));
  FLASHELM_RETURN_IF_ERROR(CheckFrequencyAndPredictors(config, options));
  FLASHELM_ASSIGN_OR_RETURN(Json calibration,
                            CleanCalibration(options.calibration));
  LayoutOptions layout_options;
  for (const LayerWeights& layer : weights.layers) {
    if (layer.has_split_gate() && !options.split_gate) {
      return InvalidArgument(in.path(),
                             ": gate rows are in segments of their own "
                             "already, and stay there");
    }
    layout_options.split_gate |= layer.has_split_gate();
    layout_options.rows |= layer.has_split_down();
    layout_options.neuron_stats |= layer.importance.has_value();
    layout_options.predictor_bytes.push_back(layer.predictor_bytes);
  }
  const MatrixEncodings encodings = {weights.embedding.encoding,
                                     weights.layers[0].qkv.encoding,
                                     weights.layers[0].gate.encoding};
  if (!IsLaidOutAs(file, MakeLayout(config, encodings, layout_options))) {
    return Unimplemented(in.path(),
                         ": has other segments or tensors than this version "
                         "makes, and cannot be rewritten");
  }

  LayoutOptions out_options;
  out_options.split_gate = options.split_gate;
  out_options.rows = layout_options.rows;
  out_options.neuron_stats = true;
  for (const auto& predictor : options.predictors) {
    out_options.predictor_bytes.push_back(predictor.size());
  }
  ModelLayout layout = MakeLayout(config, encodings, out_options);
  WeightFileContents contents;
  contents.config = file.config();
  contents.provenance = file.provenance();
  // As long as the one to come.
  calibration[kWeightsHashKey] = std::string(16, '0');
  contents.provenance[kCalibrationKey] = calibration;
  FLASHELM_ASSIGN_OR_RETURN(contents.tokenizer, file.ReadTokenizer());
  contents.segments = std::move(layout.segments);
  contents.tensors = std::move(layout.tensors);
  Json provenance = contents.provenance;
  FLASHELM_ASSIGN_OR_RETURN(
      WeightFileWriter writer,
      WeightFileWriter::Create(out_path, std::move(contents)));
  Rewriter rewriter(in, options, writer);
  FLASHELM_RETURN_IF_ERROR(rewriter.Prepare());
  FLASHELM_RETURN_IF_ERROR(rewriter.WriteSegments());
  provenance[kCalibrationKey][kWeightsHashKey] =
      WeightsHash(writer.segments(), writer.checksums());
  writer.set_provenance(std::move(provenance));
  return writer.Finish();
}

}  // namespace flashelm
