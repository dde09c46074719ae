/* SPDX-License-Identifier: MIT
 *
 * Stress and tangent of a `spon.networks.Potential` in one pass, the formulas of its `forward` (after lanes.h).
 *
 * D strain components, K norms and two layers of WIDTH are constants of the compilation. It is plain C99, whoever calls
 * it: n points in rows, strain (n, D) to stress (n, D) and tangent (n, D, D) [MPa].
 */
#define IN (D + K)
#define SOME(n) ((n) > 0 ? (n) : 1) /* there is no array of no numbers */
#define PAIRS (D * (D + 1) / 2)

typedef struct {
  REAL rest[D]; /* the gradient at zero strain, which `set_rest` finds */
  REAL stiffness[D][D], half_range[D], scale, smoothing2;
  REAL a1[IN][WIDTH], c1[WIDTH], a2[WIDTH][WIDTH], c2[WIDTH], a3[WIDTH];
  REAL metrics[SOME(K)][D][D];
} network;

/* 2^n of whole numbers n, by the exponent's bits. */
static inline REAL power_of_two(REAL n)
{
#if SINGLE
  union { uint32_t bits; float value; } x = {(uint32_t)((int32_t)n + 127) << 23};
#else
  union { uint64_t bits; double value; } x = {(uint64_t)((int64_t)n + 1023) << 52};
#endif
  return x.value;
}

/* tanh x = 1 - 2 / (exp 2x + 1), with exp 2x = 2^n exp r and Taylor's series of exp r, |r| <= ln(2)/2, to r^13 / 13!.
 * The library's tanh is no vector instruction; this one is right to an absolute rounding error. NaN stays NaN, by r. */
static inline void tanh_of(lanes x)
{
  EACH {
    REAL y = 2 * (x[b] > 20 ? 20 : x[b] < -20 ? -20 : x[b]);
    const REAL n = rint(y == y ? y * (REAL)1.4426950408889634 : 0); /* NaN is no whole number */
    /* ln 2 in two parts, of which the first has so few digits that its product with n is exact. */
    const REAL r = (y - n * (REAL)0.693145751953125) - n * (REAL)1.4286068203094172321e-06;
    REAL e = (REAL)1 / 6227020800;
    e = e * r + (REAL)1 / 479001600;
    e = e * r + (REAL)1 / 39916800;
    e = e * r + (REAL)1 / 3628800;
    e = e * r + (REAL)1 / 362880;
    e = e * r + (REAL)1 / 40320;
    e = e * r + (REAL)1 / 5040;
    e = e * r + (REAL)1 / 720;
    e = e * r + (REAL)1 / 120;
    e = e * r + (REAL)1 / 24;
    e = e * r + (REAL)1 / 6;
    e = e * r + (REAL)0.5;
    e = e * r + 1;
    e = e * r + 1;
    x[b] = 1 - 2 / (e * power_of_two(n) + 1);
  }
}

/* Eight lanes as one value that stays in a register, anywhere in memory. */
#define PACK 8
typedef REAL pack __attribute__((vector_size(PACK * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define EACH_PACK for (int b = 0; b < LANES; b += PACK)
#define AT(x) (*(pack *)&(x)[b])

/* y_m = start_m + sum_j a[j down + m along] x_j, with some of the sums in registers at a time. */
static inline void product(const REAL *restrict a, const int down, const int along, const int in, const int out,
                           const REAL *restrict start, lanes *restrict x, lanes *restrict y)
{
  enum { SUMS = 8 };
  EACH_PACK for (int first = 0; first < out; first += SUMS) {
    const int count = out - first < SUMS ? out - first : SUMS;
    pack sum[SUMS];
    for (int k = 0; k < count; ++k) sum[k] = (pack){0} + (start ? start[first + k] : 0);
    for (int j = 0; j < in; ++j) {
      const pack one = AT(x[j]);
      for (int k = 0; k < count; ++k) sum[k] += a[j * down + (first + k) * along] * one;
    }
    for (int k = 0; k < count; ++k) AT(y[first + k]) = sum[k];
  }
}

/* h_il += sum_j factor_j x_ij x_lj of symmetric h, row by row below the diagonal. */
static inline void add_squares(lanes h[PAIRS], const int count, lanes *restrict factor, lanes (*x)[count])
{
  EACH_PACK {
    pack sum[PAIRS];
    for (int e = 0; e < PAIRS; ++e) sum[e] = AT(h[e]);
    for (int j = 0; j < count; ++j)
      for (int i = 0, e = 0; i < D; ++i) {
        const pack part = AT(factor[j]) * AT(x[i][j]);
        for (int l = 0; l <= i; ++l, ++e) sum[e] += part * AT(x[l][j]);
      }
    for (int e = 0; e < PAIRS; ++e) AT(h[e]) = sum[e];
  }
}

/* `gradient`: the gradient of g in place of the stress. */
static void block(const network *restrict p, lanes strain[D], lanes stress[D], lanes tangent[PAIRS], int gradient)
{
  /* The strain in units of its range, the norms beside it, and their slopes. */
  lanes x[IN], slope[D][SOME(K)], curved[SOME(K)];
  for (int i = 0; i < D; ++i) EACH x[i][b] = strain[i][b] / p->half_range[i];
  for (int k = 0; k < K; ++k) {
    lanes square;
    EACH square[b] = p->smoothing2;
    for (int i = 0; i < D; ++i) {
      lanes y;
      EACH y[b] = 0;
      for (int l = 0; l < D; ++l) EACH y[b] += p->metrics[k][i][l] * x[l][b];
      EACH square[b] += y[b] * x[i][b];
      EACH slope[i][k][b] = y[b];
    }
    EACH x[D + k][b] = sqrt(square[b]);
    EACH curved[k][b] = 1 / x[D + k][b];
    for (int i = 0; i < D; ++i) EACH slope[i][k][b] *= curved[k][b];
  }

  /* Forward through both layers. */
  lanes one[WIDTH], two[WIDTH];
  product(&p->a1[0][0], WIDTH, 1, IN, WIDTH, p->c1, x, one);
  for (int j = 0; j < WIDTH; ++j) tanh_of(one[j]);
  product(&p->a2[0][0], WIDTH, 1, WIDTH, WIDTH, p->c2, one, two);
  for (int m = 0; m < WIDTH; ++m) tanh_of(two[m]);

  /* And back: derivatives of g by what goes into a layer, and second ones of its activation times that. */
  lanes bend_one[WIDTH], bend_two[WIDTH], slope_one[WIDTH], back[WIDTH], outer[IN];
  for (int m = 0; m < WIDTH; ++m) EACH {
    const REAL d = p->a3[m] * (1 - two[m][b] * two[m][b]);
    bend_two[m][b] = -2 * two[m][b] * d;
    two[m][b] = d;
  }
  product(&p->a2[0][0], 1, WIDTH, WIDTH, WIDTH, 0, two, back);
  for (int j = 0; j < WIDTH; ++j) EACH {
    slope_one[j][b] = 1 - one[j][b] * one[j][b];
    back[j][b] *= slope_one[j][b];
    bend_one[j][b] = -2 * one[j][b] * back[j][b];
  }
  product(&p->a1[0][0], 1, WIDTH, WIDTH, IN, 0, back, outer);

  /* Gradient, and the Hessian's parts: curvature of the norms, of the first layer and of the second, each along what
   * the strain components do to it. */
  for (int i = 0; i < D; ++i) {
    lanes sum;
    EACH sum[b] = outer[i][b] - p->rest[i];
    for (int k = 0; k < K; ++k) EACH sum[b] += slope[i][k][b] * outer[D + k][b];
    EACH stress[i][b] = sum[b];
  }
  if (gradient) return;
  lanes h[PAIRS], first[D][WIDTH], second[D][WIDTH];
  for (int e = 0; e < PAIRS; ++e) EACH h[e][b] = 0;
  for (int k = 0; k < K; ++k) {
    EACH curved[k][b] *= -outer[D + k][b];
    for (int i = 0, e = 0; i < D; ++i)
      for (int l = 0; l <= i; ++l, ++e) EACH h[e][b] -= curved[k][b] * p->metrics[k][i][l];
  }
  if (K > 0) add_squares(h, K, curved, slope);
  for (int i = 0; i < D; ++i) product(&p->a1[D][0], WIDTH, 1, K, WIDTH, p->a1[i], slope[i], first[i]);
  add_squares(h, WIDTH, bend_one, first);
  for (int i = 0; i < D; ++i) {
    for (int j = 0; j < WIDTH; ++j) EACH first[i][j][b] *= slope_one[j][b];
    product(&p->a2[0][0], WIDTH, 1, WIDTH, WIDTH, 0, first[i], second[i]);
  }
  add_squares(h, WIDTH, bend_two, second);

  for (int i = 0, e = 0; i < D; ++i) {
    const REAL unit = p->scale / p->half_range[i];
    EACH stress[i][b] *= unit;
    for (int l = 0; l < D; ++l) EACH stress[i][b] += p->stiffness[i][l] * strain[l][b];
    for (int l = 0; l <= i; ++l, ++e)
      EACH tangent[e][b] = p->stiffness[i][l] + h[e][b] * (unit / p->half_range[l]);
  }
}

/* By the very operations that find the gradient elsewhere, so that the stress at zero strain is zero to the last bit. */
void set_rest(network *p)
{
  lanes e[D], s[D], t[PAIRS];
  for (int i = 0; i < D; ++i) {
    p->rest[i] = 0;
    EACH e[i][b] = 0;
  }
  block(p, e, s, t, 1);
  for (int i = 0; i < D; ++i) p->rest[i] = s[i][0];
}

void response(long n, const network *p, const REAL *strain, REAL *stress, REAL *tangent, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long first = 0; first < n; first += LANES) {
    lanes e[D], s[D], t[PAIRS];
    const int count = n - first < LANES ? (int)(n - first) : LANES;
    for (int i = 0; i < D; ++i)
      EACH e[i][b] = strain[(first + (b < count ? b : 0)) * D + i];
    block(p, e, s, t, 0);
    for (int b = 0; b < count; ++b)
      for (int i = 0; i < D; ++i) {
        const long row = (first + b) * D;
        stress[row + i] = s[i][b];
        for (int l = 0; l <= i; ++l)
          tangent[(row + i) * D + l] = tangent[(row + l) * D + i] = t[i * (i + 1) / 2 + l][b];
      }
  }
}
