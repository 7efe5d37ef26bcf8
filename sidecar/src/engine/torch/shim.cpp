#include "shim.h"

#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>

struct sconce_module {
  torch::jit::Module module;
  c10::FunctionSchema schema;
  bool stateful;
};

struct Item {
  std::string name;
  at::Tensor tensor;
  std::vector<std::string> strings;
  bool is_strings = false;
};

struct sconce_result {
  std::vector<Item> items;
};

namespace {

char *message(const std::string &text) { return strdup(text.c_str()); }

// No exception may cross into Rust. Messages keep the model's own error and lose
// libtorch's C++ backtrace.
template <typename F>
char *guarded(F &&work) {
  try {
    work();
    return nullptr;
  } catch (const c10::Error &error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return message(error.what());
  } catch (...) {
    return message("libtorch threw something that is no std::exception");
  }
}

bool mutates_attributes(const torch::jit::Block *block) {
  for (const torch::jit::Node *node : block->nodes()) {
    if (node->kind() == c10::prim::SetAttr) {
      return true;
    }
    for (const torch::jit::Block *inner : node->blocks()) {
      if (mutates_attributes(inner)) {
        return true;
      }
    }
  }
  return false;
}

// Whether an operator writes to something that is reached through the module's attributes.
bool writes_to_attributes(const torch::jit::Block *block, std::vector<const torch::jit::Value *> &owned) {
  auto is_owned = [&](const torch::jit::Value *value) {
    return std::find(owned.begin(), owned.end(), value) != owned.end();
  };
  for (const torch::jit::Node *node : block->nodes()) {
    if (node->kind() == c10::prim::GetAttr) {
      for (const torch::jit::Value *output : node->outputs()) {
        owned.push_back(output);
      }
    } else if (const c10::FunctionSchema *schema = node->maybeSchema()) {
      bool aliases = false;
      for (size_t i = 0; i < node->inputs().size() && i < schema->arguments().size(); i++) {
        const c10::AliasInfo *alias = schema->arguments()[i].alias_info();
        if (alias && is_owned(node->input(i))) {
          if (alias->isWrite()) {
            return true;
          }
          aliases = true;
        }
      }
      if (aliases) {
        for (const torch::jit::Value *output : node->outputs()) {
          owned.push_back(output);
        }
      }
    }
    for (const torch::jit::Block *inner : node->blocks()) {
      if (writes_to_attributes(inner, owned)) {
        return true;
      }
    }
  }
  return false;
}

bool is_stateful(const torch::jit::Module &module) {
  std::shared_ptr<torch::jit::Graph> graph = module.get_method("forward").graph()->copy();
  torch::jit::Inline(*graph);
  std::vector<const torch::jit::Value *> owned;
  return mutates_attributes(graph->block()) || writes_to_attributes(graph->block(), owned);
}

at::Tensor tensor(const sconce_value &value) {
  auto type = static_cast<at::ScalarType>(value.scalar_type);
  at::IntArrayRef shape(value.shape, value.rank);
  // A copy: the request's bytes are shared and immutable, and a model may write to its inputs.
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(type));
  std::memcpy(out.mutable_data_ptr(), value.data, out.nbytes());
  return out;
}

c10::IValue value_of(const sconce_value &value) {
  auto text = [&](size_t i) { return std::string(value.strings[i], value.lengths[i]); };
  switch (value.kind) {
    case 0:
      return tensor(value);
    case 1:
      return value.integer;
    case 2:
      return value.real;
    case 3:
      return value.integer != 0;
    case 4:
      return text(0);
    case 5: {
      c10::List<std::string> list;
      for (size_t i = 0; i < value.count; i++) {
        list.push_back(text(i));
      }
      return list;
    }
    case 6: {
      c10::List<at::Tensor> list;
      for (const at::Tensor &row : tensor(value).unbind(0)) {
        list.push_back(row);
      }
      return list;
    }
    default:
      return c10::IValue();
  }
}

void flatten(const c10::IValue &value, const std::string &name, std::vector<Item> &items) {
  auto nested = [&](const std::string &key) { return name.empty() ? key : name + "." + key; };
  if (value.isTensor()) {
    items.push_back({name, value.toTensor().detach().to(at::kCPU).contiguous(), {}});
  } else if (value.isTuple()) {
    const auto &elements = value.toTupleRef().elements();
    for (size_t i = 0; i < elements.size(); i++) {
      flatten(elements[i], name.empty() ? "" : nested(std::to_string(i)), items);
    }
  } else if (value.isInt()) {
    items.push_back({name, at::tensor({value.toInt()}, at::kLong), {}});
  } else if (value.isDouble()) {
    items.push_back({name, at::tensor({value.toDouble()}, at::kDouble), {}});
  } else if (value.isBool()) {
    items.push_back({name, at::tensor({value.toBool()}, at::kBool), {}});
  } else if (value.isString()) {
    items.push_back({name, {}, {value.toStringRef()}, true});
  } else if (value.isGenericDict()) {
    for (const auto &entry : value.toGenericDict()) {
      std::ostringstream key;
      if (entry.key().isString()) {
        key << entry.key().toStringRef();
      } else {
        key << entry.key();
      }
      flatten(entry.value(), nested(key.str()), items);
    }
  } else if (value.isList()) {
    c10::ArrayRef<c10::IValue> list = value.toListRef();
    if (!list.empty() && list[0].isString()) {
      Item item{name, {}, {}, true};
      for (const c10::IValue &element : list) {
        item.strings.push_back(element.toStringRef());
      }
      items.push_back(std::move(item));
      return;
    }
    for (size_t i = 0; i < list.size(); i++) {
      flatten(list[i], name.empty() ? "" : nested(std::to_string(i)), items);
    }
  } else if (!value.isNone()) {
    throw std::runtime_error("it gives a " + value.tagKind() + ", and only tensors, numbers, strings, and tuples, lists and dicts of them can be sent");
  }
}

}  // namespace

char *sconce_load(const char *path, sconce_module **out) {
  return guarded([&] {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    c10::FunctionSchema schema = module.get_method("forward").function().getSchema();
    bool stateful = is_stateful(module);
    *out = new sconce_module{std::move(module), std::move(schema), stateful};
  });
}

void sconce_drop(sconce_module *module) { delete module; }

char *sconce_schema(const sconce_module *module, char **out) {
  return guarded([&] {
    std::ostringstream text;
    const auto &arguments = module->schema.arguments();
    for (size_t i = 1; i < arguments.size(); i++) {
      text << arguments[i].name() << '\t' << arguments[i].type()->annotation_str() << '\t'
           << (arguments[i].default_value().has_value() ? 1 : 0) << '\n';
    }
    *out = message(text.str());
  });
}

int32_t sconce_is_stateful(const sconce_module *module) { return module->stateful ? 1 : 0; }

char *sconce_forward(const sconce_module *module, const sconce_value *inputs, size_t count, sconce_result **out) {
  return guarded([&] {
    // no_grad rather than InferenceMode: tensors of the latter may not be saved for
    // anything that a model does with autograd, and it measured no faster.
    at::NoGradGuard no_grad;
    const auto &arguments = module->schema.arguments();
    std::vector<c10::IValue> stack;
    stack.reserve(count);
    for (size_t i = 0; i < count; i++) {
      if (inputs[i].kind == 7 && i + 1 < arguments.size() && arguments[i + 1].default_value().has_value()) {
        stack.push_back(*arguments[i + 1].default_value());
      } else {
        stack.push_back(value_of(inputs[i]));
      }
    }
    // A handle of its own: `forward` is not const, and the module is shared.
    torch::jit::Module handle = module->module;
    c10::IValue value = handle.forward(std::move(stack));
    auto result = std::make_unique<sconce_result>();
    flatten(value, "", result->items);
    *out = result.release();
  });
}

size_t sconce_result_count(const sconce_result *result) { return result->items.size(); }

const char *sconce_result_name(const sconce_result *result, size_t at) { return result->items[at].name.c_str(); }

int32_t sconce_result_scalar_type(const sconce_result *result, size_t at) {
  const Item &item = result->items[at];
  return item.is_strings ? -1 : static_cast<int32_t>(item.tensor.scalar_type());
}

const int64_t *sconce_result_shape(const sconce_result *result, size_t at, size_t *rank) {
  at::IntArrayRef sizes = result->items[at].tensor.sizes();
  *rank = sizes.size();
  return sizes.data();
}

const void *sconce_result_data(const sconce_result *result, size_t at, size_t *bytes) {
  const at::Tensor &tensor = result->items[at].tensor;
  *bytes = tensor.nbytes();
  return tensor.const_data_ptr();
}

size_t sconce_result_strings(const sconce_result *result, size_t at) { return result->items[at].strings.size(); }

const char *sconce_result_string(const sconce_result *result, size_t at, size_t index, size_t *length) {
  const std::string &text = result->items[at].strings[index];
  *length = text.size();
  return text.data();
}

void sconce_result_drop(sconce_result *result) { delete result; }

void sconce_free(char *text) { free(text); }

void sconce_trim(void) { malloc_trim(0); }
