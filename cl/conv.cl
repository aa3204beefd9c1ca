/* Rows of a convolution unfolded for GEMM:
 *   y[r, (ky·kw + kx)·c + ci] = in_scale · x[n, iy, ix, ci],
 *   iy = (oy·stride + ky - pad_top) · h / in_h, the same for ix; 0 outside, or with wrap
 *   what lies as far inside at the opposite edge.
 *
 * x: [n_src, h, w, c] channels-last; output pixel r counts through [n, oh, ow] from `first`.
 * in_h × in_w larger than h × w reads the picture enlarged by nearest neighbour without
 * storing it. Image n reads source n % n_src: both halves of a guidance batch share the
 * latents. Work-item: a block of 8 channels of one row, all kernel positions. */
__kernel void unfold(__global const float *x, long x_at, __global float *y, long y_at,
                     long first, int n_src, int h, int w, int c, int in_h, int in_w, int oh,
                     int ow, int kh, int kw, int stride, int pad_top, int pad_left,
                     int wrap, float in_scale)
{
    int ci = get_global_id(0) * BLOCK;
    long r = get_global_id(1);
    if (ci >= c)
        return;
    long pixel = first + r;
    long line = pixel / ow;
    int ox = pixel - line * ow, oy = line % oh;
    long n = line / oh % n_src;
    __global float *q = y + y_at + r * kh * kw * c + ci;
    for (int ky = 0; ky < kh; ky++) {
        int sy = source_pixel(oy * stride + ky - pad_top, in_h, h, wrap);
        __global const float *row = x + x_at + (n * h + sy) * w * c + ci;
        for (int kx = 0; kx < kw; kx++, q += c) {
            int sx = source_pixel(ox * stride + kx - pad_left, in_w, w, wrap);
            float8 v = 0.0f;
            if (sy >= 0 && sx >= 0)
                v = load8(row + (long)sx * c, c - ci) * in_scale;
            store8(v, q, c - ci);
        }
    }
}
