// The masked weight of trainable thresholds on a CPU: the passes over it that the operators are made of.
//
// Equations: methods/thresholds.py, which computes the same in plain torch operations. A weight is seen
// as rows, its first axis; a row's entries are contiguous in memory, in an order that does not matter
// here. A threshold belongs to a row, to the whole weight or to one entry (`Thresholds`).
//
// Sums run in LANES strands, added up in one order: the bits of what is computed here depend on neither
// the instruction set nor the number of threads. Entries are multiplied by 0 rather than replaced by it, as torch does: signs of
// zeros, infinities and NaNs are equal to those of the plain operations.

#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

namespace sparse_training {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t LANES = 16;
constexpr int64_t GRAIN = 16384;  // entries that are worth a thread

struct Shape {
  int64_t rows, columns;
  bool per_row, per_entry;  // neither: one threshold for the whole weight

  Shape(const Tensor& weight, const Tensor& threshold)
      : rows(weight.dim() > 0 ? weight.size(0) : 1),
        columns(rows > 0 ? weight.numel() / rows : 0),
        per_row(threshold.dim() == 1 && threshold.numel() == rows),
        per_entry(!per_row && threshold.dim() == weight.dim() && threshold.sizes() == weight.sizes()) {
    TORCH_CHECK(weight.is_cpu() && threshold.is_cpu(), "a weight or its thresholds are not on the CPU");
    TORCH_CHECK(per_row || per_entry || threshold.numel() == 1, "thresholds of shape ", threshold.sizes(),
                " do not belong to a weight of shape ", weight.sizes());
  }

  int64_t grain() const { return std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, columns)); }
};

template <typename T>
T step(T weight, T threshold) {
  return std::abs(weight) > threshold ? T(1) : T(0);
}

// Whether the tensor's memory holds its numbers, as they are.
inline bool is_plain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.layout() == at::kStrided && !tensor.is_neg() &&
         (tensor.key_set() & at::kTensorSubclassLike).empty();
}

// Whether every row is one block of memory.
inline bool in_rows(const Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() &&
         (tensor.numel() == 0 || tensor.dim() == 0 || tensor.stride(0) * tensor.size(0) == tensor.numel() ||
          tensor.size(0) == 1);
}

inline Tensor rows_of(const Tensor& tensor) { return in_rows(tensor) ? tensor : tensor.contiguous(); }

// The tensor with its entries in the order of another one's.
inline Tensor like(const Tensor& tensor, const Tensor& layout) {
  if (tensor.strides() == layout.strides()) return tensor;
  return at::empty_strided(layout.sizes(), layout.strides(), tensor.options()).copy_(tensor);
}

// A weight whose rows are blocks of memory, and its thresholds in the same order.
struct Layer : Shape {
  Tensor weight, threshold;

  Layer(const Tensor& given, const Tensor& given_threshold)
      : Shape(given, given_threshold),
        weight(rows_of(given)),
        threshold(per_entry ? like(given_threshold, weight) : given_threshold.contiguous()) {}
};

// Rows [begin, end) of the product, to where p points; returns how many entries are kept.
template <typename T>
int64_t mask_rows(const Shape& shape, const T* w, const T* t, T* p, int64_t begin, int64_t end) {
  std::vector<int64_t> kept(end - begin);
  at::parallel_for(begin, end, shape.grain(), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const T* v = w + row * shape.columns;
      T* to = p + (row - begin) * shape.columns;
      int32_t count = 0;
      if (shape.per_entry) {
        const T* limit = t + row * shape.columns;
        for (int64_t i = 0; i < shape.columns; ++i) {
          to[i] = v[i] * step(v[i], limit[i]);
          count += std::abs(v[i]) > limit[i];
        }
      } else {
        const T limit = t[shape.per_row ? row : 0];
        for (int64_t i = 0; i < shape.columns; ++i) {
          to[i] = v[i] * step(v[i], limit);
          count += std::abs(v[i]) > limit;
        }
      }
      kept[row - begin] = count;
    }
  });
  return std::accumulate(kept.begin(), kept.end(), int64_t(0));
}

template <typename T>
struct LongTailed {
  T operator()(T x) const {
    const T distance = std::abs(x);
    const T height = T(2) - T(4) * distance;
    return (height < T(0.4) ? T(0.4) : height) * (distance <= T(1) ? T(1) : T(0));
  }
};

template <typename T>
struct StraightThrough {
  T operator()(T x) const { return std::abs(x) <= T(1) ? T(1) : T(0); }
};

// The gradient of one entry; returns what its threshold's gradient loses.
template <typename T, typename Estimator>
inline T entry(T gradient, T weight, T threshold, T& d_weight, Estimator estimator) {
  const T distance = std::abs(weight) - threshold;
  const T structure = gradient * weight * estimator(distance);
  d_weight = gradient * (distance > T(0) ? T(1) : T(0)) + (weight < T(0) ? -structure : structure);
  return structure;
}

// d_weight: the gradient's own memory, or none of it.
template <typename T, typename Estimator>
T row_backward(const T* gradient, const T* weight, T threshold, T* d_weight, int64_t count, Estimator estimator) {
  T sums[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
#pragma GCC ivdep
    for (int64_t lane = 0; lane < LANES; ++lane)
      sums[lane] += entry(gradient[i + lane], weight[i + lane], threshold, d_weight[i + lane], estimator);
  }
  for (int64_t lane = 0; i < count; ++i, ++lane)
    sums[lane] += entry(gradient[i], weight[i], threshold, d_weight[i], estimator);
  T total = 0;
  for (T sum : sums) total += sum;
  return total;
}

// Rows [begin, end). dt: of each row or, where every entry has a threshold, of each entry.
template <typename T, typename Estimator>
void backward_rows(const Shape& shape, const T* g, const T* w, const T* t, T* dw, T* dt, int64_t begin, int64_t end,
                   Estimator estimator) {
  at::parallel_for(begin, end, shape.grain(), [&](int64_t first, int64_t last) {
    if (shape.per_entry) {
      for (int64_t i = first * shape.columns; i < last * shape.columns; ++i)
        dt[i] = -entry(g[i], w[i], t[i], dw[i], estimator);
      return;
    }
    for (int64_t row = first; row < last; ++row) {
      const int64_t start = row * shape.columns;
      dt[row] = -row_backward(g + start, w + start, t[shape.per_row ? row : 0], dw + start, shape.columns, estimator);
    }
  });
}

// Writes the weight's gradient and returns the thresholds', from the product's: `fill(begin, end)` makes these rows of
// it, which may lie where the weight's gradient will.
template <typename Fill>
Tensor masked_weight_backward(const Layer& layer, const Tensor& gradient, const Tensor& d_weight, int64_t estimator,
                              int64_t block, const Fill& fill) {
  Tensor d_threshold = at::empty_like(layer.threshold);
  AT_DISPATCH_FLOATING_TYPES(layer.weight.scalar_type(), "masked_weight_backward", [&] {
    const bool one = !layer.per_row && !layer.per_entry;
    std::vector<scalar_t> by_row(one ? layer.rows : 0);
    auto* dt = d_threshold.mutable_data_ptr<scalar_t>();
    const auto rows = [&](int64_t begin, int64_t end, auto chosen) {
      backward_rows(layer, gradient.const_data_ptr<scalar_t>(), layer.weight.const_data_ptr<scalar_t>(),
                    layer.threshold.const_data_ptr<scalar_t>(), d_weight.mutable_data_ptr<scalar_t>(),
                    one ? by_row.data() : dt, begin, end, chosen);
    };
    for (int64_t end = layer.rows, begin; end > 0; end = begin) {  // the last rows of a forward pass are in the cache
      begin = (end - 1) / block * block;
      fill(begin, end);
      estimator == 0 ? rows(begin, end, LongTailed<scalar_t>()) : rows(begin, end, StraightThrough<scalar_t>());
    }
    if (one) *dt = std::accumulate(by_row.begin(), by_row.end(), scalar_t(0));
  });
  return d_threshold;
}

// A gradient computed here has no graph of its own.
inline void refuse_second_derivative() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "the fused masked weight has no second derivative: set SPARSE_TRAINING_KERNELS=eager");
}

constexpr int64_t UNCOUNTED = -1;

// What is kept of every layer: int64 [3, layers], the counts above the addresses of the weight and of the thresholds
// that they are to be of.
struct Counts {
  int64_t* at;
  int64_t layers;

  explicit Counts(const Tensor& kept) : at(kept.mutable_data_ptr<int64_t>()), layers(kept.size(1)) {
    TORCH_CHECK(kept.is_cpu() && kept.is_contiguous() && kept.size(0) == 3, "counts are not [3, layers] on the CPU");
  }

  int64_t& count(int64_t layer) { return at[layer]; }
  int64_t& weight(int64_t layer) { return at[layers + layer]; }
  int64_t& threshold(int64_t layer) { return at[2 * layers + layer]; }
};

inline int64_t address(const Tensor& tensor) { return reinterpret_cast<int64_t>(tensor.const_data_ptr()); }

// Whether a tensor can be a parameter in training, and not computed from one.
inline bool is_trained(const Tensor& tensor) { return is_plain(tensor) && tensor.requires_grad() && tensor.is_leaf(); }

// Where a forward pass writes how many entries it keeps, null if nowhere: they are counted once a step, by the first pass
// of a training over the parameters themselves. kept: the layer's column of `Counts`.
inline int64_t* count_of(const Tensor& weight, const Tensor& threshold, const std::optional<Tensor>& kept) {
  if (!kept || !kept->is_cpu() || !at::GradMode::is_enabled() || !is_trained(weight) || !is_trained(threshold))
    return nullptr;
  TORCH_CHECK(kept->dim() == 1 && kept->size(0) == 3, "a layer's counts are not [3]");
  auto* count = kept->mutable_data_ptr<int64_t>();
  const int64_t next = kept->stride(0);
  const bool of_these = count[next] == address(weight) && count[2 * next] == address(threshold);
  return *count == UNCOUNTED && of_these ? count : nullptr;
}

Tensor masked_weight(const Tensor& weight, const Tensor& threshold, int64_t estimator,
                     const std::optional<Tensor>& kept);

}  // namespace sparse_training
