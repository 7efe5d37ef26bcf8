// What tch does not reach of TorchScript: the module itself, its schema, and a
// forward pass that leaks nothing when it fails.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sconce_module sconce_module;
typedef struct sconce_result sconce_result;

// `Tag` in ffi.rs.
enum {
  SCONCE_TENSOR = 0,
  SCONCE_INT = 1,
  SCONCE_FLOAT = 2,
  SCONCE_BOOL = 3,
  SCONCE_STRING = 4,
  SCONCE_STRING_LIST = 5,
  SCONCE_TENSOR_LIST = 6,
  SCONCE_LEFT_OUT = 7
};

// `State` in engine.rs: what running a module changes.
enum {
  SCONCE_STATELESS = 0,  // nothing
  SCONCE_COPIED = 1,     // itself, and `sconce_copy` makes more of it
  SCONCE_SHARED = 2      // what its copies would share, or it has none
};

// One input. Exactly the fields of its kind are read.
typedef struct {
  int32_t kind;
  int64_t integer;
  double real;
  const void *data;        // tensor elements
  const int64_t *shape;    // tensor sizes
  size_t rank;
  int32_t scalar_type;     // at::ScalarType
  const char *const *strings;
  const size_t *lengths;
  size_t count;
} sconce_value;

// Each function that can fail returns null or a message to free with `sconce_free`.

// Once for the process, on a thread of normal priority.
char *sconce_start(void);

char *sconce_load(const char *path, sconce_module **out);
void sconce_drop(sconce_module *module);

// The arguments of `forward` without `self`, one a line: name, tab, type, tab, 1 or 0 for a default.
char *sconce_schema(const sconce_module *module, char **out);
int32_t sconce_state(const sconce_module *module);
// The module with a state of its own, which is that of the one given. Whoever is SCONCE_COPIED and
// is copied must never run.
char *sconce_copy(const sconce_module *module, sconce_module **out);

// One input for each argument of the schema. On failure `unsendable` says whether the
// model ran and gave something that has no form on the wire.
char *sconce_forward(const sconce_module *module, const sconce_value *inputs, size_t count, sconce_result **out,
                     int32_t *unsendable);

size_t sconce_result_count(const sconce_result *result);
// Empty where the model gives no name.
const char *sconce_result_name(const sconce_result *result, size_t at, size_t *length);
// -1 where the item is a list of strings.
int32_t sconce_result_scalar_type(const sconce_result *result, size_t at);
const int64_t *sconce_result_shape(const sconce_result *result, size_t at, size_t *rank);
const void *sconce_result_data(const sconce_result *result, size_t at, size_t *bytes);
size_t sconce_result_strings(const sconce_result *result, size_t at);
const char *sconce_result_string(const sconce_result *result, size_t at, size_t index, size_t *length);
void sconce_result_drop(sconce_result *result);

void sconce_free(char *text);
void sconce_trim(void);

#ifdef __cplusplus
}
#endif
