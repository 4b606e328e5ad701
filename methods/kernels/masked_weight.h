// The passes over a masked weight on a CPU, from which the operators are made.
//
// The equations are those of methods/thresholds.py. A weight is seen as rows along its first axis.
// The entries of a row are contiguous in memory, in any order. A threshold belongs to one row, to
// one entry, or to the whole weight.
//
// Each sum runs in LANES partial sums that are added in a fixed order, so the bits of a result
// depend neither on the instruction set nor on the number of threads. Pruned entries are multiplied
// by 0, as torch does, and not replaced by 0: signs of zeros, infinities and NaNs equal those of
// the plain operations.

#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace sparse_training {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t LANES = 16;
constexpr int64_t GRAIN = 16384;  // entries for which starting a thread pays

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

// Whether the tensor's memory holds its numbers unchanged: no lazy negation, no tensor subclass.
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

// The tensor with its entries in the memory order of another tensor.
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

// Writes rows [begin, end) of the product to p.
template <typename T>
void mask_rows(const Shape& shape, const T* w, const T* t, T* p, int64_t begin, int64_t end) {
  at::parallel_for(begin, end, shape.grain(), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const T* v = w + row * shape.columns;
      T* to = p + (row - begin) * shape.columns;
      if (shape.per_entry) {
        const T* limit = t + row * shape.columns;
        for (int64_t i = 0; i < shape.columns; ++i) to[i] = v[i] * step(v[i], limit[i]);
      } else {
        const T limit = t[shape.per_row ? row : 0];
        for (int64_t i = 0; i < shape.columns; ++i) to[i] = v[i] * step(v[i], limit);
      }
    }
  });
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

// The gradient of one entry; returns minus its part of the threshold's gradient.
template <typename T, typename Estimator>
inline T entry(T gradient, T weight, T threshold, T& d_weight, Estimator estimator) {
  const T distance = std::abs(weight) - threshold;
  const T structure = gradient * weight * estimator(distance);
  d_weight = gradient * (distance > T(0) ? T(1) : T(0)) + (weight < T(0) ? -structure : structure);
  return structure;
}

// d_weight is either the gradient's own memory or does not overlap with it.
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

// The gradients of rows [begin, end). dt has one number per entry where each entry has a threshold,
// and one per row otherwise.
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

// Writes the weight's gradient and returns the thresholds' gradient, both from the product's
// gradient. `fill(begin, end)` computes these rows of the product's gradient; they may lie in the
// memory of the weight's gradient.
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
    // from the last rows, which the forward pass has left in the cache
    for (int64_t end = layer.rows, begin; end > 0; end = begin) {
      begin = (end - 1) / block * block;
      fill(begin, end);
      estimator == 0 ? rows(begin, end, LongTailed<scalar_t>()) : rows(begin, end, StraightThrough<scalar_t>());
    }
    if (one) *dt = std::accumulate(by_row.begin(), by_row.end(), scalar_t(0));
  });
  return d_threshold;
}

// The sums of a contiguous matrix's columns. A loop is faster than torch's operator.
inline Tensor columns_summed(const Tensor& matrix) {
  const int64_t columns = matrix.size(1);
  Tensor sums = at::empty({columns}, matrix.options());
  AT_DISPATCH_FLOATING_TYPES(matrix.scalar_type(), "columns_summed", [&] {
    std::vector<double> total(columns);
    const auto* m = matrix.const_data_ptr<scalar_t>();
    for (int64_t row = 0; row < matrix.size(0); ++row, m += columns)
      for (int64_t i = 0; i < columns; ++i) total[i] += m[i];
    std::copy(total.begin(), total.end(), sums.mutable_data_ptr<scalar_t>());
  });
  return sums;
}

// Whether torch's operators compute a gradient: where it is differentiated again, and where it is no
// plain tensor, such as a batch of gradients under vmap.
inline bool needs_operators(const Tensor& gradient) {
  return at::GradMode::is_enabled() || !is_plain(gradient.resolve_neg());
}

// The gradients of weight and threshold by torch's operators, from the product's gradient.
std::tuple<Tensor, Tensor> gradients_by_operators(const Tensor& gradient, const Tensor& weight, const Tensor& threshold,
                                                  int64_t estimator);

Tensor masked_weight(const Tensor& weight, const Tensor& threshold, int64_t estimator);

}  // namespace sparse_training
