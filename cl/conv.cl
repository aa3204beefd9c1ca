/* Rows of a convolution unfolded for GEMM:
 *   y[r, (ky·kw + kx)·c + ci] = in_scale · x[n, iy, ix, ci],
 *   iy = (oy·stride + ky - pad_top) · h / in_h, the same for ix; 0 outside.
 *
 * x: [n_src, h, w, c] channels-last; output pixel r counts through [n, oh, ow] from `first`.
 * in_h × in_w larger than h × w reads the picture enlarged by nearest neighbour without
 * storing it. Image n reads source n % n_src: both halves of a guidance batch share the latents. Geometry: (kernel position
 * × channel block of 4, row); any sizes. */
__kernel void unfold(__global const float *x, long x_at, __global float *y, long y_at,
                     long first, int n_src, int h, int w, int c, int in_h, int in_w, int oh,
                     int ow, int kh, int kw, int stride, int pad_top, int pad_left,
                     float in_scale)
{
    int blocks = (c + 3) / 4;
    int id = get_global_id(0);
    long r = get_global_id(1);
    int k = id / blocks, ci = id % blocks * 4;
    if (k >= kh * kw)
        return;
    long pixel = first + r;
    int ox = pixel % ow, oy = pixel / ow % oh;
    long n = pixel / ow / oh % n_src;
    int iy = oy * stride + k / kw - pad_top, ix = ox * stride + k % kw - pad_left;
    bool inside = iy >= 0 && ix >= 0 && iy < in_h && ix < in_w;
    __global float *q = y + y_at + (r * kh * kw + k) * c + ci;
    __global const float *p = x + x_at;
    if (inside)
        p += ((n * h + (long)iy * h / in_h) * w + (long)ix * w / in_w) * c + ci;
    if (ci + 4 <= c) {
        float4 v = inside ? vload4(0, p) * in_scale : (float4)(0.0f);
        vstore4(v, 0, q);
    } else {
        for (int i = 0; ci + i < c; i++)
            q[i] = inside ? p[i] * in_scale : 0.0f;
    }
}
