/* Normalisations over channels-last activations.
 *
 * Group norm (Wu & He 2018): y = (x - mean_g) / sqrt(var_g + eps) · w[c] + b[c], where the
 * statistics of group g run over all positions and the c/groups channels of the group.
 * Three kernels, because a group's channels are strided and one pass over memory in row
 * order is what a cache wants:
 *   partial: for each slab of rows, mean and sum of squared differences of each channel;
 *   combine: Chan's formula joins slabs and channels to a group, and turns the statistics
 *            into a mean, a factor and an offset a channel;
 *   apply:   y = (x - mean[n,c])·factor[n,c] + offset[n,c], through SiLU when asked.
 * Squares are taken of differences from the slab's own mean, sums of differences from the
 * first value that is summed: a large mean cancels nothing away. */

/* x: [n,t,c]. part: [n, slabs, 2, c]. Work-item: 8 channels of one slab of one image. */
__kernel void group_norm_partial(__global const float *x, long x_at, __global float *part,
                                 long part_at, long t, long c, long slab)
{
    long ci = get_global_id(0) * BLOCK, s = get_global_id(1), n = get_global_id(2);
    if (ci >= c)
        return;
    long slabs = get_global_size(1), left = c - ci;
    long first = s * slab, rows = min(slab, t - first);
    __global const float *p = x + x_at + (n * t + first) * c + ci;
    float8 base = load8(p, left), sum = 0.0f, squares = 0.0f;
    for (long r = 0; r < rows; r++)
        sum += load8(p + r * c, left) - base;
    float8 mean = base + sum / rows;
    for (long r = 0; r < rows; r++) {
        float8 d = load8(p + r * c, left) - mean;
        squares += d * d;
    }
    __global float *out = part + part_at + (n * slabs + s) * 2 * c + ci;
    store8(mean, out, left);
    store8(squares, out + c, left);
}

/* coef: [n, 3, c]: mean, factor, offset. One work-group of WG a group of one image. */
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
group_norm_combine(__global const float *part, long part_at, __global const float *w, long w_at,
                   __global const float *b, long b_at, __global float *coef, long coef_at,
                   long t, long c, long slab, long slabs, long groups, float eps)
{
    __local float tmp[WG];
    long g = get_group_id(0) % groups, n = get_group_id(0) / groups;
    long per = c / groups, lane = get_local_id(0);
    float size = (float)t * per;
    __global const float *p = part + part_at + n * slabs * 2 * c + g * per;
    float base = p[0], sum = 0.0f, squares = 0.0f;
    for (long s = lane; s < slabs; s += WG) {
        float d = 0.0f;
        for (long i = 0; i < per; i++)
            d += p[s * 2 * c + i] - base;
        sum += d * min(slab, t - s * slab);
    }
    float mean = base + group_sum(sum, tmp) / size;
    for (long s = lane; s < slabs; s += WG) {
        float d2 = 0.0f, within = 0.0f;
        for (long i = 0; i < per; i++) {
            float d = p[s * 2 * c + i] - mean;
            d2 += d * d;
            within += p[s * 2 * c + c + i];
        }
        squares += within + d2 * min(slab, t - s * slab);
    }
    float inv = 1.0f / sqrt(group_sum(squares, tmp) / size + eps);
    __global float *out = coef + coef_at + n * 3 * c + g * per;
    for (long i = lane; i < per; i += WG) {
        out[i] = mean;
        out[c + i] = inv * w[w_at + g * per + i];
        out[2 * c + i] = b[b_at + g * per + i];
    }
}

/* Work-item: 8 channels of one row of one image. */
__kernel void group_norm_apply(__global const float *x, long x_at, __global const float *coef,
                               long coef_at, __global float *y, long y_at, long t, long c,
                               int silu)
{
    long ci = get_global_id(0) * BLOCK, r = get_global_id(1), n = get_global_id(2);
    if (ci >= c)
        return;
    long i = (n * t + r) * c + ci, left = c - ci;
    __global const float *k = coef + coef_at + n * 3 * c + ci;
    float8 v = (load8(x + x_at + i, left) - load8(k, left)) * load8(k + c, left) +
               load8(k + 2 * c, left);
    if (silu)
        v = v / (1.0f + exp(-v));
    store8(v, y + y_at + i, left);
}

/* Layer norm (Ba et al. 2016): y[r,c] = (x - mean_r) / sqrt(var_r + eps) · w[c] + b[c].
 * One work-group of WG a row; any number of columns. */
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
layer_norm(__global const float *x, long x_at, __global const float *w, long w_at,
           __global const float *b, long b_at, __global float *y, long y_at, long cols,
           float eps)
{
    __local float tmp[WG];
    long r = get_group_id(0);
    long first = (long)get_local_id(0) * 8, step = (long)WG * 8, body = cols / 8 * 8;
    __global const float *p = x + x_at + r * cols;
    __global float *q = y + y_at + r * cols;
    float8 acc = 0.0f;
    float tail = 0.0f;
    for (long i = first; i < body; i += step)
        acc += vload8(0, p + i);
    for (long i = body + get_local_id(0); i < cols; i += WG)
        tail += p[i];
    float mean = group_sum(sum8(acc) + tail, tmp) / cols;
    acc = 0.0f;
    tail = 0.0f;
    for (long i = first; i < body; i += step) {
        float8 d = vload8(0, p + i) - mean;
        acc += d * d;
    }
    for (long i = body + get_local_id(0); i < cols; i += WG)
        tail += (p[i] - mean) * (p[i] - mean);
    float inv = 1.0f / sqrt(group_sum(sum8(acc) + tail, tmp) / cols + eps);
    for (long i = first; i < body; i += step)
        put8((vload8(0, p + i) - mean) * inv * vload8(0, w + w_at + i) +
                    vload8(0, b + b_at + i),
                0, q + i);
    for (long i = body + get_local_id(0); i < cols; i += WG)
        q[i] = (p[i] - mean) * inv * w[w_at + i] + b[b_at + i];
}
