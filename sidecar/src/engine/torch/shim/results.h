// From what a module gives to a list of named tensors and texts.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <torch/script.h>

namespace sconce {

struct Item {
  std::string name;  // empty where the model gives none
  at::Tensor tensor;
  std::vector<std::string> strings;
  bool is_strings = false;
};

// A result of no form on the wire: nothing failed, but there is nothing to send.
struct Unsendable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Flattened {
 public:
  // `own`: whether tensors must be copied, because the module may write to them later.
  explicit Flattened(bool own) : own_(own) {}

  void add(const c10::IValue &value, const std::string &name) {
    if (value.isTensor()) {
      add_tensor(value.toTensor(), name);
    } else if (value.isTuple()) {
      add_tuple(value.toTupleRef(), name);
    } else if (value.isGenericDict()) {
      for (const auto &entry : value.toGenericDict()) {
        add(entry.value(), nested(name, text_of(entry.key())));
      }
    } else if (value.isList()) {
      add_list(value, name);
    } else if (value.isString()) {
      items.push_back({name, {}, {value.toStringRef()}, true});
    } else if (value.isInt()) {
      items.push_back({name, at::tensor({value.toInt()}, at::kLong), {}, false});
    } else if (value.isDouble()) {
      items.push_back({name, at::tensor({value.toDouble()}, at::kDouble), {}, false});
    } else if (value.isBool()) {
      // `at::tensor` makes no bools.
      items.push_back({name, at::full({1}, value.toBool(), at::kBool), {}, false});
    } else if (!value.isNone()) {
      throw Unsendable(label(name) + " is a " + value.tagKind() +
                       "; tensors, numbers, texts, and tuples, lists and dicts of them can be sent");
    }
  }

  std::vector<Item> items;

 private:
  bool own_;

  std::string label(const std::string &name) const {
    return "output `" + (name.empty() ? "OUTPUT__" + std::to_string(items.size()) : name) + "`";
  }

  static std::string nested(const std::string &name, const std::string &key) {
    return name.empty() ? key : name + "." + key;
  }

  // A place in a list or tuple is part of a name only where there is a name.
  static std::string place(const std::string &name, size_t at) {
    return name.empty() ? name : name + "." + std::to_string(at);
  }

  static std::string text_of(const c10::IValue &key) {
    if (key.isString()) {
      return key.toStringRef();
    }
    std::ostringstream text;
    text << key;
    return text.str();
  }

  void add_tensor(const at::Tensor &given, const std::string &name) {
    if (!given.defined() || given.layout() != at::kStrided || given.is_nested() || given.is_meta() ||
        given.is_quantized()) {
      throw Unsendable(label(name) + " is a sparse, nested, quantized or empty tensor object");
    }
    at::Tensor tensor = given.detach().to(at::kCPU).contiguous().resolve_neg();
    if (own_ && tensor.is_alias_of(given)) {
      tensor = tensor.clone();
    }
    // Rust will read this memory, so it must be there whatever the model did to its storage.
    size_t end = (tensor.storage_offset() + tensor.numel()) * tensor.itemsize();
    if (tensor.nbytes() > 0 && (tensor.const_data_ptr() == nullptr || tensor.storage().nbytes() < end)) {
      throw Unsendable(label(name) + " has no memory behind it");
    }
    items.push_back({name, std::move(tensor), {}, false});
  }

  void add_tuple(const c10::ivalue::Tuple &tuple, const std::string &name) {
    const auto &elements = tuple.elements();
    auto type = tuple.type<c10::TupleType>();
    const auto &fields = type->schema();
    for (size_t i = 0; i < elements.size(); i++) {
      add(elements[i], fields ? nested(name, fields->arguments()[i].name()) : place(name, i));
    }
  }

  void add_list(const c10::IValue &value, const std::string &name) {
    if (value.isIntList()) {
      items.push_back({name, at::tensor(value.toIntVector(), at::kLong), {}, false});
    } else if (value.isDoubleList()) {
      items.push_back({name, at::tensor(value.toDoubleVector(), at::kDouble), {}, false});
    } else if (value.isBoolList()) {
      at::Tensor bools = at::empty({static_cast<int64_t>(value.toListRef().size())}, at::kBool);
      bool *out = bools.mutable_data_ptr<bool>();
      for (const c10::IValue &element : value.toListRef()) {
        *out++ = element.toBool();
      }
      items.push_back({name, std::move(bools), {}, false});
    } else if (value.toList().elementType()->kind() == c10::TypeKind::StringType) {
      Item item{name, {}, {}, true};
      for (const c10::IValue &element : value.toListRef()) {
        item.strings.push_back(element.toStringRef());
      }
      items.push_back(std::move(item));
    } else {
      size_t at = 0;
      for (const c10::IValue &element : value.toListRef()) {
        add(element, place(name, at++));
      }
    }
  }
};

}  // namespace sconce
