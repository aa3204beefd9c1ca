#include "job/names.h"

#include "base/err.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define FOLDED_BYTES 64

static const char *const samplers[DR_SAMPLERS] = {
    [DR_SAMPLER_DEFAULT] = "default",
    [DR_SAMPLER_DDIM] = "ddim",
    [DR_SAMPLER_EULER] = "euler",
    [DR_SAMPLER_EULER_A] = "euler_a",
    [DR_SAMPLER_DPMPP_2M] = "dpmpp_2m",
    [DR_SAMPLER_HEUN] = "heun",
    [DR_SAMPLER_DPM_2] = "dpm_2",
    [DR_SAMPLER_DPM_2_A] = "dpm_2_a",
    [DR_SAMPLER_LMS] = "lms",
    [DR_SAMPLER_DPMPP_2S_A] = "dpmpp_2s_a",
    [DR_SAMPLER_DPMPP_SDE] = "dpmpp_sde",
    [DR_SAMPLER_DPMPP_2M_SDE] = "dpmpp_2m_sde",
    [DR_SAMPLER_DPMPP_3M_SDE] = "dpmpp_3m_sde",
    [DR_SAMPLER_DDPM] = "ddpm",
    [DR_SAMPLER_PNDM] = "pndm",
    [DR_SAMPLER_UNI_PC] = "uni_pc",
    [DR_SAMPLER_DEIS] = "deis",
    [DR_SAMPLER_LCM] = "lcm",
    [DR_SAMPLER_TCD] = "tcd",
};

static const char *const schedules[DR_SCHEDULES] = {
    [DR_SCHEDULE_DEFAULT] = "default",
    [DR_SCHEDULE_NORMAL] = "normal",
    [DR_SCHEDULE_KARRAS] = "karras",
    [DR_SCHEDULE_EXPONENTIAL] = "exponential",
    [DR_SCHEDULE_SGM_UNIFORM] = "sgm_uniform",
    [DR_SCHEDULE_SIMPLE] = "simple",
    [DR_SCHEDULE_DDIM_UNIFORM] = "ddim_uniform",
    [DR_SCHEDULE_BETA] = "beta",
    [DR_SCHEDULE_AYS] = "ays",
    [DR_SCHEDULE_KL_OPTIMAL] = "kl_optimal",
    [DR_SCHEDULE_LINEAR_QUADRATIC] = "linear_quadratic",
    [DR_SCHEDULE_CUSTOM] = "custom",
};

/* Spellings as folded below, without the frills that find_frilled takes off. A name that
 * means a variant of the sampler is not here: a wrong picture would be worse than an
 * error. */
static const struct {
    const char *folded;
    dr_sampler_id sampler;
    dr_schedule_id schedule;
} sampler_spellings[] = {
    { "ddim", DR_SAMPLER_DDIM, 0 },
    { "ddimtrailing", DR_SAMPLER_DDIM,
      DR_SCHEDULE_SGM_UNIFORM }, /* stable-diffusion.cpp's */
    { "euler", DR_SAMPLER_EULER, 0 },
    { "eulerdiscrete", DR_SAMPLER_EULER, 0 },
    { "flowmatcheulerdiscrete", DR_SAMPLER_EULER, 0 },
    { "eulera", DR_SAMPLER_EULER_A, 0 },
    { "eulerancestral", DR_SAMPLER_EULER_A, 0 },
    { "eulerancestraldiscrete", DR_SAMPLER_EULER_A, 0 },
    { "dpmpp2m", DR_SAMPLER_DPMPP_2M, 0 },
    { "dpmsolvermultistep", DR_SAMPLER_DPMPP_2M, 0 },
    { "karrasdpm", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS }, /* Cog's */
    { "heun", DR_SAMPLER_HEUN, 0 },
    { "heundiscrete", DR_SAMPLER_HEUN, 0 },
    { "flowmatchheundiscrete", DR_SAMPLER_HEUN, 0 },
    { "dpm2", DR_SAMPLER_DPM_2, 0 },
    { "dpm2discrete", DR_SAMPLER_DPM_2, 0 },
    { "dpm2a", DR_SAMPLER_DPM_2_A, 0 },
    { "dpm2ancestral", DR_SAMPLER_DPM_2_A, 0 },
    { "dpm2ancestraldiscrete", DR_SAMPLER_DPM_2_A, 0 },
    { "lms", DR_SAMPLER_LMS, 0 },
    { "lmsdiscrete", DR_SAMPLER_LMS, 0 },
    { "dpmpp2sa", DR_SAMPLER_DPMPP_2S_A, 0 },
    { "dpmpp2sancestral", DR_SAMPLER_DPMPP_2S_A, 0 },
    { "dpmppsde", DR_SAMPLER_DPMPP_SDE, 0 },
    { "dpmsolversde", DR_SAMPLER_DPMPP_SDE, 0 },
    { "dpmpp2msde", DR_SAMPLER_DPMPP_2M_SDE, 0 },
    { "dpmpp3msde", DR_SAMPLER_DPMPP_3M_SDE, 0 },
    { "ddpm", DR_SAMPLER_DDPM, 0 },
    { "pndm", DR_SAMPLER_PNDM, 0 },
    { "plms", DR_SAMPLER_PNDM, 0 },
    { "unipc", DR_SAMPLER_UNI_PC, 0 },
    { "unipcbh2", DR_SAMPLER_UNI_PC, 0 }, /* ComfyUI's name of the common variant */
    { "unipcmultistep", DR_SAMPLER_UNI_PC, 0 },
    { "deis", DR_SAMPLER_DEIS, 0 },
    { "deismultistep", DR_SAMPLER_DEIS, 0 },
    { "lcm", DR_SAMPLER_LCM, 0 },
    { "tcd", DR_SAMPLER_TCD, 0 },
};

static const struct {
    const char *folded;
    dr_schedule_id schedule;
} schedule_spellings[] = {
    { "automatic", DR_SCHEDULE_DEFAULT },
    { "normal", DR_SCHEDULE_NORMAL },
    { "uniform", DR_SCHEDULE_NORMAL },  /* A1111's */
    { "discrete", DR_SCHEDULE_NORMAL }, /* stable-diffusion.cpp's */
    { "karras", DR_SCHEDULE_KARRAS },
    { "exponential", DR_SCHEDULE_EXPONENTIAL },
    { "sgmuniform", DR_SCHEDULE_SGM_UNIFORM },
    { "trailing", DR_SCHEDULE_SGM_UNIFORM }, /* diffusers': the same to a training step */
    { "simple", DR_SCHEDULE_SIMPLE },
    { "ddimuniform", DR_SCHEDULE_DDIM_UNIFORM },
    { "ddim", DR_SCHEDULE_DDIM_UNIFORM }, /* A1111's */
    { "beta", DR_SCHEDULE_BETA },
    { "ays", DR_SCHEDULE_AYS },
    { "alignyoursteps", DR_SCHEDULE_AYS },
    { "kloptimal", DR_SCHEDULE_KL_OPTIMAL },
    { "linearquadratic", DR_SCHEDULE_LINEAR_QUADRATIC },
    { "custom", DR_SCHEDULE_CUSTOM },
};

const char *dr_sampler_name(dr_sampler_id id)
{
    return samplers[(unsigned)id < DR_SAMPLERS ? id : DR_SAMPLER_DEFAULT];
}

const char *dr_schedule_name(dr_schedule_id id)
{
    return schedules[(unsigned)id < DR_SCHEDULES ? id : DR_SCHEDULE_DEFAULT];
}

/* Lower case without separators, "+" as "p"; a text too long to be a name becomes "". */
static void fold(char out[FOLDED_BYTES], const char *text)
{
    size_t n = 0;
    for (; *text && n < FOLDED_BYTES; text++)
        if (!strchr(" -_", *text))
            out[n++] = *text == '+' ? 'p' : (char)tolower((unsigned char)*text);
    out[n < FOLDED_BYTES ? n : 0] = 0;
}

static bool find_sampler(const char *folded, dr_sampler_id *sampler,
                         dr_schedule_id *schedule)
{
    for (size_t i = 0; i < DR_COUNT(sampler_spellings); i++)
        if (!strcmp(sampler_spellings[i].folded, folded)) {
            *sampler = sampler_spellings[i].sampler;
            *schedule = sampler_spellings[i].schedule;
            return true;
        }
    return false;
}

/* Cut `tail` off the end of text, unless that leaves nothing. */
static bool cut(char *text, const char *tail)
{
    size_t n = strlen(text), k = strlen(tail);
    bool has = n > k && !strcmp(text + n - k, tail);
    if (has)
        text[n - k] = 0;
    return has;
}

/* The same with k-diffusion's k in front or with diffusers' or ComfyUI's word behind. */
static bool find_frilled(char *folded, dr_sampler_id *sampler, dr_schedule_id *schedule)
{
    if (!cut(folded, "scheduler"))
        cut(folded, "gpu");
    return find_sampler(folded, sampler, schedule) ||
           (folded[0] == 'k' && find_sampler(folded + 1, sampler, schedule));
}

static bool find_schedule(const char *folded, dr_schedule_id *schedule)
{
    for (size_t i = 0; i < DR_COUNT(schedule_spellings); i++)
        if (!strcmp(schedule_spellings[i].folded, folded)) {
            *schedule = schedule_spellings[i].schedule;
            return true;
        }
    return false;
}

bool dr_sampler_parse(const char *text, dr_sampler_id *sampler, dr_schedule_id *schedule)
{
    char folded[FOLDED_BYTES], rest[FOLDED_BYTES];
    dr_schedule_id own;
    fold(folded, text);
    if (find_frilled(folded, sampler, schedule))
        return true;
    if (find_schedule(folded, &own)) /* "ddim_uniform" */
        return false;
    for (size_t i = 0; i < DR_COUNT(schedule_spellings); i++) {
        memcpy(rest, folded, sizeof rest);
        if (!cut(rest, schedule_spellings[i].folded) || !find_frilled(rest, sampler, &own))
            continue;
        *schedule = schedule_spellings[i].schedule;
        return true;
    }
    if (!cut(folded, "k") || !find_frilled(folded, sampler, schedule)) /* InvokeAI's _k */
        return false;
    *schedule = DR_SCHEDULE_KARRAS;
    return true;
}

bool dr_schedule_parse(const char *text, dr_schedule_id *schedule)
{
    char folded[FOLDED_BYTES];
    fold(folded, text);
    return find_schedule(folded, schedule);
}

/* The names but "default", separated by commas. */
static const char *list(char buf[DR_NAMES_BYTES], const char *const *names, int count)
{
    size_t n = 0;
    buf[0] = 0;
    for (int i = 1; i < count && n < DR_NAMES_BYTES; i++)
        n += (size_t)snprintf(buf + n, DR_NAMES_BYTES - n, "%s%s", i > 1 ? ", " : "",
                              names[i]);
    return buf;
}

const char *dr_sampler_list(char buf[DR_NAMES_BYTES])
{
    return list(buf, samplers, DR_SAMPLERS);
}

const char *dr_schedule_list(char buf[DR_NAMES_BYTES])
{
    return list(buf, schedules, DR_SCHEDULES);
}
