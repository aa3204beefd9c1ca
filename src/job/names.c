#include "job/names.h"

#include "base/err.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define FOLDED_BYTES 64

static const char *const samplers[DR_SAMPLERS] = {
    [DR_SAMPLER_DEFAULT] = "default",   [DR_SAMPLER_DDIM] = "ddim",
    [DR_SAMPLER_EULER] = "euler",       [DR_SAMPLER_EULER_A] = "euler_a",
    [DR_SAMPLER_DPMPP_2M] = "dpmpp_2m",
};

static const char *const schedules[DR_SCHEDULES] = {
    [DR_SCHEDULE_DEFAULT] = "default",
    [DR_SCHEDULE_NORMAL] = "normal",
    [DR_SCHEDULE_KARRAS] = "karras",
};

/* Spellings as folded below. A name that means a variant of the sampler is not here: a
 * wrong picture would be worse than an error. */
static const struct {
    const char *folded;
    dr_sampler_id sampler;
    dr_schedule_id schedule;
} sampler_spellings[] = {
    { "ddim", DR_SAMPLER_DDIM, 0 },
    { "ddimscheduler", DR_SAMPLER_DDIM, 0 },
    { "euler", DR_SAMPLER_EULER, 0 },
    { "keuler", DR_SAMPLER_EULER, 0 },
    { "eulerdiscrete", DR_SAMPLER_EULER, 0 },
    { "eulerdiscretescheduler", DR_SAMPLER_EULER, 0 },
    { "eulerk", DR_SAMPLER_EULER, DR_SCHEDULE_KARRAS }, /* InvokeAI's _k */
    { "eulera", DR_SAMPLER_EULER_A, 0 },
    { "keulera", DR_SAMPLER_EULER_A, 0 },
    { "eulerancestral", DR_SAMPLER_EULER_A, 0 },
    { "keulerancestral", DR_SAMPLER_EULER_A, 0 },
    { "eulerancestraldiscrete", DR_SAMPLER_EULER_A, 0 },
    { "eulerancestraldiscretescheduler", DR_SAMPLER_EULER_A, 0 },
    { "dpmpp2m", DR_SAMPLER_DPMPP_2M, 0 },
    { "kdpmpp2m", DR_SAMPLER_DPMPP_2M, 0 },
    { "dpmsolvermultistep", DR_SAMPLER_DPMPP_2M, 0 },
    { "dpmsolvermultistepscheduler", DR_SAMPLER_DPMPP_2M, 0 },
    { "dpmpp2mk", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS },
    { "karrasdpm", DR_SAMPLER_DPMPP_2M, DR_SCHEDULE_KARRAS }, /* Cog's */
};

static const struct {
    const char *folded;
    dr_schedule_id schedule;
} schedule_spellings[] = {
    { "automatic", DR_SCHEDULE_DEFAULT },
    { "normal", DR_SCHEDULE_NORMAL },
    { "discrete", DR_SCHEDULE_NORMAL }, /* stable-diffusion.cpp's */
    { "karras", DR_SCHEDULE_KARRAS },
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

bool dr_sampler_parse(const char *text, dr_sampler_id *sampler, dr_schedule_id *schedule)
{
    static const char suffix[] = "karras";
    char folded[FOLDED_BYTES];
    fold(folded, text);
    if (find_sampler(folded, sampler, schedule))
        return true;
    size_t n = strlen(folded), tail = sizeof suffix - 1;
    if (n <= tail || strcmp(folded + n - tail, suffix))
        return false;
    folded[n - tail] = 0;
    if (!find_sampler(folded, sampler, schedule))
        return false;
    *schedule = DR_SCHEDULE_KARRAS;
    return true;
}

bool dr_schedule_parse(const char *text, dr_schedule_id *schedule)
{
    char folded[FOLDED_BYTES];
    fold(folded, text);
    for (size_t i = 0; i < DR_COUNT(schedule_spellings); i++)
        if (!strcmp(schedule_spellings[i].folded, folded)) {
            *schedule = schedule_spellings[i].schedule;
            return true;
        }
    return false;
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
