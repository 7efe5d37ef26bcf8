// What a module changes of itself when it runs. Two threads in such a module at once
// corrupt memory, so whatever cannot be judged counts as a change: the price of a
// wrong "yes" is a copy, that of a wrong "no" a crash.
//
// libtorch's own AliasDb answers a harder question and gives up sooner: to it, a scripted
// transformer writes to its weights. Here it is enough to follow what is reached from the
// module's attributes, wherever it flows, and to see whether anything writes to it.
#pragma once

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>

namespace sconce {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

inline void collect(Block *block, c10::Symbol kind, std::vector<Node *> &found) {
  for (Node *node : block->nodes()) {
    if (node->kind() == kind) {
      found.push_back(node);
    }
    for (Block *inner : node->blocks()) {
      collect(inner, kind, found);
    }
  }
}

// A copy without calls, and without what a module does only in training: scripted batch
// norm counts its batches there, and `eval` has cleared `training` for good.
inline std::shared_ptr<Graph> evaluated(Graph &original) {
  std::shared_ptr<Graph> graph = original.copy();
  torch::jit::Inline(*graph);
  std::vector<Node *> writes, reads;
  collect(graph->block(), c10::prim::SetAttr, writes);
  collect(graph->block(), c10::prim::GetAttr, reads);
  for (const Node *node : writes) {
    if (node->s(c10::attr::name) == "training") {
      return graph;
    }
  }
  for (Node *node : reads) {
    auto owner = node->input()->type()->cast<c10::ClassType>();
    if (owner && owner->is_module() && node->s(c10::attr::name) == "training") {
      torch::jit::WithInsertPoint here(node);
      node->output()->replaceAllUsesWith(graph->insertConstant(false));
    }
  }
  // Folds the branches; operators on tensors are not run.
  torch::jit::ConstantPropagationImmutableTypes(graph);
  return graph;
}

// Whether a value of this type can be written to.
inline bool is_mutable(const c10::TypePtr &type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::ComplexType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::NoneType:
    case c10::TypeKind::DeviceObjType:
      return false;
    default:
      return true;
  }
}

// Whether a value of this type can have a tensor or an object inside it.
inline bool holds_tensors(const c10::TypePtr &type) {
  auto inside = type->containedTypes();
  return std::any_of(inside.begin(), inside.end(), [](const c10::TypePtr &part) {
    return part->kind() == c10::TypeKind::TensorType || part->cast<c10::ClassType>() || holds_tensors(part);
  });
}

// An attribute, by the name of its owner's type and its own.
using Slot = std::pair<std::string, std::string>;

struct Changes {
  bool any = false;
  // Constants of its code, which all of its copies share.
  bool code = false;
  // Nothing is known of which attributes it changes.
  bool anything = false;
  // The attributes that it changes, where `anything` is not set.
  std::set<Slot> slots;
};

class Reached {
 public:
  Changes changes(Block *block) {
    do {
      grew_ = false;
      visit(block);
    } while (grew_);
    // What was put into a list or dict is not followed to where it is taken out.
    found_.anything |= found_.any && in_containers_;
    return found_;
  }

 private:
  // What a value may be, or be a part of.
  using Roots = std::set<Slot>;

  std::unordered_map<const Value *, Roots> owned_;
  // What was put in the place of an attribute.
  std::map<Slot, Roots> stored_;
  std::unordered_map<const Node *, std::shared_ptr<Graph>> forked_;
  // Something owned was put into a list or dict: which one that is elsewhere is not followed.
  bool in_containers_ = false;
  bool grew_ = false;
  Changes found_;

  // No type has an empty name.
  static Slot code() { return {}; }

  static Slot slot_of(const Node *node) {
    auto owner = node->inputs()[0]->type()->cast<c10::ClassType>();
    std::string type = owner && owner->name() ? owner->name()->qualifiedName() : std::string();
    return {std::move(type), node->s(c10::attr::name)};
  }

  bool is_owned(const Value *value) const {
    return owned_.count(value) > 0 || (in_containers_ && holds_tensors(value->type()));
  }

  Roots roots_of(const Value *value) const {
    auto found = owned_.find(value);
    return found == owned_.end() ? Roots() : found->second;
  }

  void own(const Value *value, const Roots &roots) {
    if (is_mutable(value->type())) {
      auto [entry, is_new] = owned_.try_emplace(value);
      grew_ |= is_new;
      add(entry->second, roots);
    }
  }

  void add(Roots &to, const Roots &roots) {
    size_t before = to.size();
    to.insert(roots.begin(), roots.end());
    grew_ |= to.size() > before;
  }

  void flow(const Value *from, const Value *to) {
    if (is_owned(from)) {
      own(to, roots_of(from));
    }
  }

  // Something writes to this value, which is owned.
  void write(const Value *value) {
    found_.any = true;
    for (const Slot &root : roots_of(value)) {
      if (root == code()) {
        found_.code = true;
      } else {
        found_.slots.insert(root);
      }
    }
  }

  void visit(Block *block) {
    for (Node *node : block->nodes()) {
      switch (node->kind()) {
        // Left over by inlining, so the callee is known only when it runs.
        case c10::prim::CallMethod:
        case c10::prim::CallFunction:
          found_.any = found_.anything = true;
          break;
        case c10::prim::SetAttr: {
          Slot slot = slot_of(node);
          found_.any = true;
          found_.slots.insert(slot);
          add(stored_[slot], roots_of(node->inputs()[1]));
          break;
        }
        case c10::prim::GetAttr: {
          Slot slot = slot_of(node);
          Roots roots = stored_[slot];
          roots.insert(std::move(slot));
          own(node->output(), roots);
          break;
        }
        case c10::prim::Constant: {
          // Tracing makes a constant of a tensor that forward makes from numbers, and writing
          // to it changes the code.
          const c10::TypePtr &type = node->output()->type();
          if (type->kind() == c10::TypeKind::TensorType || holds_tensors(type)) {
            own(node->output(), {code()});
          }
          break;
        }
        case c10::prim::If:
          visit_if(node);
          break;
        case c10::prim::Loop:
          visit_loop(node);
          break;
        default:
          if (node->hasAttribute(c10::attr::Subgraph)) {
            visit_fork(node);
          } else if (node->kind().is_prim() || !node->maybeSchema()) {
            visit_unknown(node);
          } else {
            visit_operator(node, node->schema());
          }
      }
    }
  }

  void visit_if(Node *node) {
    for (Block *branch : node->blocks()) {
      visit(branch);
      for (size_t i = 0; i < node->outputs().size(); i++) {
        flow(branch->outputs()[i], node->outputs()[i]);
      }
    }
  }

  // Inputs are the trip count, the first condition, and what is carried around.
  void visit_loop(Node *node) {
    Block *body = node->blocks()[0];
    for (size_t i = 0; i < node->outputs().size(); i++) {
      flow(node->inputs()[i + 2], body->inputs()[i + 1]);
      flow(body->outputs()[i + 1], body->inputs()[i + 1]);
      flow(body->inputs()[i + 1], node->outputs()[i]);
      flow(body->outputs()[i + 1], node->outputs()[i]);
    }
    visit(body);
  }

  void visit_fork(Node *node) {
    std::shared_ptr<Graph> &graph = forked_[node];
    if (!graph) {
      graph = evaluated(*node->g(c10::attr::Subgraph));
    }
    for (size_t i = 0; i < graph->inputs().size() && i < node->inputs().size(); i++) {
      flow(node->inputs()[i], graph->inputs()[i]);
    }
    visit(graph->block());
    for (const Value *result : graph->outputs()) {
      for (const Value *output : node->outputs()) {
        flow(result, output);
      }
    }
    visit_unknown(node);
  }

  // Such as the making and taking apart of tuples and lists: the outputs may be the inputs.
  void visit_unknown(Node *node) {
    for (const Value *input : node->inputs()) {
      for (const Value *output : node->outputs()) {
        flow(input, output);
      }
    }
    for (Block *inner : node->blocks()) {
      visit(inner);
    }
  }

  void visit_operator(Node *node, const c10::FunctionSchema &schema) {
    bool reached = false, stores = false, puts = false;
    Roots roots;
    for (size_t i = 0; i < node->inputs().size(); i++) {
      // Where there are more inputs than arguments nothing is known of them.
      const c10::AliasInfo *alias = i < schema.arguments().size() ? schema.arguments()[i].alias_info() : nullptr;
      const Value *input = node->inputs()[i];
      bool owned = is_owned(input), writes = alias && alias->isWrite();
      if (owned && writes) {
        write(input);
      }
      if (owned) {
        Roots more = roots_of(input);
        roots.insert(more.begin(), more.end());
      }
      reached |= owned;
      puts |= owned && !writes;
      stores |= writes && holds_tensors(input->type());
    }
    if (!reached) {
      return;
    }
    if (trains(node)) {
      for (size_t i = running_mean; i <= running_mean + 1; i++) {
        write(node->inputs()[i]);
      }
    }
    if (stores && puts && !in_containers_) {
      in_containers_ = grew_ = true;
    }
    for (size_t i = 0; i < node->outputs().size(); i++) {
      const Value *output = node->outputs()[i];
      bool aliases = i < schema.returns().size() && schema.returns()[i].alias_info();
      if (aliases || holds_tensors(output->type()) || is_dropout(node->kind())) {
        own(output, roots);
      }
    }
  }

  // Where both normalisations take their running statistics, the mean and then the variance.
  static constexpr size_t running_mean = 3;

  // Writes its running statistics, its only inputs that are not differentiable, when it
  // trains; its schema does not say so.
  static bool trains(const Node *node) {
    const char *flag = node->kind() == c10::aten::batch_norm      ? "training"
                       : node->kind() == c10::aten::instance_norm ? "use_input_stats"
                                                                  : nullptr;
    if (!flag || node->inputs()[running_mean]->mustBeNone()) {
      return false;
    }
    auto training = torch::jit::toIValue(node->namedInput(flag));
    return !training || training->toBool();
  }

  // Gives its very input back when it does not train; its schema does not say so either.
  static bool is_dropout(c10::Symbol kind) {
    return kind == c10::aten::dropout || kind == c10::aten::feature_dropout || kind == c10::aten::alpha_dropout ||
           kind == c10::aten::feature_alpha_dropout;
  }
};

inline Changes changes_of(const torch::jit::Module &module) {
  Changes changes;
  try {
    std::shared_ptr<Graph> graph = evaluated(*module.get_method("forward").graph());
    changes = Reached().changes(graph->block());
  } catch (const std::exception &) {
    changes.any = changes.anything = true;
  }
  return changes;
}

}  // namespace sconce
