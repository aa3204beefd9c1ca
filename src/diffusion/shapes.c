#include "diffusion/model.h"

#include "op/tune.h"

#include <math.h>

/* What a model multiplies: the operations that `darkroom tune` measures. */

typedef struct {
    const dr_run *run;
    dr_tune_shapes *shapes;
    double steps_from, steps_end; /* the UNet's share of the counted work */
    double steps;                 /* how often it is called; counted once */
} counter;

static void on_product(void *ctx, const char *label, const struct dr_gemm_args *g)
{
    counter *c = ctx;
    bool unet = c->run->flops > c->steps_from && c->run->flops <= c->steps_end;
    dr_tune_add(c->shapes, label, g, unet ? c->steps : 1);
}

/* Planned twice: the first time says where the UNet's calls begin and end. */
static dr_status count(dr_tune_shapes *out, dr_model *m, const dr_job *job, dr_err *err)
{
    dr_plan plan;
    dr_status st = dr_plan_make(&plan, m, job, err);
    if (st)
        return st;
    const dr_pass *p = &plan.pass[0];
    counter c = { .run = &m->run,
                  .shapes = out,
                  .steps_from = p->encode_flops,
                  .steps_end = p->encode_flops + p->step_flops,
                  .steps = (double)p->rows };
    m->run.watch = on_product;
    m->run.watch_ctx = &c;
    return dr_plan_make(&plan, m, job, err);
}

dr_status dr_model_shapes(dr_tune_shapes *out, const char *path, const dr_conf *conf,
                          int64_t width, int64_t height, dr_err *err)
{
    const dr_job job = { .prompt = "",
                         .negative_prompt = "",
                         .n = 1,
                         .width = width,
                         .height = height,
                         .cfg_scale = NAN,
                         .eta = NAN };
    dr_model *m = NULL;
    *out = (dr_tune_shapes){ 0 };
    dr_status st = dr_model_load(&m, NULL, path, conf, NULL, NULL, err);
    if (!st) {
        /* Whole operations, not their tiles. */
        m->run.attention_tile_bytes = m->run.conv_tile_bytes = (size_t)1 << 40;
        st = count(out, m, &job, err);
    }
    dr_model_close(m);
    return st;
}
