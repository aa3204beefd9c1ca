/* What changes copies of weights for LoRAs, against references, with the kernels that the
 * device gets and with the work-groups of a GPU. */
#include "kit.h"

#include "op/merge.h"

#define CASES 30

/* A window: one position, or nine. */
static int64_t window(kit *k)
{
    return kit_pick(k, 0, 1) ? 1 : 9;
}

static void test_upload_weights(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t o = kit_pick(k, 1, 40), c = kit_pick(k, 1, 33), s = window(k);
        int64_t count = o * c * s;
        int kind = i % 3;
        float *file = kit_host(k, count), *want = kit_host(k, count);
        for (int64_t j = 0; j < count; j++)
            if (kind == 0)
                file[j] = (float)kit_pick(k, -9999, 9999) / 16.0f;
            else
                ((uint16_t *)file)[j] = (uint16_t)kit_pick(k, 0, 0x7bff);
        ref_unpack_weights(want, file, o, c, s, kind);
        dr_tensor y =
            op_upload_weights(&k->run, file, (size_t)count * (kind ? 2 : 4), o, c, s, kind);
        assert_int_equal(y.n, s);
        assert_int_equal(y.h, c);
        assert_int_equal(y.c, o);
        kit_compare(k, y, want, 0, "upload_weights");
    }
    (void)op_upload_weights(&k->run, "", 7, 2, 2, 1, 1);
    assert_int_equal(k->run.err.code, DR_ESHAPE);
}

/* Each operand of one position or of all. */
static void test_add_product(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t s = window(k), m = kit_pick(k, 1, 50), r = kit_pick(k, 1, 20);
        int64_t o = kit_pick(k, 1, 60), sa = i & 1 ? 1 : s, sb = i & 2 ? 1 : s;
        float *y, *a, *b, beta = i & 4 ? 1.0f : 0.0f;
        dr_tensor dy = kit_tensor(k, &y, s, m, 1, o), da = kit_tensor(k, &a, sa, m, 1, r);
        dr_tensor db = kit_tensor(k, &b, sb, r, 1, o);
        for (int64_t j = 0; j < s; j++)
            ref_gemm(y + j * m * o, a + (sa > 1 ? j * m * r : 0),
                     b + (sb > 1 ? j * r * o : 0),
                     &(ref_gemm_args){ .m = m,
                                       .n = o,
                                       .k = r,
                                       .lda = r,
                                       .ldb = o,
                                       .ldc = o,
                                       .alpha = -0.75,
                                       .beta = (double)beta });
        op_add_product(&k->run, dy, da, db, -0.75f, beta);
        kit_compare(k, dy, y, LIMIT, "add_product");
    }
}

static void test_add_hadamard(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t s = window(k), m = kit_pick(k, 1, 20), o = kit_pick(k, 1, 60);
        float *y, *a, *b;
        dr_tensor dy = kit_tensor(k, &y, s, m, 1, o), da = kit_tensor(k, &a, s, m, 1, o);
        dr_tensor db = kit_tensor(k, &b, s, m, 1, o);
        ref_add_hadamard(y, a, b, s * m * o, 1.5);
        op_add_hadamard(&k->run, dy, da, db, 1.5f);
        kit_compare(k, dy, y, LIMIT, "add_hadamard");
    }
}

static void test_add_kronecker(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        const ref_kronecker_args a = { .in1 = kit_pick(k, 1, 6),
                                       .out1 = kit_pick(k, 1, 6),
                                       .in2 = kit_pick(k, 1, 12),
                                       .out2 = kit_pick(k, 1, 20),
                                       .s = window(k) };
        float *y, *u, *v;
        dr_tensor dy = kit_tensor(k, &y, a.s, a.in1 * a.in2, 1, a.out1 * a.out2);
        dr_tensor du = kit_tensor(k, &u, 1, a.in1, 1, a.out1);
        dr_tensor dv = kit_tensor(k, &v, a.s, a.in2, 1, a.out2);
        ref_add_kronecker(y, u, v, &a, -2);
        op_add_kronecker(&k->run, dy, du, dv, -2.0f);
        kit_compare(k, dy, y, LIMIT, "add_kronecker");
    }
}

static void test_add_dora(void **state)
{
    kit *k = *state;
    for (int i = 0; i < CASES; i++) {
        kit_begin(k);
        int64_t s = window(k), in = kit_pick(k, 1, 20), o = kit_pick(k, 1, 40);
        bool by_input = i & 1;
        float *y, *base, *w, *m;
        dr_tensor dy = kit_tensor(k, &y, s, in, 1, o);
        dr_tensor db = kit_tensor(k, &base, s, in, 1, o);
        dr_tensor dw = kit_tensor(k, &w, s, in, 1, o);
        dr_tensor dm = kit_tensor(k, &m, 1, 1, 1, by_input ? in : o);
        ref_add_dora(y, base, w, m, s, in, o, by_input, 0.7);
        op_add_dora(&k->run, dy, db, dw, dm, by_input, 0.7f);
        kit_compare(k, dy, y, LIMIT, "add_dora");
    }
}

/* A weight's norm over thousands of values keeps its digits. */
static void test_long_norms(void **state)
{
    kit *k = *state;
    for (int by_input = 0; by_input < 2; by_input++) {
        kit_begin(k);
        int64_t s = 9, in = by_input ? 2 : 320, o = by_input ? 320 : 2;
        float *y, *base, *w, *m;
        dr_tensor dy = kit_tensor(k, &y, s, in, 1, o);
        dr_tensor db = kit_noise(k, &base, 0, 0, s, in, 1, o);
        dr_tensor dw = kit_noise(k, &w, 0, 0.01f, s, in, 1, o);
        dr_tensor dm = kit_tensor(k, &m, 1, 1, 1, 2);
        ref_fill(y, dr_count(dy), 0);
        op_fill(&k->run, dy, 0);
        ref_add_dora(y, base, w, m, s, in, o, by_input, 1);
        op_add_dora(&k->run, dy, db, dw, dm, by_input, 1.0f);
        kit_compare(k, dy, y, 2e-6, "add_dora with long norms");
    }
}

static void test_shapes_are_checked(void **state)
{
    kit *k = *state;
    for (int i = 0; i < 4; i++) {
        kit_begin(k);
        dr_tensor y = dr_new(&k->run, 1, 4, 1, 6), x = dr_new(&k->run, 1, 3, 1, 6);
        if (i == 0)
            op_add_product(&k->run, y, x, y, 1, 0);
        else if (i == 1)
            op_add_hadamard(&k->run, y, y, x, 1);
        else if (i == 2)
            op_add_kronecker(&k->run, y, x, x, 1);
        else
            op_add_dora(&k->run, y, y, y, x, false, 1);
        assert_int_equal(k->run.err.code, DR_ESHAPE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upload_weights),     cmocka_unit_test(test_add_product),
        cmocka_unit_test(test_add_hadamard),       cmocka_unit_test(test_add_kronecker),
        cmocka_unit_test(test_add_dora),           cmocka_unit_test(test_long_norms),
        cmocka_unit_test(test_shapes_are_checked),
    };
    int failed = cmocka_run_group_tests_name("merge", tests, kit_setup, kit_teardown);
    return failed + cmocka_run_group_tests_name("merge with the work-groups of GPUs", tests,
                                                kit_setup_wide, kit_teardown);
}
