#include "shim.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/script.h>

#include "shim/copies.h"
#include "shim/inputs.h"
#include "shim/results.h"
#include "shim/state.h"

namespace {

// What a module and its copies have in common.
struct Known {
  c10::FunctionSchema schema;
  int32_t state = SCONCE_STATELESS;
  // Where it changes itself, and has copies.
  std::optional<sconce::Copies> copies = std::nullopt;
};

}  // namespace

struct sconce_module {
  torch::jit::Module module;
  std::shared_ptr<const Known> known;
};

struct sconce_result {
  std::vector<sconce::Item> items;
};

namespace {

char *message(const std::string &text) { return strdup(text.c_str()); }

// No exception may cross into Rust. Messages keep the model's own error and lose
// libtorch's C++ backtrace.
template <typename F>
char *guarded(F &&work) noexcept {
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

std::vector<c10::IValue> arguments_of(const sconce_module *module, const sconce_value *inputs, size_t count) {
  const auto &arguments = module->known->schema.arguments();
  if (count + 1 != arguments.size()) {
    throw std::logic_error("forward needs one input for each argument of its schema");
  }
  std::vector<c10::IValue> stack;
  stack.reserve(count);
  for (size_t i = 0; i < count; i++) {
    const auto &fallback = arguments[i + 1].default_value();  // the first is `self`
    bool left_out = inputs[i].kind == SCONCE_LEFT_OUT;
    stack.push_back(left_out && fallback ? *fallback : sconce::value_of(inputs[i]));
  }
  return stack;
}

void describe_state(const torch::jit::Module &module, Known &known) {
  sconce::Changes changes = sconce::changes_of(module);
  known.state = changes.any ? SCONCE_SHARED : SCONCE_STATELESS;
  if (!changes.any || changes.code) {
    return;
  }
  try {
    at::NoGradGuard no_grad;
    sconce::Copies copies(module, changes);
    // Some objects of C++ classes cannot be copied, and that shows only when it is tried.
    copies.copy(module);
    known.copies = std::move(copies);
    known.state = SCONCE_COPIED;
  } catch (const std::exception &) {
  }
}

}  // namespace

char *sconce_start(void) {
  // Starts the threads of `torch.jit.fork`: a thread inherits its maker's priority, and
  // without this the maker would be the loader, which has the lowest there is.
  return guarded([] { at::launch([] {}); });
}

char *sconce_load(const char *path, sconce_module **out) {
  return guarded([&] {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    auto known = std::make_shared<Known>(Known{module.get_method("forward").function().getSchema()});
    describe_state(module, *known);
    *out = new sconce_module{std::move(module), std::move(known)};
  });
}

char *sconce_copy(const sconce_module *module, sconce_module **out) {
  return guarded([&] {
    if (!module->known->copies) {
      throw std::logic_error("the module has no copies with a state of their own");
    }
    at::NoGradGuard no_grad;
    *out = new sconce_module{module->known->copies->copy(module->module), module->known};
  });
}

void sconce_drop(sconce_module *module) { delete module; }

char *sconce_schema(const sconce_module *module, char **out) {
  return guarded([&] {
    std::ostringstream text;
    const auto &arguments = module->known->schema.arguments();
    for (size_t i = 1; i < arguments.size(); i++) {
      text << arguments[i].name() << '\t' << arguments[i].type()->annotation_str() << '\t'
           << (arguments[i].default_value().has_value() ? 1 : 0) << '\n';
    }
    *out = message(text.str());
  });
}

int32_t sconce_state(const sconce_module *module) { return module->known->state; }

char *sconce_forward(const sconce_module *module, const sconce_value *inputs, size_t count, sconce_result **out,
                     int32_t *unsendable) {
  *unsendable = 0;
  return guarded([&] {
    // no_grad rather than InferenceMode: tensors of the latter may not be saved for
    // anything that a model does with autograd, and it measured no faster.
    at::NoGradGuard no_grad;
    std::vector<c10::IValue> stack = arguments_of(module, inputs, count);
    // A handle of its own: `forward` is not const, and the module is shared.
    torch::jit::Module handle = module->module;
    c10::IValue value = handle.forward(std::move(stack));
    // What a stateful module gives may be its state, which the next request changes.
    sconce::Flattened flattened(module->known->state != SCONCE_STATELESS);
    try {
      flattened.add(value, "");
    } catch (const sconce::Unsendable &) {
      *unsendable = 1;
      throw;
    }
    *out = new sconce_result{std::move(flattened.items)};
  });
}

size_t sconce_result_count(const sconce_result *result) { return result->items.size(); }

const char *sconce_result_name(const sconce_result *result, size_t at, size_t *length) {
  const std::string &name = result->items[at].name;
  *length = name.size();
  return name.data();
}

int32_t sconce_result_scalar_type(const sconce_result *result, size_t at) {
  const sconce::Item &item = result->items[at];
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

void sconce_trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
