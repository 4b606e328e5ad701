// A linear layer that computes with a masked weight, masked a block of rows at a time: each block is used while it is in
// the cache, and the masked weight is never written out as a whole.

#include "masked_weight.h"

#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>

namespace sparse_training {
namespace {

constexpr int64_t BLOCK_BYTES = 1 << 19;
constexpr int64_t BLOCK_ROWS = 64;  // or more: products of fewer take longer than the cache saves

// As many rows as are masked at once: blocks of nearly equal size.
int64_t rows_of_block(const Layer& layer) {
  const int64_t row_bytes = layer.columns * layer.weight.element_size();
  const int64_t most = std::max(BLOCK_ROWS, BLOCK_BYTES / row_bytes), blocks = (layer.rows + most - 1) / most;
  return (layer.rows + blocks - 1) / blocks;
}

// Entries [begin, end) of an axis.
Tensor part(const Tensor& tensor, int64_t axis, int64_t begin, int64_t end) {
  return end - begin == tensor.size(axis) ? tensor : tensor.narrow(axis, begin, end - begin);
}

// Calls use(begin, end, product) for blocks of rows, [end - begin, columns] each.
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

// In two dimensions, the last axis kept, as a product takes it without a copy.
Tensor matrix(const Tensor& tensor) {
  const Tensor flat = tensor.dim() == 2 ? tensor : tensor.reshape({-1, tensor.size(-1)});
  const bool turned = flat.stride(0) == 1 && flat.stride(1) >= flat.size(0);
  return turned ? flat : flat.contiguous();
}

// A matrix in the shape of another tensor, but for its last axis.
Tensor in_shape(const Tensor& matrix, const Tensor& of, int64_t last) {
  if (of.dim() == 2) return matrix;
  auto sizes = of.sizes().vec();
  sizes.back() = last;
  return matrix.view(sizes);
}

// A row of outputs for each example, b each. Here and in `columns_summed` a loop takes less time than torch's operator.
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

Tensor columns_summed(const Tensor& matrix) {
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

// x P^T + b, the product P masked a block of rows at a time.
struct MaskedLinear : torch::autograd::Function<MaskedLinear> {
  static Tensor forward(AutogradContext* context, const Tensor& inputs, const Tensor& weight, const Tensor& threshold,
                        const std::optional<Tensor>& bias, int64_t estimator) {
    at::AutoDispatchBelowADInplaceOrView below;
    const bool trained = weight.requires_grad() || threshold.requires_grad();
    context->save_for_backward({trained ? inputs : Tensor(), weight, threshold});
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
    if (of_layer) refuse_second_derivative();
    if (at::GradMode::is_enabled())
      return {of_inputs ? at::matmul(gradients[0], masked_weight(saved[1], saved[2], estimator)) : Tensor(), Tensor(),
              Tensor(), of_bias ? matrix(gradients[0]).sum(0) : Tensor(), Tensor()};
    at::AutoDispatchBelowADInplaceOrView below;
    const Layer layer(saved[1].contiguous(), saved[2]);
    const Tensor dy = matrix(gradients[0]).contiguous();
    Tensor d_inputs, d_weight, d_threshold;
    if (of_inputs) {
      d_inputs = at::empty({dy.size(0), layer.columns}, dy.options());
      for_blocks(layer, [&](int64_t begin, int64_t end, const Tensor& product) {
        const Tensor dy_part = part(dy, 1, begin, end);
        begin == 0 ? at::mm_out(d_inputs, dy_part, product) : at::addmm_out(d_inputs, d_inputs, dy_part, product);
      });
      d_inputs = in_shape(d_inputs, gradients[0], layer.columns);
    }
    if (of_layer) {
      const Tensor x = matrix(saved[0]);
      d_weight = at::empty_like(layer.weight);
      const auto product_gradient = [&](int64_t begin, int64_t end) {
        Tensor out = part(d_weight, 0, begin, end);
        at::mm_out(out, part(dy, 1, begin, end).t(), x);
      };
      d_threshold =
          masked_weight_backward(layer, d_weight, d_weight, estimator, rows_of_block(layer), product_gradient);
    }
    return {d_inputs, d_weight, d_threshold, of_bias ? columns_summed(dy) : Tensor(), Tensor()};
  }
};

// Whether the layer is one for `MaskedLinear`. What else torch takes, or refuses, it is left to.
bool in_blocks(const Tensor& inputs, const Tensor& weight, const std::optional<Tensor>& bias) {
  const auto plain = [&](const Tensor& tensor) {
    return tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.scalar_type() == weight.scalar_type() &&
           (tensor.key_set() & at::kTensorSubclassLike).empty();
  };
  return weight.dim() == 2 && weight.numel() > 0 && plain(weight) && plain(inputs) && inputs.dim() > 0 &&
         inputs.sizes().back() == weight.size(1) &&
         (!bias || (plain(*bias) && bias->dim() == 1 && bias->size(0) == weight.size(0))) &&
         !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor masked_linear(const Tensor& inputs, const Tensor& weight, const Tensor& threshold,
                     const std::optional<Tensor>& bias, int64_t estimator) {
  if (!in_blocks(inputs, weight, bias)) return at::linear(inputs, masked_weight(weight, threshold, estimator), bias);
  return MaskedLinear::apply(inputs, weight, threshold, bias, estimator);
}

}  // namespace
}  // namespace sparse_training

TORCH_LIBRARY_FRAGMENT(sparse_training, library) {
  library.def("masked_linear(Tensor input, Tensor weight, Tensor threshold, Tensor? bias, int estimator) -> Tensor",
              sparse_training::masked_linear);
}
