/* The denoising step and the ways from latents and decoder output to what leaves. */

/* Guidance and a sampler's update in one pass (Ho & Salimans 2022 for the first line):
 *   m  = u + cfg·(c - u)          u, c: the model's outputs without and with the text
 *   x' = kx·x + km·m + kz·z + k0·h0 + k1·h1 + k2·h2
 *   h[slot]' = hx·x + hm·m + hz·z x before the update; slot -1: the memory stays
 *   d  = dx·x + dm·m              the predicted picture, for previews
 * guided 0: m = c, u is not read. What has the factor 0 is not read and may alias x.
 * Work-item: 8 elements. */
__kernel void sampler_step(__global float *x, long x_at, __global const float *c, long c_at,
                           __global const float *u, long u_at, __global float *h0, long h0_at,
                           __global float *h1, long h1_at, __global float *h2, long h2_at,
                           __global const float *z, long z_at, __global float *d, long d_at,
                           long count, int guided, float cfg, float kx, float km, float kz,
                           float k0, float k1, float k2, int slot, float hx, float hm, float hz,
                           float dx, float dm)
{
    long i = get_global_id(0) * BLOCK, left = count - i;
    if (i >= count)
        return;
    float8 m = load8(c + c_at + i, left), noise = 0.0f;
    if (guided) {
        float8 plain = load8(u + u_at + i, left);
        m = plain + cfg * (m - plain);
    }
    float8 v = load8(x + x_at + i, left);
    float8 next = kx * v + km * m;
    if (k0 != 0.0f)
        next += k0 * load8(h0 + h0_at + i, left);
    if (k1 != 0.0f)
        next += k1 * load8(h1 + h1_at + i, left);
    if (k2 != 0.0f)
        next += k2 * load8(h2 + h2_at + i, left);
    if (kz != 0.0f || hz != 0.0f) {
        noise = load8(z + z_at + i, left);
        next += kz * noise;
    }
    float8 kept = hx * v + hm * m + hz * noise;
    if (slot == 0)
        store8(kept, h0 + h0_at + i, left);
    if (slot == 1)
        store8(kept, h1 + h1_at + i, left);
    if (slot == 2)
        store8(kept, h2 + h2_at + i, left);
    store8(dx * v + dm * m, d + d_at + i, left);
    store8(next, x + x_at + i, left);
}

/* Guidance as a step of its own, where it needs sums over an image (e: the model's output
 * for the empty text; without perp it is not read and u stands for it):
 *   p  = c - e, q = u - e
 *   q' = q - p·<q,p>/<p,p>       what the negative text asks for across the text: Armandpour
 *                                et al. 2023, "Re-imagine the negative prompt algorithm"
 *   m  = e + cfg·(p - q')        without perp: u + cfg·(c - u)
 *   y  = m·(rescale·std(c)/std(m) + 1 - rescale)
 *                                Lin et al. 2024, "Common diffusion noise schedules and
 *                                sample steps are flawed", algorithm 2
 * Images of `count` values. One work-group of WG an image. */
__kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
guide(__global const float *c, long c_at, __global const float *u, long u_at,
      __global const float *e, long e_at, __global float *y, long y_at, long count, int perp,
      float cfg, float rescale)
{
    __local float tmp[WG];
    long image = get_group_id(0) * count, first = (long)get_local_id(0) * BLOCK;
    __global const float *pc = c + c_at + image, *pu = u + u_at + image, *pe = e + e_at + image;
    __global float *py = y + y_at + image;
    float8 dot8 = 0.0f, norm8 = 0.0f;
    for (long i = first; perp && i < count; i += (long)WG * BLOCK) {
        float8 base = load8(pe + i, count - i), p = load8(pc + i, count - i) - base;
        dot8 += p * (load8(pu + i, count - i) - base);
        norm8 += p * p;
    }
    float norm = perp ? group_sum(sum8(norm8), tmp) : 0.0f;
    float along = norm > 0.0f ? group_sum(sum8(dot8), tmp) / norm : 0.0f;
    float8 sum_c = 0.0f, sum_m = 0.0f;
    for (long i = first; i < count; i += (long)WG * BLOCK) {
        float8 text = load8(pc + i, count - i), base = load8((perp ? pe : pu) + i, count - i);
        float8 p = text - base;
        if (perp)
            p -= load8(pu + i, count - i) - base - along * p;
        float8 m = base + cfg * p;
        store8(m, py + i, count - i);
        sum_c += text;
        sum_m += m;
    }
    if (rescale == 0.0f)
        return;
    float mean_c = group_sum(sum8(sum_c), tmp) / count;
    float mean_m = group_sum(sum8(sum_m), tmp) / count;
    float8 square_c = 0.0f, square_m = 0.0f;
    for (long i = first; i < count; i += (long)WG * BLOCK) {
        float8 dc = load8(pc + i, count - i) - mean_c, dm = load8(py + i, count - i) - mean_m;
        square_c += dc * dc;
        square_m += dm * dm;
    }
    /* The last block is filled up with zeros, which are no values. */
    float pad = (count + BLOCK - 1) / BLOCK * BLOCK - count;
    float var_c = group_sum(sum8(square_c), tmp) - pad * mean_c * mean_c;
    float var_m = group_sum(sum8(square_m), tmp) - pad * mean_m * mean_m;
    float factor = var_m > 0.0f ? rescale * sqrt(fmax(var_c, 0.0f) / var_m) + 1.0f - rescale : 1.0f;
    for (long i = first; i < count; i += (long)WG * BLOCK)
        store8(factor * load8(py + i, count - i), py + i, count - i);
}

/* x = m·x + (1 - m)·(a·y + b·z), m one value a position, in 0..1: what a mask keeps is set
 * back to the picture y at the level of noise z that x has reached. Where a or b is 0, y or z
 * is not read. Work-item: one position. */
__kernel void repaint(__global float *x, long x_at, __global const float *mask, long mask_at,
                      __global const float *y, long y_at, __global const float *z, long z_at,
                      long positions, int c, float a, float b)
{
    long p = get_global_id(0);
    if (p >= positions)
        return;
    float m = mask[mask_at + p];
    for (long i = p * c; i < (p + 1) * c; i++) {
        float kept = a != 0.0f ? a * y[y_at + i] : 0.0f;
        kept += b != 0.0f ? b * z[z_at + i] : 0.0f;
        x[x_at + i] = m * x[x_at + i] + (1.0f - m) * kept;
    }
}

/* y[p, k] = bias[k] + sum_c x[p,c] · m[c,k], k < 3 : latents to a small RGB picture in
 * -1..1 by a matrix fitted to the model's own decoder. m: [c + 1, 3], the bias last.
 * Work-item: one pixel. */
__kernel void linear_rgb(__global const float *x, long x_at, __global const float *m, long m_at,
                         __global float *y, long y_at, long pixels, int c)
{
    long p = get_global_id(0);
    if (p >= pixels)
        return;
    for (int k = 0; k < 3; k++) {
        float v = m[m_at + c * 3 + k];
        for (int i = 0; i < c; i++)
            v += x[x_at + p * c + i] * m[m_at + i * 3 + k];
        y[y_at + p * 3 + k] = v;
    }
}

/* y = round(clamp(x/2 + 1/2, 0, 1) · 255) as bytes, RGB interleaved as x already is.
 * rint ties to even, as torch.round and numpy.round do. Work-item: one value. */
__kernel void to_rgb8(__global const float *x, long x_at, __global uchar *y, long y_at,
                      long count)
{
    long i = get_global_id(0);
    if (i < count)
        y[y_at + i] = convert_uchar_sat(rint(clamp(x[x_at + i] * 0.5f + 0.5f, 0.0f, 1.0f) * 255.0f));
}

/* y = {min, max, number of values that are not finite} over chunks of x; the host joins the
 * chunks. Work-item: one chunk of `chunk` values. */
__kernel void range(__global const float *x, long x_at, __global float *y, long y_at, long count,
                    long chunk)
{
    long id = get_global_id(0);
    long first = id * chunk, last = min(count, first + chunk);
    float lo = INFINITY, hi = -INFINITY, bad = 0.0f;
    for (long i = first; i < last; i++) {
        float v = x[x_at + i];
        bad += isfinite(v) ? 0.0f : 1.0f;
        lo = fmin(lo, v);
        hi = fmax(hi, v);
    }
    y[y_at + id * 3] = lo;
    y[y_at + id * 3 + 1] = hi;
    y[y_at + id * 3 + 2] = bad;
}
