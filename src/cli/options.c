#include "cli/cli.h"

/* The option tables that several commands share. */

#define SETTING(name, letter, value, key, help)                                            \
    {                                                                                      \
        name, letter, value, DR_CLI_SETTING, key, 0, 0, 0, help                            \
    }
#define FIELD(name, letter, value, key, help)                                              \
    {                                                                                      \
        name, letter, value, DR_CLI_FIELD, key, 0, 0, 0, help                              \
    }

const dr_cli_row dr_cli_common[] = {
    { "config", 'c', "FILE", DR_CLI_CONFIG, NULL, 0, 0, 0,
      "Settings file; without it /etc/darkroom.conf is read if it exists." },
    { "set", 0, "KEY=VALUE", DR_CLI_SET, NULL, 0, 0, 0,
      "Any setting (`darkroom config` lists them); may be repeated." },
    SETTING("log-level", 0, "LEVEL", "log.level", "debug, info, warn or error."),
    { 0 },
};

const dr_cli_row dr_cli_redis[] = {
    SETTING("redis", 'r', "URL", "redis.url",
            "redis://host:port/db or unix:///path/to/socket."),
    SETTING("prefix", 0, "TEXT", "queue.prefix", "Start of every key of the queue."),
    { 0 },
};

/* --model first: a command with a --model of its own takes the table from --device on. */
const dr_cli_row dr_cli_engine[] = {
    SETTING("model", 'm', "PATH", "model.path",
            "Model folder in diffusers layout; without it the demo model that comes with "
            "darkroom."),
    SETTING(
        "device", 'd', "WHICH", "device.select",
        "Index from `darkroom devices`, part of a device's name, or cpu, gpu, accelerator; "
        "without it the first GPU, else the first device."),
    { 0 },
};

/* A key led by @ names a field by the file that its value names; see jobs.h. */
const dr_cli_row dr_cli_job[] = {
    FIELD("negative", 'n', "TEXT", "negative_prompt", "What the picture should not show."),
    FIELD("width", 'W', "PIXELS", "width",
          "64..2048, a multiple of 8; without it the model's."),
    FIELD("height", 'H', "PIXELS", "height",
          "64..2048, a multiple of 8; without it the model's."),
    FIELD("size", 0, "WxH", "size", "Width and height in one: 512x768."),
    FIELD("steps", 's', "N", "steps", "Denoising steps, 1..1000; without it the model's."),
    FIELD("cfg", 'g', "SCALE", "cfg_scale",
          "Classifier-free guidance; 1 or less turns it off; without it the model's."),
    FIELD("seed", 'S', "N", "seed",
          "Seed of the first picture, the next gets N + 1; -1 or without it: random."),
    FIELD("count", 'N', "N", "n", "Pictures, 1..16."),
    FIELD("sampler", 0, "NAME", "sampler",
          "euler, euler_a, heun, dpmpp_2m, dpmpp_2m_sde, uni_pc, ddim, lcm, …; without it "
          "the "
          "model's."),
    FIELD("schedule", 0, "NAME", "schedule",
          "normal, karras, exponential, sgm_uniform, simple, beta, …; without it the "
          "model's."),
    FIELD("clip-skip", 0, "N", "clip_skip",
          "1: all layers of the text encoder, 2: all but the last, …; without it the "
          "model's."),
    FIELD("eta", 0, "X", "eta",
          "Noise of ddim, tcd, ancestral and SDE samplers, 0..1; without it the sampler's "
          "own."),
    FIELD("init", 'i', "FILE", "@init_image",
          "Start from this picture (PNG, JPEG, WebP): img2img."),
    FIELD("strength", 0, "X", "strength",
          "How much of the picture of --init is made anew, 0..1 (default: 0.8)."),
    FIELD("fit", 0, "HOW", "fit",
          "stretch, crop or pad a picture of another shape than the job's (default: "
          "stretch)."),
    FIELD("mask", 0, "FILE", "@mask",
          "Make only what is white in this picture anew: inpaint; with --init."),
    FIELD("mask-blur", 0, "PIXELS", "mask_blur",
          "Soften the mask's edges, 0..256 (default: 4)."),
    FIELD("mask-invert", 0, NULL, "mask_invert", "Make what is black in the mask anew."),
    FIELD("only-masked", 0, NULL, "only_masked", "Work on the masked part at full size."),
    FIELD(
        "lora", 'l', "NAME", "lora",
        "Apply a LoRA of the worker's folder: NAME, NAME:0.8 or NAME:0.8:0.5, strengths of "
        "the UNet and the text encoder; may be repeated."),
    FIELD("control", 0, "NAME:FILE", "@controls",
          "Steer by a ControlNet and its picture: NAME:FILE or NAME:FILE:STRENGTH; may be "
          "repeated."),
    FIELD("hires", 0, "SCALE", "hires.scale",
          "Make the picture so many times as large in a second pass, 1..4."),
    FIELD("subseed", 0, "N", "subseed",
          "Seed of a variation; -1 or without it: from the seed."),
    FIELD("subseed-strength", 0, "X", "subseed_strength",
          "How much of the variation's noise is mixed in, 0..1 (default: 0)."),
    FIELD("tiling", 0, NULL, "tiling", "A picture whose opposite edges meet."),
    FIELD("cfg-rescale", 0, "X", "cfg_rescale",
          "Against overexposure by strong guidance, 0..1 (default: 0)."),
    FIELD("noise", 0, "KIND", "noise",
          "philox, or torch for the noise of PyTorch's CPU generator (default: philox)."),
    FIELD("format", 0, "NAME", "format",
          "webp, png or jpeg; without it by the ending of --output, else webp."),
    FIELD("quality", 'q', "N", "quality",
          "Of WebP and JPEG, 0..100; without it the setting output.quality."),
    FIELD("lossless", 0, NULL, "lossless", "Lossless WebP."),
    FIELD("sheet", 0, NULL, "sheet", "One more picture that shows all of them."),
    { "field", 'f', "NAME=VALUE", DR_CLI_FIELD_SET, NULL, 0, 0, 0,
      "Any other field of a job; may be repeated." },
    { 0 },
};
