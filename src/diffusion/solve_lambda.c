#include "diffusion/solve.h"

#include <math.h>

/* Multistep samplers that walk along lambda = ln (a / b) = -ln sigma, x = a x0 + b eps.
 * Their memory is a ring of as many predictions as they look back. */

/* What was predicted j steps before step i, 1 <= j <= ring. */
static dr_form before(int64_t i, int j, int ring)
{
    return dr_kept((int)((i - j) % ring));
}

static void keep(dr_solver *s, int64_t i, int ring, dr_form f)
{
    dr_keep(s, (int)(i % ring), f);
}

/* dr_order_at, and low where the end is near and steps are few (Lu et al. 2022). */
static int order_of(const dr_solver *s, int64_t i, int order)
{
    const dr_schedule_config *cfg = s->cfg;
    bool few = cfg->lower_order_final && s->steps < 15;
    int64_t left = s->steps - i;
    if (left == 1 && (cfg->euler_at_final || few))
        return 1;
    return dr_order_at(s, i, left == 2 && few && order > 2 ? 2 : order);
}

/* --- DPM-Solver++ ----------------------------------------------------------------------
 */

typedef struct {
    int order, ring;
    bool midpoint; /* second order: by the value in the middle, else by the integral */
    double eta;    /* 1: the reverse SDE, 0: the ODE */
} expansion;

/* DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095, multistep, ODE and SDE; the third order
 * from its appendix and Crowson's k-diffusion). D is the predicted x0, h = lambda' -
 * lambda, H = (1 + eta) h:
 * x' = (b'/b) e^(-eta h) x + a' ((1 - e^-H) D + w D1 - v D2) + b' sqrt(1 - e^(-2 eta h)) z
 * with D1, D2 the first and second differences of D over h, w = (1 - e^-H) / 2 at the
 * midpoint, else w = (e^-H - 1) / H + 1, and v = w / H - 1/2. */
static void dpmpp(dr_solver *s, int64_t i, expansion e)
{
    double now = s->sigma[i], next = s->sigma[i + 1];
    dr_level from = dr_level_at(s, now), to = dr_level_at(s, next);
    dr_form d = dr_call(s, i, s->timestep[i], now).x0;
    keep(s, i, e.ring, d);
    if (!(next > 0 && next < now)) {
        dr_move(s, next > 0 ? dr_latents() : dr_times(to.a, d));
        return;
    }
    double h = log(now / next), big_h = (1 + e.eta) * h, all = -expm1(-big_h);
    double w = e.midpoint ? all / 2 : 1 - all / big_h, v = w / big_h - 0.5;
    dr_form sum = dr_times(all, d), d1, d2;
    if (e.order > 1) {
        double r0 = log(s->sigma[i - 1] / now) / h;
        d1 = dr_times(1 / r0, dr_plus(d, -1, before(i, 1, e.ring)));
        if (e.order > 2) {
            double r1 = log(s->sigma[i - 2] / s->sigma[i - 1]) / h;
            d2 = dr_plus(before(i, 1, e.ring), -1, before(i, 2, e.ring));
            d2 = dr_times(1 / (r0 + r1), dr_plus(d1, -1 / r1, d2));
            d1 = dr_plus(d1, r0, d2);
            sum = dr_plus(sum, -v, d2);
        }
        sum = dr_plus(sum, w, d1);
    }
    dr_form x = dr_times(to.b / from.b * exp(-e.eta * h), dr_latents());
    x = dr_plus(x, to.a, sum);
    x.z = to.b * sqrt(-expm1(-2 * e.eta * h));
    dr_move(s, x);
}

static void dpmpp_by_file(dr_solver *s, int64_t i, int most, double eta)
{
    int order = s->cfg->solver_order < most ? s->cfg->solver_order : most;
    expansion e = { .order = order_of(s, i, order), .ring = order > 1 ? order - 1 : 1 };
    e.midpoint = e.order == 2 && s->cfg->solver_type != DR_SOLVER_HEUN;
    e.eta = eta;
    dpmpp(s, i, e);
}

void dr_solve_dpmpp_2m(dr_solver *s, int64_t i)
{
    dpmpp_by_file(s, i, 3, 0);
}

void dr_solve_dpmpp_2m_sde(dr_solver *s, int64_t i)
{
    dpmpp_by_file(s, i, 2, s->eta);
}

/* k-diffusion's: third order to the end, whatever the file says. */
void dr_solve_dpmpp_3m_sde(dr_solver *s, int64_t i)
{
    dpmpp(s, i, (expansion){ .order = dr_order_at(s, i, 3), .ring = 2, .eta = s->eta });
}

/* --- UniPC -----------------------------------------------------------------------------
 */

/* Terms of a step of size h: phi_1, B(h) and the right side of the system for rho. */
typedef struct {
    double phi, big_b, b[3];
} bh_terms;

static bh_terms terms_of(double h, bool bh1)
{
    double p = expm1(-h) / -h - 1, factorial = 1;
    bh_terms t = { .phi = expm1(-h), .big_b = bh1 ? -h : expm1(-h) };
    for (int k = 0; k < 3; k++) {
        t.b[k] = p * factorial / t.big_b;
        factorial *= k + 2;
        p = p / -h - 1 / factorial;
    }
    return t;
}

/* rho of sum_k rho_k r_k^row = b_row, n <= 3 rows, by elimination. */
static void solve_rho(double *rho, const double *r, const double *b, int n)
{
    double m[3][4];
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < n; k++)
            m[i][k] = pow(r[k], i);
        m[i][n] = b[i];
    }
    for (int p = 0; p < n; p++)
        for (int i = 0; i < n; i++)
            for (int k = n; i != p && k >= p; k--)
                m[i][k] -= m[i][p] / m[p][p] * m[p][k];
    for (int i = 0; i < n; i++)
        rho[i] = m[i][n] / m[i][i];
}

/* What a step from level `at` on adds to (b'/b) x: -a' (phi D + B sum rho_k (D_k - D) /
 * r_k), D the prediction at `at`, D_1 … those before it, and, to correct, the prediction
 * `there` at its end. */
static dr_form uni_change(const dr_solver *s, int64_t at, int order, int ring, dr_form d,
                          const dr_form *there)
{
    double h = log(s->sigma[at] / s->sigma[at + 1]), r[3], rho[3] = { 0.5 };
    bh_terms t = terms_of(h, s->cfg->solver_type == DR_SOLVER_BH1);
    int n = order - 1;
    for (int k = 1; k < order; k++)
        r[k - 1] = log(s->sigma[at] / s->sigma[at - k]) / h;
    if (there)
        r[n++] = 1;
    if (n > 1 || (there && order > 1)) /* one unknown: 1/2 */
        solve_rho(rho, r, t.b, n);
    dr_form sum = { 0 };
    for (int k = 0; k < n; k++) {
        dr_form other = there && k == order - 1 ? *there : before(at, k + 1, ring);
        sum = dr_plus(sum, rho[k] / r[k], dr_plus(other, -1, d));
    }
    double a = dr_level_at(s, s->sigma[at + 1]).a;
    return dr_plus(dr_times(-a * t.phi, d), -a * t.big_b, sum);
}

/* UniPC (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6 with B(h) = e^h - 1 or h):
 * correct the last step with this prediction, then predict the next one. Both begin at the
 * same (b'/b) x, so x before the last step need not be kept: it is x less what was added.
 */
void dr_solve_uni_pc(dr_solver *s, int64_t i)
{
    const dr_schedule_config *cfg = s->cfg;
    int64_t left = s->steps - i;
    int ring = cfg->solver_order, order = ring;
    double now = s->sigma[i], next = s->sigma[i + 1];
    dr_form d = dr_call(s, i, s->timestep[i], now).x0, x = dr_latents();
    if (s->last.order) {
        x = dr_plus(x, -1, s->last.rest);
        x = dr_plus(x, 1,
                    uni_change(s, i - 1, s->last.order, ring, before(i, 1, ring), &d));
    }
    keep(s, i, ring, d);
    if (cfg->lower_order_final && left < order)
        order = (int)left;
    s->last.order = next > 0 && next < now ? dr_order_at(s, i, order) : 0;
    if (!s->last.order) {
        dr_move(s, next > 0 ? x : dr_times(dr_level_at(s, next).a, d));
        return;
    }
    s->last.rest = uni_change(s, i, s->last.order, ring, dr_kept((int)(i % ring)), NULL);
    x = dr_times(dr_level_at(s, next).b / dr_level_at(s, now).b, x);
    dr_move(s, dr_plus(x, 1, uni_change(s, i, s->last.order, ring, d, NULL)));
}

/* --- DEIS ------------------------------------------------------------------------------
 */

/* The integral over u = 0 … end of e^u times the Lagrange polynomial that is 1 at u[j] and
 * 0 at the other n <= 3 nodes. */
static double exp_lagrange(double end, const double *u, int n, int j)
{
    double c[3] = { 1, 0, 0 }, e = exp(end);
    for (int k = 0; k < n; k++) {
        double scale = 1 / (u[j] - u[k]);
        for (int p = 2; k != j && p >= 0; p--)
            c[p] = ((p ? c[p - 1] : 0) - u[k] * c[p]) * scale;
    }
    return c[0] * expm1(end) + c[1] * (e * (end - 1) + 1) +
           c[2] * (e * (end * end - 2 * end + 2) - 2);
}

/* DEIS (Zhang & Chen 2022, arXiv:2204.13902, the log-rho variant): x / a moves by the
 * integral over rho = sigma of eps, extrapolated as a polynomial in ln rho. */
void dr_solve_deis(dr_solver *s, int64_t i)
{
    int most = s->cfg->solver_order, ring = most > 1 ? most - 1 : 1;
    int order = order_of(s, i, most);
    double now = s->sigma[i], next = s->sigma[i + 1], u[3];
    dr_level from = dr_level_at(s, now), to = dr_level_at(s, next);
    dr_guess g = dr_call(s, i, s->timestep[i], now);
    keep(s, i, ring, g.eps);
    if (!(next > 0)) {
        dr_move(s, dr_times(to.a, g.x0));
        return;
    }
    for (int j = 0; j < order; j++)
        u[j] = log(s->sigma[i - j] / now);
    dr_form x = dr_times(1 / from.a, dr_latents());
    for (int j = 0; j < order; j++)
        x = dr_plus(x, now * exp_lagrange(log(next / now), u, order, j),
                    j ? before(i, j, ring) : g.eps);
    dr_move(s, dr_times(to.a, x));
}
