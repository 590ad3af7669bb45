#include "tests/core/reference_forward.h"

#include <cmath>
#include <cstring>
#include <map>
#include <string>

namespace flashelm::test {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

using Tensors = std::map<std::string, MatrixXd>;

// Vectors become one row.
Tensors Decode(std::span<const RawTensor> tensors) {
  Tensors out;
  for (const RawTensor& raw : tensors) {
    const auto rows =
        static_cast<Eigen::Index>(raw.shape.size() == 2 ? raw.shape[0] : 1);
    const auto cols = static_cast<Eigen::Index>(raw.shape.back());
    MatrixXd matrix(rows, cols);
    for (Eigen::Index i = 0; i < rows * cols; ++i) {
      float value = 0;
      std::memcpy(&value, raw.bytes.data() + i * sizeof(float), sizeof(float));
      matrix(i / cols, i % cols) = value;
    }
    out[raw.name] = matrix;
  }
  return out;
}

VectorXd Norm(const VectorXd& x, const MatrixXd& weight) {
  const double mean = x.squaredNorm() / static_cast<double>(x.size());
  return (x / std::sqrt(mean + 1e-6)).cwiseProduct(weight.row(0).transpose());
}

VectorXd Rotate(const VectorXd& x, double position, double base) {
  const Eigen::Index half = x.size() / 2;
  VectorXd out(x.size());
  for (Eigen::Index d = 0; d < half; ++d) {
    const double angle =
        position * std::pow(base, -2.0 * static_cast<double>(d) /
                                      static_cast<double>(x.size()));
    out[d] = x[d] * std::cos(angle) - x[d + half] * std::sin(angle);
    out[d + half] = x[d + half] * std::cos(angle) + x[d] * std::sin(angle);
  }
  return out;
}

double Activate(const std::string& name, double x) {
  return name == "relu" ? std::max(0.0, x) : x / (1.0 + std::exp(-x));
}

}  // namespace

MatrixXd ReferenceLogits(const Json& config, std::span<const RawTensor> raw,
                         std::span<const uint32_t> tokens,
                         const GateObserver& observe) {
  const Tensors tensors = Decode(raw);
  const MatrixXd& embedding = tensors.at("transformer.token_embeddings.weight");
  const auto num_tokens = static_cast<Eigen::Index>(tokens.size());
  const auto head_dim = config.at("head_dim").get<Eigen::Index>();
  const auto base = config.at("rope_freq_constant").get<double>();
  const auto activation = config.at("activation_fn_name").get<std::string>();

  MatrixXd x(embedding.cols(), num_tokens);  // A column per token.
  for (Eigen::Index t = 0; t < num_tokens; ++t) {
    x.col(t) = embedding.row(tokens[static_cast<size_t>(t)]).transpose();
  }
  const auto num_layers = config.at("num_transformer_layers").get<uint32_t>();
  for (uint32_t i = 0; i < num_layers; ++i) {
    const auto at = [&](const std::string& name) -> const MatrixXd& {
      return tensors.at("transformer.layers." + std::to_string(i) + "." + name +
                        ".weight");
    };
    const auto num_heads = config.at("num_query_heads")[i].get<Eigen::Index>();
    const auto num_kv = config.at("num_kv_heads")[i].get<Eigen::Index>();
    std::vector<VectorXd> qkv;
    for (Eigen::Index t = 0; t < num_tokens; ++t) {
      qkv.push_back(at("attn.qkv_proj") * Norm(x.col(t), at("attn_norm")));
    }
    const auto head = [&](Eigen::Index t, Eigen::Index index) -> VectorXd {
      return qkv[static_cast<size_t>(t)].segment(index * head_dim, head_dim);
    };
    for (Eigen::Index t = 0; t < num_tokens; ++t) {
      VectorXd mixed(num_heads * head_dim);
      for (Eigen::Index h = 0; h < num_heads; ++h) {
        const Eigen::Index kv = h / (num_heads / num_kv);
        const VectorXd query =
            Rotate(Norm(head(t, h), at("attn.q_norm")), double(t), base);
        VectorXd scores(t + 1);
        for (Eigen::Index s = 0; s <= t; ++s) {
          const VectorXd key =
              Rotate(Norm(head(s, num_heads + kv), at("attn.k_norm")),
                     double(s), base);
          scores[s] = query.dot(key) / std::sqrt(double(head_dim));
        }
        const VectorXd weights =
            (scores.array() - scores.maxCoeff()).exp().matrix();
        VectorXd value = VectorXd::Zero(head_dim);
        for (Eigen::Index s = 0; s <= t; ++s) {
          value += weights[s] * head(s, num_heads + num_kv + kv);
        }
        mixed.segment(h * head_dim, head_dim) = value / weights.sum();
      }
      x.col(t) += at("attn.out_proj") * mixed;
    }
    const MatrixXd& gate_and_up = at("ffn.proj_1");
    const Eigen::Index ffn_dim = gate_and_up.rows() / 2;
    for (Eigen::Index t = 0; t < num_tokens; ++t) {
      const VectorXd hidden = gate_and_up * Norm(x.col(t), at("ffn_norm"));
      if (observe) observe(i, static_cast<uint32_t>(t), hidden.head(ffn_dim));
      VectorXd product(ffn_dim);
      for (Eigen::Index n = 0; n < ffn_dim; ++n) {
        product[n] = Activate(activation, hidden[n]) * hidden[ffn_dim + n];
      }
      x.col(t) += at("ffn.proj_2") * product;
    }
  }
  MatrixXd logits(num_tokens, embedding.rows());
  for (Eigen::Index t = 0; t < num_tokens; ++t) {
    logits.row(t) =
        (embedding * Norm(x.col(t), tensors.at("transformer.norm.weight")))
            .transpose();
  }
  return logits;
}

}  // namespace flashelm::test
