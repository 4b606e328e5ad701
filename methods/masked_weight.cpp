// The masked weight of trainable thresholds on a CPU: one pass forward, one backward, one to count.
//
// Equations: methods/thresholds.py, which computes the same in plain torch operations. A weight is seen
// as rows, its first axis; a row's entries are contiguous in memory, in an order that does not matter
// here. A threshold belongs to a row, to the whole weight or to one entry (`Thresholds`).
//
// Sums run in LANES strands, added up in one order: the bits depend on neither the instruction set nor
// the number of threads. Entries are multiplied by 0 rather than replaced by it, as torch does: signs of
// zeros, infinities and NaNs are equal to those of the plain operations.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/neg.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

namespace {

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

// Whether every row is one block of memory.
bool in_rows(const Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() &&
         (tensor.numel() == 0 || tensor.dim() == 0 || tensor.stride(0) * tensor.size(0) == tensor.numel() ||
          tensor.size(0) == 1);
}

Tensor rows_of(const Tensor& tensor) { return in_rows(tensor) ? tensor : tensor.contiguous(); }

// The tensor with its entries in the order of another one's.
Tensor like(const Tensor& tensor, const Tensor& layout) {
  if (tensor.strides() == layout.strides()) return tensor;
  return at::empty_strided(layout.sizes(), layout.strides(), tensor.options()).copy_(tensor);
}

Tensor masked(const Tensor& given, const Tensor& given_threshold) {
  const Tensor weight = rows_of(given);
  const Shape shape(weight, given_threshold);
  const Tensor threshold = shape.per_entry ? like(given_threshold, weight) : given_threshold.contiguous();
  Tensor product = at::empty_like(weight);
  AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "masked_weight", [&] {
    const auto* w = weight.const_data_ptr<scalar_t>();
    const auto* t = threshold.const_data_ptr<scalar_t>();
    auto* p = product.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, shape.rows, shape.grain(), [&](int64_t begin, int64_t end) {
      if (shape.per_entry) {
        for (int64_t i = begin * shape.columns; i < end * shape.columns; ++i) p[i] = w[i] * step(w[i], t[i]);
        return;
      }
      for (int64_t row = begin; row < end; ++row) {
        const scalar_t limit = t[shape.per_row ? row : 0];
        const int64_t start = row * shape.columns;
        for (int64_t i = start; i < start + shape.columns; ++i) p[i] = w[i] * step(w[i], limit);
      }
    });
  });
  return product;
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

template <typename T, typename Estimator>
T row_backward(const T* gradient, const T* weight, T threshold, T* d_weight, int64_t count, Estimator estimator) {
  T sums[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int64_t lane = 0; lane < LANES; ++lane)
      sums[lane] += entry(gradient[i + lane], weight[i + lane], threshold, d_weight[i + lane], estimator);
  for (int64_t lane = 0; i < count; ++i, ++lane)
    sums[lane] += entry(gradient[i], weight[i], threshold, d_weight[i], estimator);
  T total = 0;
  for (T sum : sums) total += sum;
  return total;
}

template <typename T, typename Estimator>
void backward_rows(const Shape& shape, const T* g, const T* w, const T* t, T* dw, T* dt, Estimator estimator) {
  std::vector<T> totals(shape.per_entry ? 0 : shape.rows);
  at::parallel_for(0, shape.rows, shape.grain(), [&](int64_t begin, int64_t end) {
    if (shape.per_entry) {
      for (int64_t i = begin * shape.columns; i < end * shape.columns; ++i)
        dt[i] = -entry(g[i], w[i], t[i], dw[i], estimator);
      return;
    }
    for (int64_t row = begin; row < end; ++row) {
      const int64_t start = row * shape.columns;
      totals[row] =
          row_backward(g + start, w + start, t[shape.per_row ? row : 0], dw + start, shape.columns, estimator);
    }
  });
  if (shape.per_row) {
    for (int64_t row = 0; row < shape.rows; ++row) dt[row] = -totals[row];
  } else if (!shape.per_entry) {
    T total = 0;
    for (T row : totals) total += row;
    dt[0] = -total;
  }
}

// overwrite: the gradient's memory becomes the weight's gradient.
std::tuple<Tensor, Tensor> masked_backward(const Tensor& given_gradient, const Tensor& given,
                                           const Tensor& given_threshold, int64_t estimator, bool overwrite) {
  const Tensor weight = rows_of(given), gradient = like(given_gradient, weight);
  const Shape shape(weight, given_threshold);
  const Tensor threshold = shape.per_entry ? like(given_threshold, weight) : given_threshold.contiguous();
  Tensor d_weight = overwrite ? gradient : at::empty_like(weight), d_threshold = at::empty_like(threshold);
  AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "masked_weight_backward", [&] {
    const auto run = [&](auto chosen) {
      backward_rows(shape, gradient.const_data_ptr<scalar_t>(), weight.const_data_ptr<scalar_t>(),
                    threshold.const_data_ptr<scalar_t>(), d_weight.mutable_data_ptr<scalar_t>(),
                    d_threshold.mutable_data_ptr<scalar_t>(), chosen);
    };
    estimator == 0 ? run(LongTailed<scalar_t>()) : run(StraightThrough<scalar_t>());
  });
  return {d_weight, d_threshold};
}

int64_t kept(const Tensor& given, const Tensor& given_threshold) {
  const Tensor weight = rows_of(given);
  const Shape shape(weight, given_threshold);
  const Tensor threshold = shape.per_entry ? like(given_threshold, weight) : given_threshold.contiguous();
  std::vector<int64_t> counts(shape.rows);
  AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "kept", [&] {
    const auto* w = weight.const_data_ptr<scalar_t>();
    const auto* t = threshold.const_data_ptr<scalar_t>();
    at::parallel_for(0, shape.rows, shape.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int32_t count = 0;
        const auto* v = w + row * shape.columns;
        if (shape.per_entry) {
          const auto* limit = t + row * shape.columns;
          for (int64_t i = 0; i < shape.columns; ++i) count += std::abs(v[i]) > limit[i];
        } else {
          const scalar_t limit = t[shape.per_row ? row : 0];
          for (int64_t i = 0; i < shape.columns; ++i) count += std::abs(v[i]) > limit;
        }
        counts[row] = count;
      }
    });
  });
  int64_t total = 0;
  for (int64_t count : counts) total += count;
  return total;
}

// What every layer keeps, [layers]; zeroes the thresholds of those that may be reset and keep less than a share.
Tensor update_thresholds(TensorList weights, TensorList thresholds, const c10::List<bool>& resettable, double reset_below,
                         Tensor resets) {
  TORCH_CHECK(resets.is_cpu(), "the number of resets is not on the CPU");
  Tensor counts = at::empty({static_cast<int64_t>(weights.size())}, resets.options());
  auto* found = counts.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t size = weights[i].numel();
    found[i] = kept(weights[i], thresholds[i]);
    // in float, as torch compares a count with a number
    if (!resettable[i] || !(static_cast<float>(found[i]) < static_cast<float>(reset_below * size))) continue;
    Tensor threshold = thresholds[i];
    threshold.zero_();
    found[i] = size;
    *resets.mutable_data_ptr<int64_t>() += 1;
  }
  return counts;
}

// Multiplies the weights by their masks, in place.
void apply_masks(TensorList weights, TensorList masks) {
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& weight = weights[i];
    TORCH_CHECK(weight.is_non_overlapping_and_dense(), "a masked weight has gaps in memory");
    TORCH_CHECK(weight.is_cpu() && masks[i].is_cpu() && masks[i].scalar_type() == at::kBool &&
                    masks[i].sizes() == weight.sizes(),
                "a mask is not that of its weight: a boolean one of its shape, on the CPU");
    const Tensor mask = like(masks[i], weight);
    AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "apply_masks", [&] {
      auto* w = weight.mutable_data_ptr<scalar_t>();
      const auto* m = static_cast<const uint8_t*>(mask.const_data_ptr());  // a bool's byte is 0 or 1
      at::parallel_for(0, mask.numel(), GRAIN, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) w[i] *= static_cast<scalar_t>(m[i]);
      });
    });
  }
}

// Whether nobody else can read the tensor's memory: but for a view's base, which then goes with the view.
bool is_last(const Tensor& tensor) {
  if (tensor.use_count() != 1) return false;
  const size_t owners = tensor.is_view() && tensor._base().use_count() == 1 ? 2 : 1;
  return tensor.storage().use_count() == owners;
}

// A gradient computed here has no graph of its own.
void refuse_second_derivative() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "the fused masked weight has no second derivative: set SPARSE_TRAINING_KERNELS=eager");
}

struct MaskedWeight : torch::autograd::Function<MaskedWeight> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& threshold, int64_t estimator) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({weight, threshold});
    context->saved_data["estimator"] = estimator;
    return masked(weight, threshold);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    auto [d_weight, d_threshold] = masked_backward(gradients[0], saved[0], saved[1],
                                                   context->saved_data["estimator"].toInt(), is_last(gradients[0]));
    return {d_weight, d_threshold, Tensor()};
  }
};

// The sum of exp(-t).
struct Regularization : torch::autograd::Function<Regularization> {
  static Tensor forward(AutogradContext* context, const Tensor& thresholds) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor heights = at::neg(thresholds).exp_();
    context->save_for_backward({heights});
    return heights.sum();
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative();
    return {context->get_saved_variables()[0].mul(gradients[0].neg())};
  }
};

Tensor masked_weight(const Tensor& weight, const Tensor& threshold, int64_t estimator) {
  return MaskedWeight::apply(weight, threshold, estimator);
}

Tensor regularization(const Tensor& thresholds) { return Regularization::apply(thresholds); }

}  // namespace

TORCH_LIBRARY(sparse_training, library) {
  library.def("masked_weight(Tensor weight, Tensor threshold, int estimator) -> Tensor", masked_weight);
  library.def("regularization(Tensor thresholds) -> Tensor", regularization);
  library.def(
      "update_thresholds(Tensor[] weights, Tensor(a!)[] thresholds, bool[] resettable, float reset_below, "
      "Tensor(b!) resets) -> Tensor",
      update_thresholds);
  library.def("apply_masks(Tensor(a!)[] weights, Tensor[] masks) -> ()", apply_masks);
}
