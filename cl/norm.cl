/* Normalisations over channels-last activations.
 *
 * Group norm (Wu & He 2018): y = (x - mean_g) / sqrt(var_g + eps) · w[c] + b[c], where the
 * statistics of group g run over all positions and the c/groups channels of the group.
 * Three kernels, because a group's channels are strided and one pass over memory in row
 * order is what a cache wants:
 *   partial: for each slab of rows, mean and sum of squared differences of each channel;
 *   combine: Chan's formula joins slabs and channels to a group, and turns the statistics
 *            into one factor and one offset a channel;
 *   apply:   y = x·factor[n,c] + offset[n,c], through SiLU when asked.
 * Squared differences are taken from the slab's own mean, so that a large mean does not
 * cancel the variance away. */

/* x: [n,t,c]. part: [n, slabs, 2, c]. Work-item: one channel of one slab of one image. */
__kernel void group_norm_partial(__global const float *x, long x_at, __global float *part,
                                 long part_at, long t, long c, long slab)
{
    long ci = get_global_id(0), s = get_global_id(1), n = get_global_id(2);
    if (ci >= c)
        return;
    long slabs = get_global_size(1);
    long first = s * slab, rows = min(slab, t - first);
    __global const float *p = x + x_at + (n * t + first) * c + ci;
    float sum = 0.0f, squares = 0.0f;
    for (long r = 0; r < rows; r++)
        sum += p[r * c];
    float mean = sum / rows;
    for (long r = 0; r < rows; r++) {
        float d = p[r * c] - mean;
        squares += d * d;
    }
    __global float *out = part + part_at + (n * slabs + s) * 2 * c + ci;
    out[0] = mean;
    out[c] = squares;
}

/* coef: [n, 2, c]. Work-item: one group of one image. */
__kernel void group_norm_combine(__global const float *part, long part_at,
                                 __global const float *w, long w_at, __global const float *b,
                                 long b_at, __global float *coef, long coef_at, long t, long c,
                                 long slab, long slabs, long groups, float eps)
{
    long g = get_global_id(0), n = get_global_id(1);
    if (g >= groups)
        return;
    long per = c / groups;
    __global const float *p = part + part_at + n * slabs * 2 * c + g * per;
    float mean = 0.0f, squares = 0.0f;
    for (long s = 0; s < slabs; s++) {
        float share = (float)min(slab, t - s * slab) / (float)(t * per);
        for (long i = 0; i < per; i++)
            mean += share * p[s * 2 * c + i];
    }
    for (long s = 0; s < slabs; s++) {
        float rows = (float)min(slab, t - s * slab);
        for (long i = 0; i < per; i++) {
            float d = p[s * 2 * c + i] - mean;
            squares += p[s * 2 * c + c + i] + rows * d * d;
        }
    }
    float inv = 1.0f / sqrt(squares / (float)(t * per) + eps);
    __global float *out = coef + coef_at + n * 2 * c + g * per;
    for (long i = 0; i < per; i++) {
        float factor = inv * w[w_at + g * per + i];
        out[i] = factor;
        out[c + i] = b[b_at + g * per + i] - mean * factor;
    }
}

/* Work-item: one channel of one row of one image. */
__kernel void group_norm_apply(__global const float *x, long x_at, __global const float *coef,
                               long coef_at, __global float *y, long y_at, long t, long c,
                               int silu)
{
    long ci = get_global_id(0), r = get_global_id(1), n = get_global_id(2);
    if (ci >= c)
        return;
    __global const float *k = coef + coef_at + n * 2 * c + ci;
    long i = (n * t + r) * c + ci;
    float v = x[x_at + i] * k[0] + k[c];
    y[y_at + i] = silu ? v / (1.0f + exp(-v)) : v;
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
        vstore8((vload8(0, p + i) - mean) * inv * vload8(0, w + w_at + i) +
                    vload8(0, b + b_at + i),
                0, q + i);
    for (long i = body + get_local_id(0); i < cols; i += WG)
        q[i] = (p[i] - mean) * inv * w[w_at + i] + b[b_at + i];
}
