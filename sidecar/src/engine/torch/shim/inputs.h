// From what Rust hands over to what a module takes.
#pragma once

#include <cstring>
#include <string>

#include <torch/script.h>

#include "../shim.h"

namespace sconce {

inline at::Tensor tensor_of(const sconce_value &value) {
  at::IntArrayRef shape(value.shape, value.rank);
  // A copy: the request's bytes are shared and immutable, while a model may write to its
  // inputs, keep them, or give them back. 29 us for a picture of 600 KB.
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(static_cast<at::ScalarType>(value.scalar_type)));
  if (out.nbytes() > 0) {
    std::memcpy(out.mutable_data_ptr(), value.data, out.nbytes());
  }
  return out;
}

inline c10::IValue value_of(const sconce_value &value) {
  auto text = [&](size_t i) { return std::string(value.strings[i], value.lengths[i]); };
  switch (value.kind) {
    case SCONCE_TENSOR:
      return tensor_of(value);
    case SCONCE_INT:
      return value.integer;
    case SCONCE_FLOAT:
      return value.real;
    case SCONCE_BOOL:
      return value.integer != 0;
    case SCONCE_STRING:
      return text(0);
    case SCONCE_STRING_LIST: {
      c10::List<std::string> list;
      list.reserve(value.count);
      for (size_t i = 0; i < value.count; i++) {
        list.push_back(text(i));
      }
      return list;
    }
    case SCONCE_TENSOR_LIST:
      return c10::List<at::Tensor>(tensor_of(value).unbind(0));
    default:
      return c10::IValue();
  }
}

}  // namespace sconce
