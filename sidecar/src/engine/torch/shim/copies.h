// Copies of a module that share its code, its warm executor, and every tensor that it never
// changes. What it may change each copy has for itself.
#pragma once

#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <torch/script.h>

#include "state.h"

namespace sconce {

class Copies {
 public:
  // The module must not have run yet, and must never run itself: its copies begin as it is.
  Copies(const torch::jit::Module &module, const Changes &changes) {
    std::unordered_set<const c10::StorageImpl *> touched;
    std::vector<c10::IValue> candidates;
    for (const torch::jit::Module &part : module.modules()) {
      auto type = part.type();
      std::string owner = type->name() ? type->name()->qualifiedName() : std::string();
      for (size_t i = 0; i < type->numAttributes(); i++) {
        c10::IValue value = part._ivalue()->getSlot(i);
        if (value.isModule()) {
          continue;  // a part of its own
        }
        bool changes_it = changes.anything || changes.slots.count({owner, type->getAttributeName(i)}) > 0;
        // Objects of C++ classes, such as packed weights, cannot be copied without being made anew.
        if (!changes_it && (is_plain(value) || value.isCustomClass())) {
          candidates.push_back(std::move(value));
          continue;
        }
        value.visit([&](const c10::IValue &inner) {
          if (is_plain(inner)) {
            touched.insert(storage_of(inner));
            changing_.push_back(inner);
          }
          return false;
        });
      }
    }
    for (c10::IValue &value : candidates) {
      // Two attributes may be views of one tensor.
      bool alone = !value.isTensor() || touched.count(storage_of(value)) == 0;
      (alone ? kept_ : changing_).push_back(std::move(value));
    }
  }

  torch::jit::Module copy(const torch::jit::Module &module) const {
    c10::IValue::HashIdentityIValueMap known;
    known.reserve(kept_.size() + changing_.size());
    for (const c10::IValue &value : kept_) {
      known.emplace(value, value);
    }
    // libtorch copies tensor by tensor, and views of one memory would come apart.
    std::unordered_map<const c10::StorageImpl *, at::Tensor> memories;
    for (const c10::IValue &value : changing_) {
      const at::Tensor &tensor = value.toTensor();
      at::Tensor &memory = memories[storage_of(value)];
      if (!memory.defined()) {
        auto size = static_cast<int64_t>(tensor.storage().nbytes());
        memory = at::empty({0}, at::kByte).set_(tensor.storage(), 0, {size}, {1}).clone();
      }
      at::Tensor twin = at::empty({0}, tensor.options());
      twin.set_(memory.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
      known.emplace(value, std::move(twin));
    }
    return torch::jit::Module(module._ivalue()->deepcopy(known));
  }

 private:
  std::vector<c10::IValue> kept_;
  std::vector<c10::IValue> changing_;

  static bool is_plain(const c10::IValue &value) {
    if (!value.isTensor()) {
      return false;
    }
    const at::Tensor &tensor = value.toTensor();
    return tensor.defined() && tensor.layout() == at::kStrided && tensor.has_storage() && tensor.is_cpu() &&
           !tensor.is_quantized() && !tensor.is_neg() && !tensor.is_conj();
  }

  static const c10::StorageImpl *storage_of(const c10::IValue &value) {
    return value.toTensor().storage().unsafeGetStorageImpl();
  }
};

}  // namespace sconce
