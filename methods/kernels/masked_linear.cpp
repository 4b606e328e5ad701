// A linear layer that computes with a masked weight, one block of rows at a time. Each block is
// used while it is in the cache, and the whole masked weight is never written out.

#include "masked_weight.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>

#include <optional>

namespace sparse_training {
namespace {

constexpr int64_t BLOCK_BYTES = 1 << 19;
constexpr int64_t BLOCK_ROWS = 64;  // fit in one block however long they are: products of few rows are slow

// The greatest number of rows in a block.
int64_t most_rows(const Tensor& weight) {
  return std::max(BLOCK_ROWS, BLOCK_BYTES / (weight.size(1) * static_cast<int64_t>(weight.element_size())));
}

// The number of rows in a block, such that blocks have nearly equal sizes.
int64_t rows_of_block(const Layer& layer) {
  const int64_t most = most_rows(layer.weight), blocks = (layer.rows + most - 1) / most;
  return (layer.rows + blocks - 1) / blocks;
}

// Entries [begin, end) of an axis.
Tensor part(const Tensor& tensor, int64_t axis, int64_t begin, int64_t end) {
  return end - begin == tensor.size(axis) ? tensor : tensor.narrow(axis, begin, end - begin);
}

// Calls use(begin, end, product) for each block of rows; the product is [end - begin, columns].
template <typename Use>
void for_blocks(const Layer& layer, const Use& use) {
  const int64_t block = rows_of_block(layer);
  const Tensor memory = at::empty({block, layer.columns}, layer.weight.options());
  AT_DISPATCH_FLOATING_TYPES(layer.weight.scalar_type(), "masked_linear", [&] {
    for (int64_t begin = 0; begin < layer.rows; begin += block) {
      const int64_t end = std::min(layer.rows, begin + block);
      mask_rows(layer, layer.weight.const_data_ptr<scalar_t>(), layer.threshold.const_data_ptr<scalar_t>(),
                memory.mutable_data_ptr<scalar_t>(), begin, end);
      use(begin, end, part(memory, 0, 0, end - begin));
    }
  });
}

// The tensor in two dimensions, with its last axis, in a layout that a product takes without a
// copy.
Tensor matrix(const Tensor& tensor) {
  const Tensor flat = tensor.dim() == 2 ? tensor : tensor.reshape({-1, tensor.size(-1)});
  const bool turned = flat.stride(0) == 1 && flat.stride(1) >= flat.size(0);
  return turned ? flat : flat.contiguous();
}

// The matrix in the shape of another tensor, except for the last axis.
Tensor in_shape(const Tensor& matrix, const Tensor& of, int64_t last) {
  if (of.dim() == 2) return matrix;
  auto sizes = of.sizes().vec();
  sizes.back() = last;
  return matrix.view(sizes);
}

// The bias as one row per example. A loop is faster than torch's operator.
Tensor rows_of_bias(const Tensor& given, int64_t examples) {
  const Tensor bias = given.contiguous();
  Tensor rows = at::empty({examples, bias.numel()}, bias.options());
  AT_DISPATCH_FLOATING_TYPES(bias.scalar_type(), "rows_of_bias", [&] {
    const auto* b = bias.const_data_ptr<scalar_t>();
    auto* to = rows.mutable_data_ptr<scalar_t>();
    for (int64_t i = 0; i < examples; ++i) to = std::copy(b, b + bias.numel(), to);
  });
  return rows;
}

// x P^T + b, with the product P computed one block of rows at a time.
struct LinearInBlocks : torch::autograd::Function<LinearInBlocks> {
  static Tensor forward(AutogradContext* context, const Tensor& inputs, const Tensor& weight, const Tensor& threshold,
                        const std::optional<Tensor>& bias, int64_t estimator) {
    at::AutoDispatchBelowADInplaceOrView below;
    const bool trained = weight.requires_grad() || threshold.requires_grad();
    const bool masked_again = trained || inputs.requires_grad();
    context->save_for_backward({trained ? inputs : Tensor(), masked_again ? weight : Tensor(),
                                masked_again ? threshold : Tensor()});
    context->saved_data["estimator"] = estimator;
    context->saved_data["bias"] = bias.has_value();
    const Layer layer(weight.contiguous(), threshold);
    const Tensor x = matrix(inputs);
    Tensor y = bias ? rows_of_bias(*bias, x.size(0)) : at::empty({x.size(0), layer.rows}, x.options());
    for_blocks(layer, [&](int64_t begin, int64_t end, const Tensor& product) {
      Tensor out = part(y, 1, begin, end);
      bias ? at::addmm_out(out, out, x, product.t()) : at::mm_out(out, x, product.t());
    });
    return in_shape(y, inputs, layer.rows);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const bool of_inputs = context->needs_input_grad(0);
    const bool of_layer = context->needs_input_grad(1) || context->needs_input_grad(2);
    const bool of_bias = context->saved_data["bias"].toBool() && context->needs_input_grad(3);
    const int64_t estimator = context->saved_data["estimator"].toInt();
    const auto saved = context->get_saved_variables();
    const Tensor gradient = gradients[0].resolve_neg();
    Tensor d_inputs, d_weight, d_threshold;
    if (needs_operators(gradient)) {
      const Tensor dy = gradient.reshape({-1, gradient.size(-1)});
      if (of_inputs) d_inputs = at::matmul(gradient, masked_weight(saved[1], saved[2], estimator));
      if (of_layer)
        std::tie(d_weight, d_threshold) = gradients_by_operators(
            at::matmul(dy.t(), saved[0].reshape({-1, saved[0].size(-1)})), saved[1], saved[2], estimator);
      return {d_inputs, d_weight, d_threshold, of_bias ? dy.sum(0) : Tensor(), Tensor()};
    }
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor dy = matrix(gradient).contiguous();
    if (of_inputs || of_layer) {
      const Layer layer(saved[1].contiguous(), saved[2]);
      if (of_inputs) d_inputs = in_shape(gradient_of_inputs(layer, dy), gradient, layer.columns);
      if (of_layer) std::tie(d_weight, d_threshold) = gradients_of(layer, dy, matrix(saved[0]), estimator);
    }
    return {d_inputs, d_weight, d_threshold, of_bias ? columns_summed(dy) : Tensor(), Tensor()};
  }

  static Tensor gradient_of_inputs(const Layer& layer, const Tensor& dy) {
    Tensor d_inputs = at::empty({dy.size(0), layer.columns}, dy.options());
    for_blocks(layer, [&](int64_t begin, int64_t end, const Tensor& product) {
      const Tensor dy_part = part(dy, 1, begin, end);
      begin == 0 ? at::mm_out(d_inputs, dy_part, product) : at::addmm_out(d_inputs, d_inputs, dy_part, product);
    });
    return d_inputs;
  }

  static std::tuple<Tensor, Tensor> gradients_of(const Layer& layer, const Tensor& dy, const Tensor& x,
                                                 int64_t estimator) {
    Tensor d_weight = at::empty_like(layer.weight);
    const auto product_gradient = [&](int64_t begin, int64_t end) {
      Tensor out = part(d_weight, 0, begin, end);
      at::mm_out(out, part(dy, 1, begin, end).t(), x);
    };
    const Tensor d_threshold =
        masked_weight_backward(layer, d_weight, d_weight, estimator, rows_of_block(layer), product_gradient);
    return {d_weight, d_threshold};
  }
};

// Whether `LinearInBlocks` serves this layer; torch computes or refuses the others. Where a block
// has fewer rows than there are examples, reading inputs and outputs once per block costs more than
// it saves.
bool in_blocks(const Tensor& inputs, const Tensor& weight, const std::optional<Tensor>& bias) {
  const auto fits = [&](const Tensor& tensor) {
    return is_plain(tensor) && tensor.scalar_type() == weight.scalar_type() && !tensor._fw_grad(0).defined();
  };
  if (weight.dim() != 2 || weight.numel() == 0 || !fits(weight) || !fits(inputs) || inputs.dim() == 0 ||
      inputs.sizes().back() != weight.size(1) || at::autocast::is_autocast_enabled(at::kCPU))
    return false;
  const int64_t most = most_rows(weight), examples = inputs.numel() / weight.size(1);
  return (weight.size(0) <= most || examples <= most) &&
         (!bias || (fits(*bias) && bias->dim() == 1 && bias->size(0) == weight.size(0)));
}

Tensor masked_linear(const Tensor& inputs, const Tensor& weight, const Tensor& threshold,
                     const std::optional<Tensor>& bias, int64_t estimator) {
  if (!in_blocks(inputs, weight, bias)) return at::linear(inputs, masked_weight(weight, threshold, estimator), bias);
  return LinearInBlocks::apply(inputs, weight, threshold, bias, estimator);
}

}  // namespace
}  // namespace sparse_training

TORCH_LIBRARY_FRAGMENT(sparse_training, library) {
  library.def(
      "masked_linear(Tensor input, Tensor weight, Tensor threshold, Tensor? bias, int estimator) -> Tensor",
      sparse_training::masked_linear);
}
