#ifndef DR_DIFFUSION_PROMPT_H
#define DR_DIFFUSION_PROMPT_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The language of prompts, as A1111's web UI has it.
 *
 * First the steps: [from:to:when], [to:when] and [from::when] change the text after step
 * `when`, with a point in it a share of the steps, else a number of steps; [a|b|c] reads
 * one after the other, a step each. They nest, and may stand in and hold weights. What does
 * not parse so is text. With a second pass shares from 1.0 to 2.0 are of its steps, numbers
 * count on into it, and [a|b|c] begins anew.
 *
 * Then each text's weights: (a) 1.1, [a] 1/1.1, (a:1.3) 1.3, multiplied where they nest; an
 * opened bracket that is never closed reaches to the end, a closing one that was never
 * opened is text; a backslash before ( ) [ ] or itself makes it text, elsewhere it is
 * dropped. The word BREAK begins a new chunk. */

#define DR_PROMPT_DEPTH_MAX  64 /* brackets within brackets; deeper ones are text */
#define DR_PROMPT_TEXTS_MAX  64 /* different texts over the steps */
#define DR_PROMPT_WEIGHT_MAX 1000
#define DR_NOTES_MAX         8

/* What is read, and what the client is to be told of it: every part of a prompt that has no
 * effect gets a note. All strings are made in mem. */
typedef struct {
    dr_arena *mem;
    const char *field; /* "prompt", for messages */
    const char *note[DR_NOTES_MAX];
    int n;
} dr_reading;

/* Add a note, led by the field's name, unless it is there already or there are enough. */
void dr_note(dr_reading *r, const char *fmt, ...) DR_PRINTF(2, 3);

/* The texts that a prompt comes to over its steps. */
typedef struct {
    const char **text; /* [n], no two equal */
    int n;
    int *at; /* [steps]: the text of step i, from 0 */
} dr_prompt;

/* The passes of a job, and the one that a prompt is read for. */
typedef struct {
    int64_t steps[2]; /* of each; 0: there is no second */
    int pass;
} dr_prompt_steps;

/* The texts over the steps of a pass; the notes are the same for each. DR_EINVAL: more than
 * DR_PROMPT_TEXTS_MAX texts. */
DR_MUST_USE dr_status dr_prompt_read(dr_prompt *out, dr_reading *r, const char *source,
                                     dr_prompt_steps steps, dr_err *err);

/* A stretch of a text with one weight, or a BREAK. */
typedef struct {
    const char *text; /* "" for a BREAK */
    double weight;
    bool is_break;
} dr_stretch;

/* The stretches of one of those texts: at least one, neighbours differ in weight. */
DR_MUST_USE dr_status dr_prompt_weigh(dr_stretch **out, int *n, dr_reading *r,
                                      const char *text, dr_err *err);

/* The first place at or after `at` where `word` stands as a word of its own; NULL: none. */
const char *dr_prompt_word(const char *at, const char *word);

#endif
