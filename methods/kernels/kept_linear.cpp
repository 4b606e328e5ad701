// A linear layer of which only the kept weights exist: y = x W^T + b, where W is 0 elsewhere.
//
// The kept weights are a vector, in the order of the rows of W. Examples are computed in tiles. Within
// a tile the inputs, outputs and gradients are transposed, so that the numbers of one unit lie side by
// side, and each kept weight is one multiply-add for all examples of the tile. The order of every sum
// depends only on the tiles, so its bits do not depend on the number of threads.

#include "masked_weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace sparse_training {
namespace {

constexpr int64_t MOST = 64;       // examples in a tile
constexpr int64_t WORK = 1 << 18;  // multiply-adds for which starting a thread pays

// A vector of 32 bytes: eight floats or four doubles. Below are the operations on it.
template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(32), aligned(sizeof(T))));
  static constexpr int64_t size = 32 / sizeof(T);
};
template <typename T>
using V = typename Vector<T>::type;

inline V<float> multiply_add(V<float> a, V<float> b, V<float> c) {
#if defined(__FMA__)
  return (V<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

inline V<double> multiply_add(V<double> a, V<double> b, V<double> c) {
#if defined(__FMA__)
  return (V<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

template <typename T>
inline V<T> load(const T* from) {
  return *reinterpret_cast<const V<T>*>(from);
}

template <typename T>
inline void store(T* to, V<T> value) {
  *reinterpret_cast<V<T>*>(to) = value;
}

// The sums of the numbers of four vectors, each by pairs.
inline void sums_of(const V<float> (&v)[4], float* to) {
#if defined(__AVX__)
  const __m256 pairs = _mm256_hadd_ps((__m256)v[0], (__m256)v[1]), others = _mm256_hadd_ps((__m256)v[2], (__m256)v[3]);
  const __m256 halves = _mm256_hadd_ps(pairs, others);
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
#else
  for (int i = 0; i < 4; ++i)
    to[i] = ((v[i][0] + v[i][1]) + (v[i][2] + v[i][3])) + ((v[i][4] + v[i][5]) + (v[i][6] + v[i][7]));
#endif
}

inline void sums_of(const V<double> (&v)[4], double* to) {
  for (int i = 0; i < 4; ++i) to[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
}

// The kept weights along one axis of the weight: those of unit u are the entries from starts[u] on,
// before starts[u + 1].
struct Side {
  const int64_t* starts;
  const int32_t* others;  // the unit on the other axis
  const int32_t* order;   // the weight's place in the vector of kept weights; null where it is the entry's own
  int64_t units, kept;
};

// Where the kept weights of a weight [rows, columns] are.
struct Places {
  Side rows, columns;

  // row_starts [rows + 1], column_of [kept], column_starts [columns + 1], row_of [kept], order [kept]
  explicit Places(const TensorList& places) {
    TORCH_CHECK(places.size() == 5, "places are five tensors");
    const auto starts = [](const Tensor& t) { return t.const_data_ptr<int64_t>(); };
    const auto units = [](const Tensor& t) { return t.const_data_ptr<int32_t>(); };
    const int64_t kept = places[1].numel();
    rows = {starts(places[0]), units(places[1]), nullptr, places[0].numel() - 1, kept};
    columns = {starts(places[2]), units(places[3]), units(places[4]), places[2].numel() - 1, kept};
  }
};

// Calls use(unit) for each unit, in threads where that pays.
template <typename Use>
void for_units(const Side& side, int64_t width, const Use& use) {
  const int64_t work = std::max<int64_t>(1, side.kept * width / std::max<int64_t>(1, side.units));
  at::parallel_for(0, side.units, std::max<int64_t>(1, WORK / work), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) use(unit);
  });
}

// out[u] = bias[u] + sum over the kept weights of u: weight * in[other unit]. A unit has W numbers in
// a row, one per example.
template <typename T, int64_t W>
void product(const Side& side, const T* weights, const T* bias, const T* in, T* out) {
  for_units(side, W, [&](int64_t unit) {
    if constexpr (W == 1) {
      T sum = bias ? bias[unit] : T(0);
      for (int64_t k = side.starts[unit]; k < side.starts[unit + 1]; ++k)
        sum += weights[side.order ? side.order[k] : k] * in[side.others[k]];
      out[unit] = sum;
    } else {
      constexpr int64_t N = W / Vector<T>::size;
      V<T> sums[N];
      const V<T> start = V<T>{} + (bias ? bias[unit] : T(0));
#pragma GCC unroll 16
      for (int64_t i = 0; i < N; ++i) sums[i] = start;
      for (int64_t k = side.starts[unit]; k < side.starts[unit + 1]; ++k) {
        const V<T> weight = V<T>{} + weights[side.order ? side.order[k] : k];
        const T* from = in + side.others[k] * W;
#pragma GCC unroll 16
        for (int64_t i = 0; i < N; ++i) sums[i] = multiply_add(weight, load(from + i * Vector<T>::size), sums[i]);
      }
#pragma GCC unroll 16
      for (int64_t i = 0; i < N; ++i) store(out + unit * W + i * Vector<T>::size, sums[i]);
    }
  });
}

// to[k] += sum over the examples of the tile: d_out[row of k] * in[column of k].
template <typename T, int64_t W>
void gradient_of_kept(const Side& rows, const T* in, const T* d_out, T* to) {
  for_units(rows, W, [&](int64_t row) {
    const int64_t end = rows.starts[row + 1];
    int64_t k = rows.starts[row];
    if constexpr (W == 1) {
      for (; k < end; ++k) to[k] += d_out[row] * in[rows.others[k]];
    } else {
      constexpr int64_t N = W / Vector<T>::size;
      V<T> gradient[N];
#pragma GCC unroll 16
      for (int64_t i = 0; i < N; ++i) gradient[i] = load(d_out + row * W + i * Vector<T>::size);
      const auto dot = [&](int64_t of) {
        const T* from = in + rows.others[of] * W;
        V<T> sum = gradient[0] * load(from);
#pragma GCC unroll 16
        for (int64_t i = 1; i < N; ++i) sum = multiply_add(gradient[i], load(from + i * Vector<T>::size), sum);
        return sum;
      };
      T sums[4];
      for (; k + 4 <= end; k += 4) {
        const V<T> dots[4] = {dot(k), dot(k + 1), dot(k + 2), dot(k + 3)};
        sums_of(dots, sums);
        for (int64_t i = 0; i < 4; ++i) to[k + i] += sums[i];
      }
      if (k < end) {
        V<T> dots[4] = {};
        for (int64_t i = 0; k + i < end; ++i) dots[i] = dot(k + i);
        sums_of(dots, sums);
        for (int64_t i = 0; k + i < end; ++i) to[k + i] += sums[i];
      }
    }
  });
}

// Eight rows of eight numbers, transposed.
inline void turn_block(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
#if defined(__AVX__)
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xEE);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
#else
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) to[j * to_stride + i] = from[i * from_stride + j];
#endif
}

inline void turn_block(const double* from, int64_t from_stride, double* to, int64_t to_stride) {
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}

// A matrix [rows, columns] transposed to [columns, rows].
template <typename T>
void turn(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
  const int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (int64_t j = 0; j < whole_columns; j += 8)
    for (int64_t i = 0; i < whole_rows; i += 8)
      turn_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_stride + i] = from[i * from_stride + j];
}

// A tile [examples, units] transposed to [units, width], with zeros for the examples that it lacks.
template <typename T>
Tensor turned(const T* from, int64_t examples, int64_t units, int64_t width, const Tensor& like) {
  Tensor tile = at::empty({units * width}, like.options());
  T* to = tile.mutable_data_ptr<T>();
  turn(from, units, examples, units, to, width);
  for (int64_t unit = 0; examples < width && unit < units; ++unit)
    std::fill(to + unit * width + examples, to + (unit + 1) * width, T(0));
  return tile;
}

// Calls use(first example, examples, width) for each tile, with the width as a constant.
template <typename Use>
void for_tiles(int64_t examples, const Use& use) {
  for (int64_t first = 0; first < examples; first += MOST) {
    const int64_t count = std::min(MOST, examples - first);
    if (count == 1) use(first, count, std::integral_constant<int64_t, 1>());
    else if (count <= 8) use(first, count, std::integral_constant<int64_t, 8>());
    else if (count <= 16) use(first, count, std::integral_constant<int64_t, 16>());
    else if (count <= 32) use(first, count, std::integral_constant<int64_t, 32>());
    else use(first, count, std::integral_constant<int64_t, 64>());
  }
}

Tensor forward_of(const Tensor& x, const Tensor& values, const std::optional<Tensor>& bias, const Places& places) {
  Tensor y = at::empty({x.size(0), places.rows.units}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "kept_linear", [&] {
    const auto* w = values.const_data_ptr<scalar_t>();
    const auto* b = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
    for_tiles(x.size(0), [&](int64_t first, int64_t count, auto width) {
      const int64_t in = places.columns.units, out = places.rows.units;
      const scalar_t* from = x.const_data_ptr<scalar_t>() + first * in;
      scalar_t* to = y.mutable_data_ptr<scalar_t>() + first * out;
      if (width == 1) return product<scalar_t, 1>(places.rows, w, b, from, to);
      const Tensor tile = turned(from, count, in, width, x), result = at::empty({out * width}, x.options());
      product<scalar_t, width()>(places.rows, w, b, tile.const_data_ptr<scalar_t>(),
                                 result.mutable_data_ptr<scalar_t>());
      turn(result.const_data_ptr<scalar_t>(), width, out, count, to, out);
    });
  });
  return y;
}

// The gradients of inputs and kept weights; undefined tensors where they are not wanted.
std::tuple<Tensor, Tensor> backward_of(const Tensor& dy, const Tensor& x, const Tensor& values, const Places& places,
                                       bool of_inputs, bool of_values) {
  Tensor d_inputs, d_values;
  if (of_inputs) d_inputs = at::empty(x.sizes(), x.options());
  if (of_values) d_values = at::zeros(values.sizes(), values.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "kept_linear_backward", [&] {
    const auto* w = values.const_data_ptr<scalar_t>();
    for_tiles(x.size(0), [&](int64_t first, int64_t count, auto width) {
      const int64_t in = places.columns.units, out = places.rows.units;
      const scalar_t* inputs = x.const_data_ptr<scalar_t>() + first * in;
      const scalar_t* gradient = dy.const_data_ptr<scalar_t>() + first * out;
      Tensor tile, gradient_tile;
      if (width > 1)
        gradient = (gradient_tile = turned(gradient, count, out, width, x)).template const_data_ptr<scalar_t>();
      if (of_values) {
        if (width > 1) inputs = (tile = turned(inputs, count, in, width, x)).template const_data_ptr<scalar_t>();
        gradient_of_kept<scalar_t, width()>(places.rows, inputs, gradient, d_values.mutable_data_ptr<scalar_t>());
      }
      if (of_inputs) {
        scalar_t* to = d_inputs.mutable_data_ptr<scalar_t>() + first * in;
        if (width == 1) return product<scalar_t, 1>(places.columns, w, nullptr, gradient, to);
        if (!tile.defined()) tile = at::empty({in * width}, x.options());
        product<scalar_t, width()>(places.columns, w, nullptr, gradient, tile.mutable_data_ptr<scalar_t>());
        turn(tile.const_data_ptr<scalar_t>(), width, in, count, to, in);
      }
    });
  });
  return {d_inputs, d_values};
}

// The weight [rows, columns] by torch's operators, differentiable in the kept weights, and the positions
// of these in the flattened weight.
std::tuple<Tensor, Tensor> dense_of(const Tensor& values, const variable_list& places) {
  const int64_t rows = places[0].numel() - 1, columns = places[2].numel() - 1;
  const Tensor positions = at::repeat_interleave(places[0].diff()) * columns + places[1];
  const Tensor flat = at::zeros({rows * columns}, values.options()).index_copy(0, positions, values);
  return {flat.view({rows, columns}), positions};
}

struct KeptLinear : torch::autograd::Function<KeptLinear> {
  static Tensor forward(AutogradContext* context, const Tensor& inputs, const Tensor& values,
                        const std::optional<Tensor>& bias, const TensorList& places) {
    at::AutoDispatchBelowADInplaceOrView below;
    const bool trained = values.requires_grad();
    variable_list saved = {trained ? inputs : Tensor()};
    saved.insert(saved.end(), places.begin(), places.end());
    context->save_for_backward(saved);
    context->saved_data["values"] = values;
    context->saved_data["version"] = values.is_inference() ? 0 : static_cast<int64_t>(values._version());
    context->saved_data["bias"] = bias.has_value();
    const Places kept(places);
    const Tensor x = inputs.resolve_neg().reshape({-1, inputs.size(-1)}).contiguous();
    const Tensor y = forward_of(x, values, bias ? std::optional<Tensor>(bias->contiguous()) : bias, kept);
    auto sizes = inputs.sizes().vec();
    sizes.back() = kept.rows.units;
    return y.view(sizes);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const bool of_inputs = context->needs_input_grad(0), of_values = context->needs_input_grad(1);
    const bool of_bias = context->saved_data["bias"].toBool() && context->needs_input_grad(2);
    const auto saved = context->get_saved_variables();
    const variable_list places(saved.begin() + 1, saved.end());
    const Tensor values = context->saved_data["values"].toTensor();
    TORCH_CHECK(values.is_inference() || values._version() == context->saved_data["version"].toInt(),
                "a layer's kept weights or its mask changed between its forward and backward pass: call backward() "
                "before the change, or attach with execution='dense'");
    const Tensor gradient = gradients[0].resolve_neg();
    const Tensor dy = gradient.reshape({-1, gradient.size(-1)}).contiguous();
    Tensor d_inputs, d_values;
    variable_list all(3 + places.size());
    if (needs_operators(gradient)) {
      const auto [weight, positions] = dense_of(values, places);
      if (of_inputs) all[0] = at::matmul(gradient, weight);
      if (of_values)
        all[1] = at::matmul(dy.t(), saved[0].reshape({-1, saved[0].size(-1)})).reshape({-1}).index_select(0, positions);
      if (of_bias) all[2] = dy.sum(0);
      return all;
    }
    at::AutoDispatchBelowADInplaceOrView below;
    if (of_inputs || of_values) {
      const Places kept(places);
      const Tensor x = of_values ? saved[0].resolve_neg().reshape({-1, saved[0].size(-1)}).contiguous()
                                 : at::empty({dy.size(0), kept.columns.units}, dy.options());
      std::tie(d_inputs, d_values) = backward_of(dy, x, values, kept, of_inputs, of_values);
      if (of_inputs) {
        auto sizes = gradient.sizes().vec();
        sizes.back() = kept.columns.units;
        d_inputs = d_inputs.view(sizes);
      }
    }
    all[0] = d_inputs, all[1] = d_values;
    if (of_bias) all[2] = columns_summed(dy);
    return all;
  }
};

Tensor kept_linear(const Tensor& inputs, const Tensor& values, const std::optional<Tensor>& bias,
                   const TensorList& places) {
  return KeptLinear::apply(inputs, values, bias, places);
}

}  // namespace
}  // namespace sparse_training

TORCH_LIBRARY_FRAGMENT(sparse_training, library) {
  library.def("kept_linear(Tensor input, Tensor values, Tensor? bias, Tensor[] places) -> Tensor",
              sparse_training::kept_linear);
}
