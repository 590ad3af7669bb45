#include "predictor/low_rank_trainer.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>
#include <utility>

#include "core/base/checked_math.h"
#include "kernels/float_types.h"

namespace flashelm {
namespace {

using Matrix =
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowVector = Eigen::RowVectorXf;
using ConstMap = Eigen::Map<const Matrix>;
using Index = Eigen::Index;

constexpr size_t kChunkSamples = 1024;
constexpr size_t kMaxStartSamples = 2048;
// The standard deviation of the scores at the start, where the logistic
// function is neither flat nor saturated.
constexpr float kStartDeviation = 2;

// Random numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t Below(uint64_t limit) { return engine_() % limit; }
  // Bell-shaped, with variance 1: a sum of twelve uniform numbers.
  float Normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) {
      sum += static_cast<double>(engine_() >> 11) * 0x1p-53;
    }
    return static_cast<float>(sum);
  }
  Matrix Normals(Index rows, Index cols) {
    Matrix values(rows, cols);
    for (Index i = 0; i < values.size(); ++i) values.data()[i] = Normal();
    return values;
  }
  template <class T>
  void Shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) {
      std::swap(values[i - 1], values[Below(i)]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

struct Samples {
  size_t count = 0;
  std::vector<float> x;         // [count, model_dim]
  std::vector<uint8_t> labels;  // [count, num_neurons]
};

// Reads the source chunk by chunk, and knows which samples are held out.
class SampleReader {
 public:
  SampleReader(uint32_t num_neurons, uint32_t model_dim, SampleSource& source,
               const LowRankTrainerOptions& options)
      : num_neurons_(num_neurons),
        model_dim_(model_dim),
        source_(source),
        options_(options) {
    chunk_.x.resize(kChunkSamples * model_dim);
    chunk_.labels.resize(kChunkSamples * num_neurons);
  }

  // Counts the samples, looks at their values, and chooses the runs of samples
  // that are held out.
  Status Split(Random& random) {
    FLASHELM_RETURN_IF_ERROR(source_.Rewind());
    for (;;) {
      FLASHELM_ASSIGN_OR_RETURN(const size_t count, NextChunk());
      if (count == 0) break;
      if (CountNonFinite(chunk_.x.data(), count * model_dim_) > 0) {
        return InvalidArgument("training: a value of the samples from ",
                               num_samples_, " on is NaN or infinite");
      }
      num_samples_ += count;
    }

    const size_t run = options_.held_out_run;
    const auto num_runs = static_cast<size_t>(CeilDiv(num_samples_, run));
    if (num_runs < 2) {
      return InvalidArgument("training: ", num_samples_,
                             " samples, expected more than ", run);
    }
    const double wanted =
        std::min(options_.held_out_fraction * static_cast<double>(num_samples_),
                 static_cast<double>(options_.max_held_out)) /
        static_cast<double>(run);
    const size_t num_held_out =
        std::clamp<size_t>(static_cast<size_t>(wanted), 1, num_runs - 1);
    std::vector<size_t> order(num_runs);
    std::iota(order.begin(), order.end(), size_t{0});
    random.Shuffle(order);
    is_held_out_.assign(num_runs, false);
    for (size_t i = 0; i < num_held_out; ++i) is_held_out_[order[i]] = true;
    return OkStatus();
  }

  Status Rewind() {
    FLASHELM_RETURN_IF_ERROR(source_.Rewind());
    next_ = 0;
    return OkStatus();
  }

  // The next chunk's samples for training; those held out are appended to
  // `held_out` unless it is null. Null at the end. May be empty before.
  Result<const Samples*> Next(Samples* held_out) {
    FLASHELM_ASSIGN_OR_RETURN(const size_t count, NextChunk());
    if (count == 0 ? next_ != num_samples_ : count > num_samples_ - next_) {
      return InvalidArgument("training: a pass gave ", next_ + count,
                             " samples, the first one ", num_samples_);
    }
    if (count == 0) return nullptr;
    chunk_.count = 0;
    for (size_t i = 0; i < count; ++i, ++next_) {
      const float* x = chunk_.x.data() + i * model_dim_;
      const uint8_t* labels = chunk_.labels.data() + i * num_neurons_;
      if (!is_held_out_[next_ / options_.held_out_run]) {
        if (chunk_.count < i) {
          std::copy_n(x, model_dim_,
                      chunk_.x.data() + chunk_.count * model_dim_);
          std::copy_n(labels, num_neurons_,
                      chunk_.labels.data() + chunk_.count * num_neurons_);
        }
        ++chunk_.count;
      } else if (held_out != nullptr) {
        held_out->x.insert(held_out->x.end(), x, x + model_dim_);
        held_out->labels.insert(held_out->labels.end(), labels,
                                labels + num_neurons_);
        ++held_out->count;
      }
    }
    return &chunk_;
  }

  size_t num_samples() const { return num_samples_; }

 private:
  Result<size_t> NextChunk() {
    if (options_.cancel != nullptr && options_.cancel->IsCancelled()) {
      return Cancelled("training was cancelled");
    }
    FLASHELM_ASSIGN_OR_RETURN(
        const size_t count,
        source_.Next(kChunkSamples, chunk_.x.data(), chunk_.labels.data()));
    if (count > kChunkSamples) {
      return Internal("a source gave ", count, " samples, expected at most ",
                      kChunkSamples);
    }
    return count;
  }

  const size_t num_neurons_;
  const size_t model_dim_;
  SampleSource& source_;
  const LowRankTrainerOptions& options_;
  Samples chunk_;
  size_t num_samples_ = 0;
  size_t next_ = 0;  // The next sample.
  std::vector<bool> is_held_out_;
};

struct Parameters {
  Matrix a;        // [rank, model_dim]
  Matrix b;        // [num_neurons, rank]
  RowVector bias;  // [num_neurons]
};

// Makes the columns an orthonormal basis of what they span (Gram-Schmidt, twice
// each, which is as exact as Householder's way and a tenth of its code). A
// column that the ones before it span becomes zero.
Matrix Orthonormal(const Matrix& columns) {
  Matrix rows = columns.transpose();  // A row of ours lies together.
  for (Index i = 0; i < rows.rows(); ++i) {
    const float size = rows.row(i).norm();
    for (int pass = 0; pass < 2; ++pass) {
      for (Index j = 0; j < i; ++j) {
        rows.row(i) -= rows.row(i).dot(rows.row(j)) * rows.row(j);
      }
    }
    const float left = rows.row(i).norm();
    rows.row(i) *= left > 1e-5f * size ? 1 / left : 0.0f;
  }
  return rows.transpose();
}

// Replaces the leading rows of A and columns of B by the approximation of
// `gate` that the header describes, found by iterating a random subspace. A x
// gets components of variance 1, which suits Adam.
//   x  [num_samples, model_dim]
void StartFromGate(const ConstMap& gate, const Matrix& x, Random& random,
                   Parameters& parameters) {
  constexpr Index kOversampling = 16;
  constexpr int kNumIterations = 4;
  const Index most = std::min(gate.rows(), gate.cols());
  const Index rank = std::min(parameters.a.rows(), most);
  Matrix basis = Orthonormal(
      random.Normals(gate.rows(), std::min(rank + kOversampling, most)));
  Matrix gates;  // [num_samples, basis], of the samples within the basis.
  for (int i = 0;; ++i) {
    gates = x * (gate.transpose() * basis);
    if (i == kNumIterations) break;
    basis = Orthonormal(gate * (x.transpose() * gates));
  }
  const Matrix second_moments =
      gates.transpose() * gates / static_cast<float>(x.rows());
  // Ascending.
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(second_moments);
  const auto& variances = solver.eigenvalues();
  const Index num_columns = variances.size();
  const float largest = variances[num_columns - 1];

  float variance = 0;  // Of a score, the mean of all neurons.
  for (Index r = 0; r < rank; ++r) {
    const Index column = num_columns - 1 - r;
    // Directions in which the gates hardly move stay as they were.
    if (!(variances[column] > 1e-6f * largest)) break;
    const float deviation = std::sqrt(variances[column]);
    const Matrix direction = basis * solver.eigenvectors().col(column);
    parameters.a.row(r) = direction.transpose() * gate / deviation;
    parameters.b.col(r) = direction * deviation;
    variance += variances[column] / static_cast<float>(gate.rows());
  }
  if (variance > 0) parameters.b *= kStartDeviation / std::sqrt(variance);
}

// Adam (arXiv 1412.6980) for one matrix.
class Adam {
 public:
  explicit Adam(size_t size)
      : mean_(Eigen::ArrayXf::Zero(static_cast<Index>(size))), square_(mean_) {}

  void Step(const float* gradient, float rate, float* values) {
    constexpr float kBeta1 = 0.9f;
    constexpr float kBeta2 = 0.999f;
    constexpr float kTiny = 1e-8f;
    power1_ *= kBeta1;
    power2_ *= kBeta2;
    const Eigen::Map<const Eigen::ArrayXf> g(gradient, mean_.size());
    Eigen::Map<Eigen::ArrayXf> v(values, mean_.size());
    mean_ += (1 - kBeta1) * (g - mean_);
    square_ += (1 - kBeta2) * (g.square() - square_);
    const auto correction = static_cast<float>(1 / (1 - power2_));
    v -= static_cast<float>(rate / (1 - power1_)) * mean_ /
         ((square_ * correction).sqrt() + kTiny);
  }

 private:
  Eigen::ArrayXf mean_;
  Eigen::ArrayXf square_;
  double power1_ = 1;
  double power2_ = 1;
};

class Trainer {
 public:
  Trainer(uint32_t num_neurons, uint32_t model_dim,
          const LowRankTrainerOptions& options)
      : options_(options),
        shape_{options.type, num_neurons, model_dim, options.rank},
        adam_a_(size_t{options.rank} * model_dim),
        adam_b_(size_t{num_neurons} * options.rank),
        adam_bias_(num_neurons) {}

  // Reads the samples once: what is held out, how often neurons are active,
  // and the inputs to start from.
  Status Start(const float* gate, SampleReader& reader, Random& random) {
    std::vector<float> inputs;
    const size_t dim = shape_.model_dim;
    // Evenly spread, and at least one.
    const size_t every = CeilDiv(reader.num_samples(), kMaxStartSamples);
    size_t num_active = 0;
    FLASHELM_RETURN_IF_ERROR(reader.Rewind());
    for (;;) {
      FLASHELM_ASSIGN_OR_RETURN(const Samples* chunk, reader.Next(&held_out_));
      if (chunk == nullptr) break;
      for (size_t i = 0; i < chunk->count; ++i) {
        if ((num_training_ + i) % every != 0) continue;
        const float* x = chunk->x.data() + i * dim;
        inputs.insert(inputs.end(), x, x + dim);
      }
      num_training_ += chunk->count;
      const auto labels = chunk->labels.begin();
      const size_t num_labels = chunk->count * shape_.num_neurons;
      num_active +=
          num_labels -
          static_cast<size_t>(std::count(
              labels, labels + static_cast<ptrdiff_t>(num_labels), uint8_t{0}));
    }
    const size_t num_labels = num_training_ * shape_.num_neurons;
    can_learn_ = num_active > 0 && num_active < num_labels;
    if (can_learn_) {
      const auto active = static_cast<double>(num_active);
      const auto all = static_cast<double>(num_labels);
      active_weight_ = static_cast<float>(all / active / 2);
      other_weight_ = static_cast<float>(all / (all - active) / 2);
    }

    const ConstMap x(inputs.data(), static_cast<Index>(inputs.size() / dim),
                     shape_.model_dim);
    const float rms =
        std::max(x.norm() / std::sqrt(static_cast<float>(x.size())), 1e-20f);
    size_a_ = 1 / (rms * std::sqrt(static_cast<float>(dim)));
    size_b_ = kStartDeviation / std::sqrt(static_cast<float>(options_.rank));
    parameters_.a = random.Normals(options_.rank, shape_.model_dim) * size_a_;
    parameters_.b = Matrix::Zero(shape_.num_neurons, options_.rank);
    parameters_.bias = RowVector::Zero(shape_.num_neurons);
    if (gate != nullptr) {
      StartFromGate(ConstMap(gate, shape_.num_neurons, shape_.model_dim), x,
                    random, parameters_);
    }
    return OkStatus();
  }

  // Whether some neurons are active and others are not.
  bool can_learn() const { return can_learn_; }

  // One pass over the samples. Returns the mean loss.
  Result<double> RunEpoch(SampleReader& reader, Random& random) {
    double loss = 0;
    FLASHELM_RETURN_IF_ERROR(reader.Rewind());
    for (;;) {
      FLASHELM_ASSIGN_OR_RETURN(const Samples* chunk, reader.Next(nullptr));
      if (chunk == nullptr) break;
      if (chunk->count == 0) continue;
      std::vector<size_t> order(chunk->count);
      std::iota(order.begin(), order.end(), size_t{0});
      random.Shuffle(order);
      // Of about the size asked for, all alike.
      const size_t num_batches =
          std::max<size_t>(chunk->count / options_.batch_samples, 1);
      for (size_t i = 0; i < num_batches; ++i) {
        const size_t begin = i * order.size() / num_batches;
        const size_t end = (i + 1) * order.size() / num_batches;
        loss += Step(*chunk, {order.data() + begin, end - begin});
      }
    }
    return loss / static_cast<double>(num_training_) / shape_.num_neurons;
  }

  // The parameters as they are now, judged by the samples held out.
  Result<TrainedLowRank> Snapshot() const {
    for (const Matrix* matrix : {&parameters_.a, &parameters_.b}) {
      if (CountNonFinite(matrix->data(), static_cast<size_t>(matrix->size())) >
          0) {
        return InvalidArgument("training: weights are NaN or infinite");
      }
    }
    TrainedLowRank result;
    result.shape = shape_;
    result.bytes = LowRankPredictor::Serialize(shape_, parameters_.a.data(),
                                               parameters_.b.data(),
                                               parameters_.bias.data());
    const LowRankPredictor predictor(shape_, result.bytes, 0);
    const size_t num_neurons = shape_.num_neurons;
    std::vector<float> prepared(predictor.prepared_floats());
    std::vector<float> scores(held_out_.labels.size());
    for (size_t i = 0; i < held_out_.count; ++i) {
      predictor.Prepare(held_out_.x.data() + i * shape_.model_dim,
                        prepared.data());
      predictor.Score(prepared.data(), 0, num_neurons,
                      scores.data() + i * num_neurons);
    }
    FLASHELM_ASSIGN_OR_RETURN(
        result.choice,
        ChooseThreshold(scores, held_out_.labels, options_.recall_target));
    return result;
  }

 private:
  // One step with the samples `batch` of the chunk. Returns the sum of their
  // losses.
  double Step(const Samples& chunk, std::span<const size_t> batch) {
    const auto count = static_cast<Index>(batch.size());
    x_.resize(count, shape_.model_dim);
    active_.resize(count, shape_.num_neurons);
    for (Index i = 0; i < count; ++i) {
      const size_t sample = batch[static_cast<size_t>(i)];
      x_.row(i) = Eigen::Map<const RowVector>(
          chunk.x.data() + sample * shape_.model_dim, shape_.model_dim);
      const uint8_t* labels = chunk.labels.data() + sample * shape_.num_neurons;
      for (Index j = 0; j < active_.cols(); ++j) {
        active_(i, j) = labels[j] != 0 ? 1.0f : 0.0f;
      }
    }

    projected_.noalias() = x_ * parameters_.a.transpose();
    scores_.noalias() = projected_ * parameters_.b.transpose();
    scores_.rowwise() += parameters_.bias;
    const auto s = scores_.array();
    const auto y = active_.array();
    const auto weight = other_weight_ + (active_weight_ - other_weight_) * y;
    // log(1 + e^s) - y s, without overflow.
    const double loss =
        (weight * (s.max(0.0f) - y * s + (1 + (-s.abs()).exp()).log()))
            .rowwise()
            .sum()
            .cast<double>()
            .sum();
    // Its derivative, weight * (sigmoid(s) - y), takes the place of y.
    active_ =
        weight * ((1 + (-s).exp()).inverse() - y) / static_cast<float>(count);

    gradient_b_.noalias() = active_.transpose() * projected_;
    gradient_bias_ = active_.colwise().sum();
    back_.noalias() = active_ * parameters_.b;
    gradient_a_.noalias() = back_.transpose() * x_;

    const double total = static_cast<double>(num_training_) *
                         static_cast<double>(options_.num_epochs);
    const auto rate = static_cast<float>(
        options_.learning_rate * (1 - static_cast<double>(num_seen_) / total));
    num_seen_ += batch.size();
    adam_a_.Step(gradient_a_.data(), rate * size_a_, parameters_.a.data());
    adam_b_.Step(gradient_b_.data(), rate * size_b_, parameters_.b.data());
    adam_bias_.Step(gradient_bias_.data(), rate, parameters_.bias.data());
    return loss;
  }

  const LowRankTrainerOptions& options_;
  const LowRankPredictor::Shape shape_;
  Samples held_out_;
  size_t num_training_ = 0;  // Samples.
  size_t num_seen_ = 0;
  bool can_learn_ = false;
  float active_weight_ = 1;
  float other_weight_ = 1;
  Parameters parameters_;
  float size_a_ = 1;  // What elements of A and B typically are.
  float size_b_ = 1;
  Adam adam_a_;
  Adam adam_b_;
  Adam adam_bias_;
  // Of a step, kept for the next one.
  Matrix x_;          // [batch, model_dim]
  Matrix active_;     // [batch, num_neurons], then the derivative by the scores
  Matrix projected_;  // [batch, rank]
  Matrix scores_;     // [batch, num_neurons]
  Matrix back_;       // [batch, rank]
  Matrix gradient_a_;
  Matrix gradient_b_;
  RowVector gradient_bias_;
};

Status CheckOptions(const LowRankPredictor::Shape& shape,
                    const LowRankTrainerOptions& options) {
  if (!LowRankPredictor::IsValid(shape)) {
    return InvalidArgument("training: no predictor can have ",
                           shape.num_neurons, " neurons, an input of ",
                           shape.model_dim, ", the rank ", shape.rank,
                           " and that type");
  }
  if (options.batch_samples == 0 || options.held_out_run == 0 ||
      !(options.learning_rate > 0) ||
      !(options.recall_target > 0 && options.recall_target <= 1) ||
      !(options.held_out_fraction >= 0 && options.held_out_fraction <= 1)) {
    return InvalidArgument("training: an option is out of its range");
  }
  return OkStatus();
}

}  // namespace

Result<TrainedLowRank> TrainLowRank(uint32_t num_neurons, uint32_t model_dim,
                                    const float* gate, SampleSource& source,
                                    const LowRankTrainerOptions& options) {
  FLASHELM_RETURN_IF_ERROR(CheckOptions(
      {options.type, num_neurons, model_dim, options.rank}, options));
  Random random(options.seed);
  SampleReader reader(num_neurons, model_dim, source, options);
  FLASHELM_RETURN_IF_ERROR(reader.Split(random));
  Trainer trainer(num_neurons, model_dim, options);
  FLASHELM_RETURN_IF_ERROR(trainer.Start(gate, reader, random));

  TrainedLowRank best;
  const uint32_t num_epochs = trainer.can_learn() ? options.num_epochs : 0;
  for (uint32_t epoch = 0; epoch <= num_epochs; ++epoch) {
    double loss = 0;
    if (epoch > 0) {
      FLASHELM_ASSIGN_OR_RETURN(loss, trainer.RunEpoch(reader, random));
    }
    FLASHELM_ASSIGN_OR_RETURN(TrainedLowRank found, trainer.Snapshot());
    if (options.progress) options.progress({epoch, loss, found.choice});
    if (epoch == 0 || found.choice.kept_fraction < best.choice.kept_fraction) {
      best = std::move(found);
    }
  }
  return best;
}

uint64_t LowRankTrainerBytes(uint32_t num_neurons, uint32_t model_dim,
                             uint64_t num_samples,
                             const LowRankTrainerOptions& options) {
  // A vector that grows holds its old half and its new whole.
  constexpr uint64_t kGrowth = 3;
  const uint64_t neurons = num_neurons;
  const uint64_t dim = model_dim;
  const uint64_t rank = options.rank;
  const uint64_t sample_bytes = dim * sizeof(float) + neurons;
  const auto wanted = static_cast<uint64_t>(options.held_out_fraction *
                                            static_cast<double>(num_samples));
  const uint64_t held_out =
      std::min<uint64_t>(wanted, options.max_held_out) + options.held_out_run;
  const uint64_t start = std::min<uint64_t>(kMaxStartSamples, num_samples);
  const uint64_t basis = rank + 16;
  uint64_t floats = 0;
  // Values, gradient, two of Adam; and their bytes twice, as found and as best.
  floats += 6 * rank * (dim + neurons) + 6 * neurons;
  floats += kGrowth * start * dim;
  // The basis and what is made of it, or, later, scores of samples held out
  // and those of them that are active.
  floats += std::max(basis * (5 * neurons + 3 * dim + 2 * start),
                     (1 + kGrowth) * held_out * neurons);
  floats += 2 * options.batch_samples * (2 * dim + 4 * neurons + 2 * rank);
  return floats * sizeof(float) +
         (kChunkSamples + kGrowth * held_out) * sample_bytes;
}

}  // namespace flashelm
