#include "image/encode.h"

#include "image/jpeg.h"
#include "image/png.h"
#include "image/webp.h"

#include <strings.h>

static const dr_image_format formats[] = {
    [DR_FORMAT_WEBP] = { "webp", "image/webp", "webp", 16383, dr_webp_encode },
    [DR_FORMAT_PNG] = { "png", "image/png", "png", 65535, dr_png_encode },
    [DR_FORMAT_JPEG] = { "jpeg", "image/jpeg", "jpg", 65500, dr_jpeg_encode },
};

const dr_image_format *dr_image_format_of(dr_format format)
{
    return &formats[format];
}

const dr_image_format *dr_image_format_named(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(formats); i++)
        if (!strcasecmp(name, formats[i].name) || !strcasecmp(name, formats[i].extension))
            return &formats[i];
    return NULL;
}

dr_image_opts dr_image_output(const dr_job *job, const char *parameters)
{
    return (dr_image_opts){ .format = job->output.format,
                            .quality = job->output.quality,
                            .lossless = job->output.lossless,
                            .near_lossless = job->output.near_lossless,
                            .effort = DR_IMAGE_EFFORT,
                            .parameters = parameters };
}

static dr_status check(const dr_image_format *f, int64_t w, int64_t h,
                       const dr_image_opts *o, dr_err *err)
{
    const struct {
        const char *field, *what;
        int64_t value, max;
    } numbers[] = {
        { "output.quality", "quality", o->quality, 100 },
        { "output.near_lossless", "near_lossless", o->near_lossless, 100 },
        { "", "effort", o->effort, 6 },
    };
    if (w < 1 || h < 1 || w > f->side_max || h > f->side_max)
        return dr_fail(err, DR_EINVAL,
                       "%s: %lld x %lld pixels: each side must be in 1..%lld", f->name,
                       (long long)w, (long long)h, (long long)f->side_max);
    for (size_t i = 0; i < DR_COUNT(numbers); i++)
        if (numbers[i].value < 0 || numbers[i].value > numbers[i].max)
            return dr_fail_field(err, DR_EINVAL, numbers[i].field,
                                 "%s: %s %lld: must be in 0..%lld", f->name,
                                 numbers[i].what, (long long)numbers[i].value,
                                 (long long)numbers[i].max);
    return DR_OK;
}

dr_status dr_image_encode(const uint8_t *rgb, int64_t w, int64_t h, const dr_image_opts *o,
                          dr_buf *out, dr_err *err)
{
    const dr_image_format *f = dr_image_format_of(o->format);
    dr_buf_clear(out);
    dr_status st = check(f, w, h, o, err);
    if (!st)
        st = f->encode(rgb, w, h, o, out, err);
    if (!st && out->failed)
        st = dr_fail(err, DR_ENOMEM, "%s: out of memory", f->name);
    if (st)
        dr_buf_clear(out);
    return st;
}
