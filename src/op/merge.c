#include "op/merge.h"

#include "op/launcher.h"

dr_tensor op_upload_weights(dr_run *r, const void *data, size_t bytes, int64_t o, int64_t c,
                            int64_t s, int kind)
{
    size_t unit = kind ? 2 : 4;
    dr_tensor y = dr_new(r, s, c, 1, o);
    dr_mark mark = dr_push(r);
    dr_tensor file = dr_new(r, 1, 1, 1, (int64_t)((bytes + 3) / 4));
    if (stop(r, "upload_weights"))
        return y;
    if (bytes != (size_t)(o * c * s) * unit)
        fail_shape(r, "upload_weights", y, "bytes", (ll)bytes, o * c * s * (ll)unit);
    if (!r->err.code && !r->dry)
        (void)!dr_mem_write(r->dev, file.mem, file.at * sizeof(float), data, bytes,
                            &r->err);
    LAUNCH(r, DR_K_unpack_weights, grid2(blocks(o), c * s), DR_MEM(file.mem),
           DR_LONG(file.at * sizeof(float) / unit), T(y), DR_LONG(o), DR_LONG(c),
           DR_LONG(s), DR_INT(kind));
    dr_pop(r, mark);
    return y;
}

void op_add_product(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor,
                    float beta)
{
    int64_t m = positions(y), k = a.c;
    if (stop(r, "add_product"))
        return;
    if (b.c != y.c || positions(b) != k)
        fail_shape(r, "add_product", b, "rows", positions(b), k);
    else if (positions(a) != m || (a.n != 1 && a.n != y.n) || (b.n != 1 && b.n != y.n))
        fail_shape(r, "add_product", a, "rows", positions(a), m);
    if (r->err.code)
        return;
    gemm(r,
         &(dr_gemm_args){
             .m = m,
             .n = y.c,
             .k = k,
             .batch = y.n,
             .a = { .mem = a.mem, .at = a.at, .ld = k, .stride = a.n > 1 ? m * k : 0 },
             .b = { .mem = b.mem, .at = b.at, .ld = y.c, .stride = b.n > 1 ? k * y.c : 0 },
             .c = { .mem = y.mem, .at = y.at, .ld = y.c, .stride = m * y.c },
             .alpha = factor,
             .beta = beta,
         });
}

void op_add_hadamard(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor)
{
    if (stop(r, "add_hadamard"))
        return;
    if (!same_shape(y, a) || !same_shape(y, b))
        fail_shape(r, "add_hadamard", a, "c", a.c, y.c);
    LAUNCH(r, DR_K_add_hadamard, grid1(blocks(dr_count(y))), T(y), T(a), T(b),
           DR_LONG(dr_count(y)), DR_FLOAT(factor));
}

void op_add_kronecker(dr_run *r, dr_tensor y, dr_tensor a, dr_tensor b, float factor)
{
    int64_t in1 = positions(a), in2 = positions(b);
    if (stop(r, "add_kronecker"))
        return;
    if (y.n != b.n || positions(y) != in1 * in2)
        fail_shape(r, "add_kronecker", y, "rows", positions(y), in1 * in2);
    else if (y.c != a.c * b.c)
        fail_shape(r, "add_kronecker", y, "c", y.c, a.c * b.c);
    LAUNCH(r, DR_K_add_kronecker, grid3(blocks(b.c), b.n * in2, dr_count(a)), T(y), T(a),
           T(b), DR_LONG(in1), DR_LONG(a.c), DR_LONG(in2), DR_LONG(b.c), DR_FLOAT(factor));
}

void op_add_dora(dr_run *r, dr_tensor y, dr_tensor base, dr_tensor w, dr_tensor magnitude,
                 bool by_input, float factor)
{
    int64_t in = positions(y), norms = by_input ? in : y.c;
    if (stop(r, "add_dora"))
        return;
    if (!same_shape(y, w) || dr_count(base) != dr_count(y))
        fail_shape(r, "add_dora", w, "c", w.c, y.c);
    else if (dr_count(magnitude) != norms)
        fail_shape(r, "add_dora", magnitude, "count", dr_count(magnitude), norms);
    dr_mark mark = dr_push(r);
    dr_tensor scale = dr_new(r, 1, 1, 1, norms);
    LAUNCH(r, DR_K_dora_norm, grid1(norms), T(w), T(magnitude), T(scale), DR_LONG(in),
           DR_LONG(y.c), DR_LONG(y.n), DR_INT(by_input), DR_LONG(norms));
    LAUNCH(r, DR_K_add_dora, grid2(blocks(y.c), y.n * in), T(y), T(base), T(w), T(scale),
           DR_LONG(in), DR_LONG(y.c), DR_INT(by_input), DR_FLOAT(factor));
    dr_pop(r, mark);
}
