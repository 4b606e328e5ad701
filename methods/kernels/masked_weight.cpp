// The operators on masked weights: the product, the reset of thresholds, which also counts the kept
// weights, the regularization of thresholds, and masks in place.

#include "masked_weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/neg.h>

#include <cmath>
#include <optional>

namespace sparse_training {
namespace {

Tensor masked(const Tensor& given, const Tensor& given_threshold) {
  const Layer layer(given, given_threshold);
  Tensor product = at::empty_like(layer.weight);
  AT_DISPATCH_FLOATING_TYPES(layer.weight.scalar_type(), "masked_weight", [&] {
    mask_rows(layer, layer.weight.const_data_ptr<scalar_t>(), layer.threshold.const_data_ptr<scalar_t>(),
              product.mutable_data_ptr<scalar_t>(), 0, layer.rows);
  });
  return product;
}

// overwrite: the weight's gradient is written to the memory of the product's gradient.
std::tuple<Tensor, Tensor> masked_backward(const Tensor& given_gradient, const Tensor& given,
                                           const Tensor& given_threshold, int64_t estimator, bool overwrite) {
  const Layer layer(given, given_threshold);
  const Tensor gradient = like(given_gradient.resolve_neg(), layer.weight);
  Tensor d_weight = overwrite ? gradient : at::empty_like(layer.weight);
  const auto ready = [](int64_t, int64_t) {};
  const Tensor d_threshold = masked_weight_backward(layer, gradient, d_weight, estimator, layer.rows, ready);
  return {d_weight, d_threshold};
}

template <typename T>
int64_t kept_of_row(const Layer& layer, int64_t row) {
  const T* v = layer.weight.const_data_ptr<T>() + row * layer.columns;
  const T* t = layer.threshold.const_data_ptr<T>();
  int32_t count = 0;
  if (layer.per_entry) {
    const T* limit = t + row * layer.columns;
    for (int64_t i = 0; i < layer.columns; ++i) count += std::abs(v[i]) > limit[i];
  } else {
    const T limit = t[layer.per_row ? row : 0];
    for (int64_t i = 0; i < layer.columns; ++i) count += std::abs(v[i]) > limit;
  }
  return count;
}

// Reads from the last rows, which the optimizer has left in the cache.
int64_t kept_of(const Layer& layer) {
  std::vector<int64_t> kept(layer.rows);
  AT_DISPATCH_FLOATING_TYPES(layer.weight.scalar_type(), "kept_of", [&] {
    at::parallel_for(0, layer.rows, layer.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = end; row > begin; --row) kept[row - 1] = kept_of_row<scalar_t>(layer, row - 1);
    });
  });
  return std::accumulate(kept.begin(), kept.end(), int64_t(0));
}

// Returns the kept weights of each layer, int64 [layers]. Where limits are given, float [layers], a
// layer that keeps fewer has its thresholds set to reset_to, counts as keeping all its weights, and
// adds 1 to resets. Counts are compared as floats, as torch compares an integer tensor with a float
// tensor.
Tensor update_thresholds(TensorList weights, TensorList thresholds, const std::optional<Tensor>& limits, double reset_to,
                         Tensor resets) {
  at::NoGradGuard no_grad;
  const int64_t layers = weights.size();
  TORCH_CHECK(static_cast<int64_t>(thresholds.size()) == layers && resets.is_cpu(),
              "weights, thresholds or resets are not those of one model on the CPU");
  TORCH_CHECK(!limits || (limits->is_cpu() && limits->is_contiguous() && limits->numel() == layers),
              "there is not one limit on the CPU for each layer");
  const float* limit = limits ? limits->const_data_ptr<float>() : nullptr;
  Tensor kept = at::empty({layers}, at::kLong);
  auto* count = kept.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < layers; ++i) {
    count[i] = kept_of(Layer(weights[i], thresholds[i]));
    if (!limit || static_cast<float>(count[i]) >= limit[i]) continue;
    count[i] = weights[i].numel();
    Tensor threshold = thresholds[i];
    threshold.fill_(reset_to);
    *resets.mutable_data_ptr<int64_t>() += 1;
  }
  return kept;
}

// Multiplies the weights by their masks, in place.
// The sign of an entry stays.
void zero_where(TensorList tensors, TensorList entries) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    TORCH_CHECK(tensor.is_cpu() && entries[i].is_cpu() && entries[i].scalar_type() == at::kBool &&
                    entries[i].sizes() == tensor.sizes(),
                "the entries to zero are not those of the tensor: a boolean one of its shape, on the CPU");
    if (!tensor.is_non_overlapping_and_dense()) {
      tensor.masked_fill_(entries[i], 0);
      continue;
    }
    const Tensor where = like(entries[i], tensor);
    AT_DISPATCH_FLOATING_TYPES(tensor.scalar_type(), "zero_where", [&] {
      auto* x = tensor.mutable_data_ptr<scalar_t>();
      const auto* w = static_cast<const uint8_t*>(where.const_data_ptr());  // 0 or 1
      at::parallel_for(0, where.numel(), GRAIN, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) x[i] = w[i] ? std::copysign(scalar_t(0), x[i]) : x[i];
      });
    });
  }
}

// Whether this is the last reference to the tensor's memory. The base of a view may share it, where
// the view is the base's last reference.
bool is_last(const Tensor& tensor) {
  if (tensor.use_count() != 1) return false;
  const size_t owners = tensor.is_view() && tensor._base().use_count() == 1 ? 2 : 1;
  return tensor.storage().use_count() == owners;
}

struct MaskedWeight : torch::autograd::Function<MaskedWeight> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& threshold, int64_t estimator) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({weight, threshold});
    context->saved_data["estimator"] = estimator;
    return masked(weight, threshold);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    if (needs_operators(gradients[0])) {
      auto [d_weight, d_threshold] =
          gradients_by_operators(gradients[0], saved[0], saved[1], context->saved_data["estimator"].toInt());
      return {d_weight, d_threshold, Tensor()};
    }
    auto [d_weight, d_threshold] = masked_backward(gradients[0], saved[0], saved[1],
                                                   context->saved_data["estimator"].toInt(), is_last(gradients[0]));
    return {d_weight, d_threshold, Tensor()};
  }
};

constexpr int64_t FEW = 1024;  // up to so many numbers a plain loop is faster than torch's operators

// scale times the sum of exp(-t).
struct Regularization : torch::autograd::Function<Regularization> {
  static Tensor forward(AutogradContext* context, TensorList thresholds, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->saved_data["scale"] = scale;
    variable_list heights;
    Tensor total = at::empty({}, thresholds[0].options());
    AT_DISPATCH_FLOATING_TYPES(total.scalar_type(), "regularization", [&] {
      double sum = 0;
      for (const Tensor& given : thresholds) {
        const Tensor threshold = given.contiguous();
        if (threshold.numel() > FEW) {
          heights.push_back(at::neg(threshold).exp_());
          sum += heights.back().sum().item<double>();
          continue;
        }
        heights.push_back(at::empty_like(threshold));
        const auto* t = threshold.const_data_ptr<scalar_t>();
        auto* h = heights.back().mutable_data_ptr<scalar_t>();
        for (int64_t i = 0; i < threshold.numel(); ++i) sum += h[i] = std::exp(-t[i]);
      }
      *total.mutable_data_ptr<scalar_t>() = static_cast<scalar_t>(sum) * static_cast<scalar_t>(scale);
    });
    context->saved_data["layers"] = static_cast<int64_t>(thresholds.size());
    heights.insert(heights.end(), thresholds.begin(), thresholds.end());
    context->save_for_backward(heights);
    return total;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Tensor gradient = gradients[0].resolve_neg();
    const auto saved = context->get_saved_variables();
    const auto layers = context->saved_data["layers"].toInt();
    variable_list found;
    if (needs_operators(gradient)) {
      const Tensor factor = gradient * -context->saved_data["scale"].toDouble();
      for (int64_t i = 0; i < layers; ++i) found.push_back(factor * saved[layers + i].neg().exp());
      found.emplace_back();
      return found;
    }
    AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "regularization_backward", [&] {
      const auto scale = static_cast<scalar_t>(context->saved_data["scale"].toDouble());
      const scalar_t slope = -(*gradient.const_data_ptr<scalar_t>() * scale);
      for (int64_t layer = 0; layer < layers; ++layer) {
        const Tensor& heights = saved[layer];
        if (heights.numel() > FEW) {
          found.push_back(heights.mul(slope));
          continue;
        }
        found.push_back(at::empty_like(heights));
        const auto* h = heights.const_data_ptr<scalar_t>();
        auto* d = found.back().mutable_data_ptr<scalar_t>();
        for (int64_t i = 0; i < heights.numel(); ++i) d[i] = h[i] * slope;
      }
    });
    found.emplace_back();
    return found;
  }
};

Tensor regularization(TensorList thresholds, double scale) {
  TORCH_CHECK(!thresholds.empty(), "there are no thresholds");
  bool alike = true;
  for (const Tensor& threshold : thresholds) {
    TORCH_CHECK(threshold.is_cpu(), "thresholds are not on the CPU");
    alike = alike && threshold.scalar_type() == thresholds[0].scalar_type();
  }
  if (alike) return Regularization::apply(thresholds, scale);
  variable_list flat;
  for (const Tensor& threshold : thresholds) flat.push_back(threshold.reshape({-1}));
  return at::cat(flat).neg().exp().sum().mul(scale);
}

}  // namespace

// `gradients` of methods/thresholds.py, with the integral of the estimator.
std::tuple<Tensor, Tensor> gradients_by_operators(const Tensor& gradient, const Tensor& weight, const Tensor& threshold,
                                                  int64_t estimator) {
  std::vector<int64_t> column(weight.dim(), 1);
  if (!column.empty()) column[0] = -1;
  const Tensor limit = threshold.dim() == 1 ? threshold.view(column) : threshold;
  const Tensor x = weight.abs() - limit, distance = x.abs();
  Tensor height = distance.le(1).to(x.scalar_type()), smooth = x.clamp(-1, 1);
  if (estimator == 0) {
    const Tensor middle = x.clamp(-0.4, 0.4);
    height = (2 - 4 * distance).clamp_min(0.4) * height;
    smooth = 0.4 * smooth + middle * (1.6 - 2 * middle.abs());
  }
  const Tensor structure = gradient * weight * height;
  const Tensor kept = x.gt(0) + (smooth - smooth.detach());
  return {gradient * kept + structure * weight.sign(), -structure.sum_to_size(limit.sizes()).view(threshold.sizes())};
}

Tensor masked_weight(const Tensor& weight, const Tensor& threshold, int64_t estimator) {
  return MaskedWeight::apply(weight, threshold, estimator);
}

}  // namespace sparse_training

TORCH_LIBRARY(sparse_training, library) {
  library.def("masked_weight(Tensor weight, Tensor threshold, int estimator) -> Tensor", sparse_training::masked_weight);
  library.def("regularization(Tensor[] thresholds, float scale) -> Tensor", sparse_training::regularization);
  library.def(
      "update_thresholds(Tensor[] weights, Tensor(a!)[] thresholds, Tensor? limits, float reset_to, "
      "Tensor(b!) resets) -> Tensor",
      sparse_training::update_thresholds);
  library.def("zero_where(Tensor(a!)[] tensors, Tensor[] entries) -> ()", sparse_training::zero_where);
}
