/* Named tensors in safetensors files: one file, or the shards of an index, read through maps; and their writer. */
#ifndef IO_SAFETENSORS_H
#define IO_SAFETENSORS_H
#include "base/dtype.h"
#include "base/json.h"
#include "io/map.h"

/* One tensor inside a mapped file. */
struct tensor {
    const char *name;
    struct cb_type type;
    struct map *map;  // borrowed from the tensors
    int64_t offset, bytes;
};
const void *tensor_data(const struct tensor *tensor);

struct tensors;

/* Opens a .safetensors file or one of torch.save, an index of shards (NAME.index.json), or a folder that holds model.safetensors, pytorch_model.bin, an
   index of one of them, or an adapter's weights: the first in the order of Transformers.
   Everything in the header is checked; no tensor's bytes are read. Owned by caller, free with tensors_destroy. */
enum cb_status tensors_open(struct tensors **tensors, const char *path, struct cb_err *err);
/* The weights of an adapter's folder: adapter_model.safetensors, or adapter_model.bin as PEFT wrote it before; likewise. */
enum cb_status tensors_open_adapter(struct tensors **tensors, const char *folder, struct cb_err *err);
void tensors_destroy(struct tensors **tensors);

int tensors_count(const struct tensors *tensors);
/* In the order of their bytes (shards: in the order of the index). Borrowed. */
const struct tensor *tensors_at(const struct tensors *tensors, int i);
/* NULL where there is none. */
const struct tensor *tensors_find(const struct tensors *tensors, const char *name);
/* As tensors_find, but absence is CB_E_NAME with the file's name. */
enum cb_status tensors_need(const struct tensor **tensor, const struct tensors *tensors, const char *name, struct cb_err *err);
/* A string of __metadata__ (of the first shard), NULL where there is none. Borrowed. */
const char *tensors_metadata(const struct tensors *tensors, const char *key);
/* All of __metadata__, an object of strings; NULL where the file has none. Borrowed. */
const json_t *tensors_metadata_all(const struct tensors *tensors);
const char *tensors_name(const struct tensors *tensors);  // the file or index that was opened
/* The tensor as f32 into out[elements]. */
void tensor_read_f32(float *out, const struct tensor *tensor);

/* For readers of other formats: an empty set, and one tensor more (name copied, a reference on map taken; range and type are checked). */
enum cb_status tensors_create(struct tensors **tensors, const char *name, struct cb_err *err);
enum cb_status tensors_add(struct tensors *tensors, const char *name, const struct cb_type *type, struct map *map, int64_t offset,
                           struct cb_err *err);
/* Replaces the metadata; a reference is taken. Nullable: metadata. */
void tensors_set_metadata(struct tensors *tensors, json_t *metadata);
/* Reads one mapped safetensors file into a new set. */
enum cb_status tensors_read(struct tensors **tensors, struct map *map, struct cb_err *err);

/* The name of a type in these files ("BF16"), NULL where they have none; and back: CB_DTYPE_COUNT where unknown. */
const char *safetensors_dtype_name(enum cb_dtype dtype);
enum cb_dtype safetensors_dtype(const char *name);

/* What is to be written: bytes at `data`, or, where that is NULL, pieces that `fill` makes. */
struct tensor_item {
    const char *name;
    struct cb_type type;  // a type safetensors knows (no blocks)
    const void *data;
    void *source;  // the caller's, for fill
};
/* Writes elements [first, first + n) of the item's tensor to out, in the item's type. */
typedef enum cb_status tensor_fill(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *err);

/* One file, atomically, byte-equal to what the format's own library writes for the same tensors. metadata: object of strings. Nullable: metadata, fill
   (if every item has data), context. */
enum cb_status tensors_write(const char *path, const struct tensor_item *items, int n, const json_t *metadata, tensor_fill *fill,
                             void *context, struct cb_err *err);
/* FOLDER/model.safetensors, or model-0000i-of-0000n.safetensors with an index where the bytes pass max_shard_bytes (> 0). `stem` stands for "model". */
enum cb_status tensors_write_sharded(const char *folder, const char *stem, const struct tensor_item *items, int n, int64_t max_shard_bytes,
                                     const json_t *metadata, tensor_fill *fill, void *context, struct cb_err *err);
#endif
