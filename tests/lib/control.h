#ifndef CONTROL_H
#define CONTROL_H

#include "base/json.h"

/* ControlNets whose weights a formula gives: those of contrib/goldens/control.py. */

/* Number i of the stream `name`, in [-0.5, 0.5). */
double control_uniform(const char *name, uint64_t i);

/* Write dir/config.json and dir/diffusion_pytorch_model.safetensors of the ControlNet
 * `name`; fails through cmocka. */
void control_write(const char *dir, const char *name, const dr_json *config);

#endif
