/* x[r,c] = exp(x[r,c] - max_r) / sum_r, in place; one work-group of WG a row; any cols.
 *
 * causal: row r belongs to query (r % queries) + first and sees only keys <= it; the
 * others get 0. A row always sees at least one key. */
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax(__global float *x, long x_at, long cols, long queries, long first, int causal)
{
    __local float tmp[WG];
    long r = get_group_id(0), lane = get_local_id(0);
    long seen = causal ? min(cols, r % queries + first + 1) : cols;
    long body = seen / 8 * 8, step = (long)WG * 8;
    __global float *p = x + x_at + r * cols;
    float8 top8 = -INFINITY;
    float top = -INFINITY;
    for (long i = lane * 8; i < body; i += step)
        top8 = fmax(top8, vload8(0, p + i));
    for (long i = body + lane; i < seen; i += WG)
        top = fmax(top, p[i]);
    top = group_max(fmax(max8(top8), top), tmp);
    float8 sum_8 = 0.0f;
    float sum = 0.0f;
    for (long i = lane * 8; i < body; i += step) {
        float8 e = exp(vload8(0, p + i) - top);
        put8(e, 0, p + i);
        sum_8 += e;
    }
    for (long i = body + lane; i < seen; i += WG) {
        float e = exp(p[i] - top);
        p[i] = e;
        sum += e;
    }
    float inv = 1.0f / group_sum(sum8(sum_8) + sum, tmp);
    for (long i = lane * 8; i < body; i += step)
        put8(vload8(0, p + i) * inv, 0, p + i);
    for (long i = body + lane; i < seen; i += WG)
        p[i] *= inv;
    for (long i = seen + lane; i < cols; i += WG)
        p[i] = 0.0f;
}
