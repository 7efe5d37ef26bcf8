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

// One input. Exactly the fields of its kind are read.
typedef struct {
  int32_t kind;  // the numbers are those of `Kind` in ffi.rs
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
char *sconce_load(const char *path, sconce_module **out);
void sconce_drop(sconce_module *module);

// The arguments of `forward` without `self`, one a line: name, tab, type, tab, 1 or 0 for a default.
char *sconce_schema(const sconce_module *module, char **out);
// Whether the module changes its own attributes when it runs.
int32_t sconce_is_stateful(const sconce_module *module);

char *sconce_forward(const sconce_module *module, const sconce_value *inputs, size_t count, sconce_result **out);

size_t sconce_result_count(const sconce_result *result);
// Empty where the model gives no name.
const char *sconce_result_name(const sconce_result *result, size_t at);
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
