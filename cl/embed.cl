/* y[r, c] = table[ids[r], c] + positions[r % length, c] : token and position embedding; an
 * id of `rows` or more reads extra[id - rows, c]. ids were checked against both tables by
 * the host. Work-item: one element. */
__kernel void embed_tokens(__global const int *ids, long ids_at, __global const float *table,
                           long table_at, __global const float *extra, long extra_at,
                           __global const float *positions, long positions_at,
                           __global float *y, long y_at, long rows, long length, long cols)
{
    long c = get_global_id(0), r = get_global_id(1);
    if (c >= cols)
        return;
    long id = ids[ids_at + r];
    float token = id < rows ? table[table_at + id * cols + c]
                            : extra[extra_at + (id - rows) * cols + c];
    y[y_at + r * cols + c] = token + positions[positions_at + r % length * cols + c];
}

/* Sinusoidal timestep embedding (Vaswani et al. 2017 as used by Ho et al. 2020):
 *   f_i = exp(-ln(10000) · i / (half - shift)), y = [sin(t·f), cos(t·f)], or cosines first
 *   when flip. Work-item: one of `half` frequencies; y: [1, 2·half]. */
__kernel void embed_timestep(__global float *y, long y_at, float t, int half_cols, float shift,
                             int flip)
{
    int i = get_global_id(0);
    if (i >= half_cols)
        return;
    float a = t * exp(-9.210340371976184f * i / (half_cols - shift));
    y[y_at + (flip ? half_cols : 0) + i] = sin(a);
    y[y_at + (flip ? 0 : half_cols) + i] = cos(a);
}
