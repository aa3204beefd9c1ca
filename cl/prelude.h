/* Common to all kernel files; put in front of each by the host. Storage is float; indices
 * into buffers are long, since a buffer may hold more than 2^31 elements. WG is the number
 * of work-items that share a row in reductions: 1 on CPUs, where the inner loop is the
 * vector, a power of two elsewhere. */
#ifndef WG
#define WG 64
#endif

/* Sum (or maximum) over a work-group; every work-item gets the result. */
inline float group_sum(float v, __local float *tmp)
{
#if WG == 1
    return v;
#else
    int id = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    tmp[id] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = WG / 2; s > 0; s /= 2) {
        if (id < s)
            tmp[id] += tmp[id + s];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return tmp[0];
#endif
}

inline float group_max(float v, __local float *tmp)
{
#if WG == 1
    return v;
#else
    int id = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    tmp[id] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = WG / 2; s > 0; s /= 2) {
        if (id < s)
            tmp[id] = fmax(tmp[id], tmp[id + s]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return tmp[0];
#endif
}

inline float sum8(float8 v)
{
    float4 a = v.lo + v.hi;
    return a.x + a.y + a.z + a.w;
}

inline float max8(float8 v)
{
    float4 a = fmax(v.lo, v.hi);
    return fmax(fmax(a.x, a.y), fmax(a.z, a.w));
}
