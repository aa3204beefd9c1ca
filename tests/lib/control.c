#include "control.h"

#include "base/file.h"
#include "golden.h"
#include "nn/controlnet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double control_uniform(const char *name, uint64_t i)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001B3u;
    uint64_t z = h + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) / 16777216 - 0.5;
}

typedef struct {
    dr_buf header, data;
    const char *prefix;
} writing;

static void put_tensor(void *ctx, const char *name, const int64_t *dim, int ndim)
{
    writing *f = ctx;
    char full[300];
    int64_t count = 1;
    size_t at = f->data.len, n = strlen(name);
    dr_buf_printf(&f->header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", at ? "," : "{",
                  name);
    for (int i = 0; i < ndim; i++) {
        dr_buf_printf(&f->header, "%s%lld", i ? "," : "", (long long)dim[i]);
        count *= dim[i];
    }
    dr_buf_printf(&f->header, "],\"data_offsets\":[%zu,%zu]}", at, at + (size_t)count * 4);
    bool norm = ndim == 1 && n > 6 && !strcmp(name + n - 6, "weight");
    double factor = ndim > 1 ? sqrt(12.0 / (double)(count / dim[0])) : norm ? 0.5 : 0.4;
    snprintf(full, sizeof full, "%s.%s", f->prefix, name);
    for (int64_t i = 0; i < count; i++) {
        float v = (float)(control_uniform(full, (uint64_t)i) * factor + (norm ? 1 : 0));
        dr_buf_put(&f->data, &v, sizeof v);
    }
}

void control_write(const char *dir, const char *name, const dr_json *config)
{
    char path[DR_PATH_MAX];
    writing f = { .prefix = name };
    dr_buf text = { 0 }, file = { 0 };
    dr_controlnet c = { 0 };
    dr_arena *mem = dr_arena_new();
    dr_loader l = { .component = name, .wanted = put_tensor, .ctx = &f };
    dr_controlnet_load(&c, &l, config, mem);
    assert_int_equal(l.err.code, DR_OK);
    dr_buf_puts(&f.header, "}");
    uint64_t length = f.header.len;
    dr_buf_put(&file, &length, sizeof length);
    dr_buf_put(&file, f.header.data, f.header.len);
    dr_buf_put(&file, f.data.data, f.data.len);
    dr_json_put(&text, config);
    assert_int_equal(dr_mkdirs(dir, NULL), DR_OK);
    assert_int_equal(dr_path_join(path, dir, "config.json", NULL), DR_OK);
    assert_int_equal(dr_file_write(path, text.data, text.len, NULL), DR_OK);
    assert_int_equal(dr_path_join(path, dir, "diffusion_pytorch_model.safetensors", NULL),
                     DR_OK);
    assert_int_equal(dr_file_write(path, file.data, file.len, NULL), DR_OK);
    dr_buf_free(&text);
    dr_buf_free(&file);
    dr_buf_free(&f.header);
    dr_buf_free(&f.data);
    dr_arena_free(mem);
}
