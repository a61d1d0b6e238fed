// CPU kernels for the training step: where MXNet 1.9.1's own operators are several times slower than memory allows.
//
// Each is an MXNet operator once bort/gluon/kernels.py has loaded this library: queued, differentiated and compiled into graphs like
// others, with one limit. MXNet does not tell an operator of a library to add a gradient to what is there; it always overwrites. That is
// right unless grad_req is "add", or a compiled graph uses one array in more than seven places (MXNET_EXEC_INPLACE_GRAD_SUM_CAP).
// All arrays are float32. A kernel's result does not depend on the number of threads: sums are made over blocks of fixed size, in a fixed
// order.

#include <mxnet/lib_api.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using namespace mxnet::ext;

namespace {

using Attributes = std::unordered_map<std::string, std::string>;
using Tensors = std::vector<MXTensor>;
using Shapes = std::vector<std::vector<unsigned int>>;

constexpr int64_t kRowsOfBlock = 32;
constexpr int64_t kElementsOfBlock = 1 << 16;

MXReturnValue all_float32(const Attributes&, std::vector<int>* in_types, std::vector<int>* out_types) {
  for (int& type : *in_types) {
    if (type != kFloat32) {
      MX_ERROR_MSG << "Bort's kernels take float32 arrays only";
      return MX_FAIL;
    }
  }
  std::fill(out_types->begin(), out_types->end(), kFloat32);
  return MX_SUCCESS;
}

double number(const Attributes& attributes, const char* name) { return std::stod(attributes.at(name)); }

int64_t rows_of(const MXTensor& tensor) {
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < tensor.shape.size(); ++axis) rows *= tensor.shape[axis];
  return rows;
}

// ── LayerNorm over the last axis: x (…, C), gamma (C,), beta (C,) → y (…, C) ──

struct Moments {
  float mean, inverse_deviation;
};

Moments moments_of(const float* x, int64_t channels, float epsilon) {
  float sum = 0.f, squares = 0.f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < channels; ++c) sum += x[c];
  const float mean = sum / channels;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < channels; ++c) squares += (x[c] - mean) * (x[c] - mean);
  return {mean, 1.f / std::sqrt(squares / channels + epsilon)};
}

MXReturnValue layer_norm_attributes(const Attributes&, int* num_inputs, int* num_outputs) {
  *num_inputs = 3;
  *num_outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue layer_norm_shape(const Attributes&, Shapes* in_shapes, Shapes* out_shapes) {
  (*in_shapes)[1] = (*in_shapes)[2] = {(*in_shapes)[0].back()};
  (*out_shapes)[0] = (*in_shapes)[0];
  return MX_SUCCESS;
}

MXReturnValue layer_norm_forward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const MXTensor& tensor = (*inputs)[0];
  const int64_t rows = rows_of(tensor), channels = tensor.shape.back();
  const float *x = (*inputs)[0].data<float>(), *gamma = (*inputs)[1].data<float>(), *beta = (*inputs)[2].data<float>();
  float* y = (*outputs)[0].data<float>();
  const float epsilon = number(attributes, "eps");
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    float* out = y + row * channels;
    const Moments m = moments_of(in, channels, epsilon);
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) out[c] = (in[c] - m.mean) * m.inverse_deviation * gamma[c] + beta[c];
  }
  return MX_SUCCESS;
}

// dx = (g - mean(g) - x̂ · mean(g · x̂)) / σ with g = dy · gamma; dgamma = Σ dy · x̂; dbeta = Σ dy.
MXReturnValue layer_norm_backward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const MXTensor& tensor = (*inputs)[1];
  const int64_t rows = rows_of(tensor), channels = tensor.shape.back();
  const float *dy = (*inputs)[0].data<float>(), *x = (*inputs)[1].data<float>(), *gamma = (*inputs)[2].data<float>();
  float *dx = (*outputs)[0].data<float>(), *dgamma = (*outputs)[1].data<float>(), *dbeta = (*outputs)[2].data<float>();
  const float epsilon = number(attributes, "eps");
  const int64_t blocks = (rows + kRowsOfBlock - 1) / kRowsOfBlock;
  std::vector<float> partial(2 * blocks * channels, 0.f);
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; ++block) {
    float *partial_gamma = partial.data() + 2 * block * channels, *partial_beta = partial_gamma + channels;
    for (int64_t row = block * kRowsOfBlock; row < std::min(rows, (block + 1) * kRowsOfBlock); ++row) {
      const float *in = x + row * channels, *upstream = dy + row * channels;
      float* out = dx + row * channels;
      const Moments m = moments_of(in, channels, epsilon);
      float sum = 0.f, product = 0.f;
#pragma omp simd reduction(+ : sum, product)
      for (int64_t c = 0; c < channels; ++c) {
        const float normalised = (in[c] - m.mean) * m.inverse_deviation, g = upstream[c] * gamma[c];
        sum += g;
        product += g * normalised;
        partial_gamma[c] += upstream[c] * normalised;
        partial_beta[c] += upstream[c];
      }
      sum /= channels;
      product /= channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float normalised = (in[c] - m.mean) * m.inverse_deviation;
        out[c] = (upstream[c] * gamma[c] - sum - normalised * product) * m.inverse_deviation;
      }
    }
  }
  std::fill(dgamma, dgamma + channels, 0.f);
  std::fill(dbeta, dbeta + channels, 0.f);
  for (int64_t block = 0; block < blocks; ++block) {
    const float *partial_gamma = partial.data() + 2 * block * channels, *partial_beta = partial_gamma + channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      dgamma[c] += partial_gamma[c];
      dbeta[c] += partial_beta[c];
    }
  }
  return MX_SUCCESS;
}

REGISTER_OP(bort_layer_norm)
    .setParseAttrs(layer_norm_attributes)
    .setInferType(all_float32)
    .setInferShape(layer_norm_shape)
    .setForward(layer_norm_forward, "cpu")
    .setBackward(layer_norm_backward, "cpu");

// ── Σ x² over any number of arrays → (1,) ──

MXReturnValue sum_of_squares_attributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  *num_inputs = std::stoi(attributes.at("num_arrays"));
  *num_outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue one_number(const Attributes&, Shapes*, Shapes* out_shapes) {
  (*out_shapes)[0] = {1};
  return MX_SUCCESS;
}

MXReturnValue sum_of_squares_forward(const Attributes&, Tensors* inputs, Tensors* outputs, const OpResource&) {
  double total = 0.0;
  for (MXTensor& tensor : *inputs) {
    const int64_t size = tensor.size(), blocks = (size + kElementsOfBlock - 1) / kElementsOfBlock;
    const float* x = tensor.data<float>();
    std::vector<float> partial(blocks);
#pragma omp parallel for
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t end = std::min(size, (block + 1) * kElementsOfBlock);
      float sum = 0.f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = block * kElementsOfBlock; i < end; ++i) sum += x[i] * x[i];
      partial[block] = sum;
    }
    for (float sum : partial) total += sum;
  }
  (*outputs)[0].data<float>()[0] = total;
  return MX_SUCCESS;
}

REGISTER_OP(bort_sum_of_squares)
    .setParseAttrs(sum_of_squares_attributes)
    .setInferType(all_float32)
    .setInferShape(one_number)
    .setForward(sum_of_squares_forward, "cpu");

// ── One BERTAdam step, in place ──
// Inputs: num_arrays weights, gradients, means and variances, and the gradients' factor (1,). Returns the factor. A factor that is zero or
// not finite skips the step.

MXReturnValue adam_attributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  *num_inputs = 4 * std::stoi(attributes.at("num_arrays")) + 1;
  *num_outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue adam_mutated(const Attributes& attributes, std::vector<int>* indices) {
  const int count = std::stoi(attributes.at("num_arrays"));
  for (int i = 0; i < count; ++i) indices->push_back(i);
  for (int i = 2 * count; i < 4 * count; ++i) indices->push_back(i);
  return MX_SUCCESS;
}

MXReturnValue adam_forward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const int64_t count = std::stoi(attributes.at("num_arrays"));
  const float factor = inputs->back().data<float>()[0];
  (*outputs)[0].data<float>()[0] = factor;
  if (!std::isfinite(factor) || factor == 0.f) return MX_SUCCESS;
  const float learning_rate = number(attributes, "lr"), epsilon = number(attributes, "eps");
  const float beta1 = number(attributes, "beta1"), beta2 = number(attributes, "beta2");
  std::istringstream decays(attributes.at("decays"));
  for (int64_t array = 0; array < count; ++array) {
    float decay;
    decays >> decay;
    float* weight = (*inputs)[array].data<float>();
    const float* gradient = (*inputs)[count + array].data<float>();
    float *mean = (*inputs)[2 * count + array].data<float>(), *variance = (*inputs)[3 * count + array].data<float>();
    const int64_t size = (*inputs)[array].size();
#pragma omp parallel for simd
    for (int64_t i = 0; i < size; ++i) {
      const float g = gradient[i] * factor;
      const float m = beta1 * mean[i] + (1.f - beta1) * g, v = beta2 * variance[i] + (1.f - beta2) * g * g;
      mean[i] = m;
      variance[i] = v;
      weight[i] -= learning_rate * (m / (std::sqrt(v) + epsilon) + decay * weight[i]);
    }
  }
  return MX_SUCCESS;
}

REGISTER_OP(bort_adam)
    .setParseAttrs(adam_attributes)
    .setInferType(all_float32)
    .setInferShape(one_number)
    .setMutateInputs(adam_mutated)
    .setForward(adam_forward, "cpu");

// ── Masked-language-model and distillation loss over rows of logits, with its gradient ──
// Inputs: student logits (K, V), labels (K,), weights (K,), and with teacher=1 teacher logits (K, V). Outputs: sums over the rows, each times
// its weight, in the order of bort/gluon/losses.py (4 of them, 8 with a teacher), and the gradient (K, V) of
// Σ weight · (mlm_weight · MLM + kd_weight · KD) with respect to the student's logits:
// mlm_weight · (softmax(s) - onehot(label)) + kd_weight · T · (softmax(s/T) - softmax(t/T)).

// exp(x) for x ≤ 0 to 2e-7 of its value: 2^n · e^r with |r| ≤ ln(2)/2 and Taylor's polynomial of degree 7; a loop over it is vectorised.
inline float exponential(float x) {
  x = std::max(x, -87.f);
  constexpr float kRounder = 12582912.f;  // 1.5 · 2^23: adding it leaves no fraction bits
  const float n = (x * 1.44269504f + kRounder) - kRounder;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.f / 5040.f;
  p = p * r + 1.f / 720.f;
  p = p * r + 1.f / 120.f;
  p = p * r + 1.f / 24.f;
  p = p * r + 1.f / 6.f;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}

// One row of logits: its largest entry, and the log-sum-exp at temperature 1 and at `temperature`.
struct Row {
  const float* logits;
  float largest = 0.f, log_sum = 0.f, log_sum_softened = 0.f;
  int64_t guess = 0;

  Row(const float* logits_, int64_t size, float inverse_temperature, float* plain, float* softened) : logits(logits_) {
    float most = logits[0];
#pragma omp simd reduction(max : most)
    for (int64_t v = 0; v < size; ++v) most = std::max(most, logits[v]);
    largest = most;
    guess = std::find(logits, logits + size, most) - logits;
    float sum = 0.f, sum_softened = 0.f;
    if (softened == nullptr) {
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < size; ++v) sum += plain[v] = exponential(logits[v] - most);
    } else {
#pragma omp simd reduction(+ : sum, sum_softened)
      for (int64_t v = 0; v < size; ++v) {
        sum += plain[v] = exponential(logits[v] - most);
        sum_softened += softened[v] = exponential((logits[v] - most) * inverse_temperature);
      }
      log_sum_softened = most * inverse_temperature + std::log(sum_softened);
      const float scale = 1.f / sum_softened;
#pragma omp simd
      for (int64_t v = 0; v < size; ++v) softened[v] *= scale;
    }
    log_sum = most + std::log(sum);
    const float scale = 1.f / sum;
#pragma omp simd
    for (int64_t v = 0; v < size; ++v) plain[v] *= scale;
  }

  // -Σ p log p, in nats, of the distribution `plain` that the constructor left.
  float entropy(const float* plain, int64_t size) const {
    float sum = 0.f;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < size; ++v) sum += plain[v] * (log_sum - logits[v]);
    return sum;
  }
};

MXReturnValue masked_loss_attributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  *num_inputs = 3 + std::stoi(attributes.at("teacher"));
  *num_outputs = 2;
  return MX_SUCCESS;
}

MXReturnValue masked_loss_shape(const Attributes& attributes, Shapes* in_shapes, Shapes* out_shapes) {
  (*out_shapes)[0] = {std::stoi(attributes.at("teacher")) ? 8u : 4u};
  (*out_shapes)[1] = (*in_shapes)[0];
  return MX_SUCCESS;
}

MXReturnValue masked_loss_forward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const bool has_teacher = inputs->size() == 4;
  const int64_t rows = (*inputs)[0].shape[0], size = (*inputs)[0].shape[1];
  const float *logits = (*inputs)[0].data<float>(), *labels = (*inputs)[1].data<float>(), *weights = (*inputs)[2].data<float>();
  const float* teacher_logits = has_teacher ? (*inputs)[3].data<float>() : nullptr;
  float *sums = (*outputs)[0].data<float>(), *gradients = (*outputs)[1].data<float>();
  const float mlm_weight = number(attributes, "mlm_weight"), kd_weight = number(attributes, "kd_weight");
  const float temperature = number(attributes, "temperature"), inverse = 1.f / temperature;
  const int64_t num_sums = has_teacher ? 8 : 4;
  std::vector<double> of_rows(rows * num_sums, 0.0);
  std::atomic<bool> outside{false};
#pragma omp parallel
  {
    std::vector<float> scratch(has_teacher ? 4 * size : size);
    float *student = scratch.data(), *student_softened = nullptr, *teacher = nullptr, *teacher_softened = nullptr;
    if (has_teacher) {
      student_softened = student + size;
      teacher = student + 2 * size;
      teacher_softened = student + 3 * size;
    }
#pragma omp for schedule(dynamic)
    for (int64_t row = 0; row < rows; ++row) {
      const float weight = weights[row];
      float* gradient = gradients + row * size;
      if (weight == 0.f) {
        std::fill(gradient, gradient + size, 0.f);
        continue;
      }
      if (!(labels[row] >= 0.f && labels[row] < size)) {
        outside = true;
        continue;
      }
      const int64_t label = static_cast<int64_t>(labels[row]);
      double* result = of_rows.data() + row * num_sums;
      const Row s(logits + row * size, size, inverse, student, student_softened);
      result[0] = weight;
      result[1] = weight * (s.log_sum - s.logits[label]);
      result[2] = weight * (s.guess == label);
      result[3] = weight * s.entropy(student, size);
      const float mlm = weight * mlm_weight;
      if (!has_teacher) {
#pragma omp simd
        for (int64_t v = 0; v < size; ++v) gradient[v] = mlm * student[v];
      } else {
        const Row t(teacher_logits + row * size, size, inverse, teacher, teacher_softened);
        const float kd = weight * kd_weight * temperature, offset = s.log_sum_softened - t.log_sum_softened;
        float divergence = 0.f;
#pragma omp simd reduction(+ : divergence)
        for (int64_t v = 0; v < size; ++v) {
          divergence += teacher_softened[v] * ((t.logits[v] - s.logits[v]) * inverse + offset);
          gradient[v] = mlm * student[v] + kd * (student_softened[v] - teacher_softened[v]);
        }
        result[4] = weight * temperature * temperature * divergence;
        result[5] = weight * t.entropy(teacher, size);
        result[6] = weight * (s.guess == t.guess);
        result[7] = weight * (t.guess == label);
      }
      gradient[label] -= mlm;
    }
  }
  if (outside) {
    MX_ERROR_MSG << "a label lies outside the vocabulary of " << size;
    return MX_FAIL;
  }
  for (int64_t sum = 0; sum < num_sums; ++sum) {
    double total = 0.0;
    for (int64_t row = 0; row < rows; ++row) total += of_rows[row * num_sums + sum];
    sums[sum] = total;
  }
  return MX_SUCCESS;
}

REGISTER_OP(bort_masked_loss)
    .setParseAttrs(masked_loss_attributes)
    .setInferType(all_float32)
    .setInferShape(masked_loss_shape)
    .setForward(masked_loss_forward, "cpu");

// ── matrix (V, C) += rows (N, C) at ids (N,), in place: the gradient of an embedding, without a dense matrix of its own ──
// Returns the number of rows. Each thread owns a strip of columns, so rows that meet are added in order.

MXReturnValue add_rows_attributes(const Attributes&, int* num_inputs, int* num_outputs) {
  *num_inputs = 3;
  *num_outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue add_rows_mutated(const Attributes&, std::vector<int>* indices) {
  indices->push_back(0);
  return MX_SUCCESS;
}

MXReturnValue add_rows_forward(const Attributes&, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const int64_t channels = (*inputs)[0].shape.back(), count = (*inputs)[1].size();
  float* matrix = (*inputs)[0].data<float>();
  const float *ids = (*inputs)[1].data<float>(), *rows = (*inputs)[2].data<float>();
  constexpr int64_t kStrip = 64;
  for (int64_t row = 0; row < count; ++row) {
    if (!(ids[row] >= 0.f && ids[row] < (*inputs)[0].shape[0])) {
      MX_ERROR_MSG << "row " << row << " has id " << ids[row] << ", the matrix has " << (*inputs)[0].shape[0] << " rows";
      return MX_FAIL;
    }
  }
#pragma omp parallel for
  for (int64_t strip = 0; strip < channels; strip += kStrip) {
    const int64_t end = std::min(channels, strip + kStrip);
    for (int64_t row = 0; row < count; ++row) {
      float* target = matrix + static_cast<int64_t>(ids[row]) * channels;
      const float* source = rows + row * channels;
#pragma omp simd
      for (int64_t c = strip; c < end; ++c) target[c] += source[c];
    }
  }
  (*outputs)[0].data<float>()[0] = count;
  return MX_SUCCESS;
}

REGISTER_OP(bort_add_rows)
    .setParseAttrs(add_rows_attributes)
    .setInferType(all_float32)
    .setInferShape(one_number)
    .setMutateInputs(add_rows_mutated)
    .setForward(add_rows_forward, "cpu");

// ── Multi-head self-attention, softmax(q·kᵀ/√D)·v with dropout of the weights ──
// Inputs: q, k, v (T, B, H·D); lengths (B,), the keys each row may look at; gate (1,), 1 where nothing is to be dropped; seed (2,), integers
// below 2^24. Output: (T, B, H·D). One (batch, head) pair at a time stays in the cache; nothing of size T × T is kept, the backward pass
// computes the weights and the dropout mask again. The products are OpenBLAS's, which uses one thread inside a parallel region.

extern "C" void cblas_sgemm(
    int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float beta,
    float* c, int ldc);

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;

// A hash of 64 bits of seed and 32 of counter to 32 bits; its rounds are Wellons's "lowbias32".
inline uint32_t hash(uint32_t counter, uint32_t seed, uint32_t more_seed) {
  uint32_t x = counter * 0x9e3779b9u + seed;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  x = (x ^ (x >> 16)) + more_seed;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

struct Attention {
  int64_t length, batch, heads, width, stride;
  float scale, keep;
  uint32_t seed, more_seed, threshold;
  const float *q, *k, *v, *lengths;

  Attention(const Attributes& attributes, Tensors* inputs, size_t first) {
    const MXTensor& tensor = (*inputs)[first];
    length = tensor.shape[0];
    batch = tensor.shape[1];
    heads = std::stoi(attributes.at("heads"));
    stride = batch * tensor.shape[2];
    width = tensor.shape[2] / heads;
    scale = 1.f / std::sqrt(static_cast<float>(width));
    q = (*inputs)[first].data<float>();
    k = (*inputs)[first + 1].data<float>();
    v = (*inputs)[first + 2].data<float>();
    lengths = (*inputs)[first + 3].data<float>();
    const double rate = (*inputs)[first + 4].data<float>()[0] == 1.f ? 0.0 : number(attributes, "dropout");
    const float* seeds = (*inputs)[first + 5].data<float>();
    seed = static_cast<uint32_t>(seeds[0]);
    more_seed = static_cast<uint32_t>(seeds[1]) << 8;
    threshold = static_cast<uint32_t>(rate * 4294967296.0);
    keep = 1.f / (1.f - static_cast<float>(rate));
  }

  int64_t offset(int64_t pair) const { return pair / heads * heads * width + pair % heads * width; }

  int64_t keys(int64_t pair) const { return std::max<int64_t>(1, std::min<int64_t>(length, lengths[pair / heads])); }

  // What the dropout of weight (row, key) multiplies it by.
  float kept(int64_t pair, int64_t row, int64_t key) const {
    return hash(static_cast<uint32_t>((pair * length + row) * length + key), seed, more_seed) < threshold ? 0.f : keep;
  }

  // weights (T, keys) of a pair before dropout, rows `length` apart.
  void softmax(int64_t pair, float* weights) const {
    const int64_t count = keys(pair), at = offset(pair);
    cblas_sgemm(kRowMajor, kPlain, kTransposed, length, count, width, scale, q + at, stride, k + at, stride, 0.f, weights, length);
    for (int64_t row = 0; row < length; ++row) {
      float* w = weights + row * length;
      float most = w[0], sum = 0.f;
#pragma omp simd reduction(max : most)
      for (int64_t key = 0; key < count; ++key) most = std::max(most, w[key]);
#pragma omp simd reduction(+ : sum)
      for (int64_t key = 0; key < count; ++key) sum += w[key] = exponential(w[key] - most);
      const float inverse = 1.f / sum;
#pragma omp simd
      for (int64_t key = 0; key < count; ++key) w[key] *= inverse;
    }
  }

  void drop(int64_t pair, const float* weights, float* dropped) const {
    const int64_t count = keys(pair);
    for (int64_t row = 0; row < length; ++row) {
#pragma omp simd
      for (int64_t key = 0; key < count; ++key) dropped[row * length + key] = weights[row * length + key] * kept(pair, row, key);
    }
  }
};

MXReturnValue attention_attributes(const Attributes&, int* num_inputs, int* num_outputs) {
  *num_inputs = 6;
  *num_outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue attention_shape(const Attributes& attributes, Shapes* in_shapes, Shapes* out_shapes) {
  const auto& shape = (*in_shapes)[0];
  if (shape.size() != 3 || shape[2] % std::stoi(attributes.at("heads")) != 0 || (*in_shapes)[1] != shape || (*in_shapes)[2] != shape) {
    MX_ERROR_MSG << "attention needs q, k and v of one shape (T, B, C), and heads that divide C";
    return MX_FAIL;
  }
  (*out_shapes)[0] = shape;
  return MX_SUCCESS;
}

MXReturnValue attention_forward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const Attention a(attributes, inputs, 0);
  float* context = (*outputs)[0].data<float>();
#pragma omp parallel
  {
    std::vector<float> weights(a.length * a.length);
#pragma omp for schedule(dynamic)
    for (int64_t pair = 0; pair < a.batch * a.heads; ++pair) {
      const int64_t count = a.keys(pair), at = a.offset(pair);
      a.softmax(pair, weights.data());
      if (a.threshold != 0) a.drop(pair, weights.data(), weights.data());
      cblas_sgemm(
          kRowMajor, kPlain, kPlain, a.length, a.width, count, 1.f, weights.data(), a.length, a.v + at, a.stride, 0.f, context + at, a.stride);
    }
  }
  return MX_SUCCESS;
}

// With P the weights, M the dropout's factors and W = P·M: dv = Wᵀ·dy, dP = (dy·vᵀ)·M, dS = P·(dP - Σ_key dP·P), dq = dS·k/√D, dk = dSᵀ·q/√D.
MXReturnValue attention_backward(const Attributes& attributes, Tensors* inputs, Tensors* outputs, const OpResource&) {
  const Attention a(attributes, inputs, 1);
  const float* dy = (*inputs)[0].data<float>();
  float *dq = (*outputs)[0].data<float>(), *dk = (*outputs)[1].data<float>(), *dv = (*outputs)[2].data<float>();
  const int64_t n = a.length;
#pragma omp parallel
  {
    std::vector<float> scratch(3 * n * n);
    float *weights = scratch.data(), *dropped = weights + n * n, *slope = dropped + n * n;
#pragma omp for schedule(dynamic)
    for (int64_t pair = 0; pair < a.batch * a.heads; ++pair) {
      const int64_t count = a.keys(pair), at = a.offset(pair);
      a.softmax(pair, weights);
      const bool drops = a.threshold != 0;
      if (drops) a.drop(pair, weights, dropped);
      const float* applied = drops ? dropped : weights;
      cblas_sgemm(kRowMajor, kTransposed, kPlain, count, a.width, n, 1.f, applied, n, dy + at, a.stride, 0.f, dv + at, a.stride);
      cblas_sgemm(kRowMajor, kPlain, kTransposed, n, count, a.width, 1.f, dy + at, a.stride, a.v + at, a.stride, 0.f, slope, n);
      for (int64_t row = 0; row < n; ++row) {
        const float *p = weights + row * n, *w = applied + row * n;
        float* s = slope + row * n;
        float sum = 0.f;
        // Where a weight was dropped, w is 0; elsewhere dP·P is (dy·vᵀ)·w.
#pragma omp simd reduction(+ : sum)
        for (int64_t key = 0; key < count; ++key) sum += s[key] * w[key];
#pragma omp simd
        for (int64_t key = 0; key < count; ++key) s[key] = s[key] * w[key] - p[key] * sum;
      }
      cblas_sgemm(kRowMajor, kPlain, kPlain, n, a.width, count, a.scale, slope, n, a.k + at, a.stride, 0.f, dq + at, a.stride);
      cblas_sgemm(kRowMajor, kTransposed, kPlain, count, a.width, n, a.scale, slope, n, a.q + at, a.stride, 0.f, dk + at, a.stride);
      for (int64_t key = count; key < n; ++key) {
        std::fill_n(dk + at + key * a.stride, a.width, 0.f);
        std::fill_n(dv + at + key * a.stride, a.width, 0.f);
      }
    }
  }
  return MX_SUCCESS;
}

REGISTER_OP(bort_attention)
    .setParseAttrs(attention_attributes)
    .setInferType(all_float32)
    .setInferShape(attention_shape)
    .setForward(attention_forward, "cpu")
    .setBackward(attention_backward, "cpu");

}  // namespace

MXReturnValue initialize(int version) {
  if (version < 10900) {
    MX_ERROR_MSG << "Bort's kernels need MXNet 1.9, this is " << version;
    return MX_FAIL;
  }
  return MX_SUCCESS;
}

// The glue of MXNet's extension interface, which its wheel ships as source.
#include <lib_api.cc>
