/* SPDX-License-Identifier: MIT
 *
 * Layers of small networks for points side by side: products of a layer's matrix with rows of numbers, with sums in
 * registers, activation functions as vector instructions, and norms of the strain. It follows lanes.h. D strain
 * components, K norms and SINGLE, whether REAL is float, are compile-time constants.
 */
#define IN (D + K)
#define SOME(n) ((n) > 0 ? (n) : 1) /* C has no arrays of length zero */

/* 2^n of integers n, by the bits of the exponent. */
static inline REAL power_of_two(REAL n)
{
#if SINGLE
  union { uint32_t bits; float value; } x = {(uint32_t)((int32_t)n + 127) << 23};
#else
  union { uint64_t bits; double value; } x = {(uint64_t)((int64_t)n + 1023) << 52};
#endif
  return x.value;
}

/* exp y = 2^n exp r, |r| <= ln(2)/2, with the Taylor series of exp r to r^13 / 13!, or r^7 / 7! in single precision; the
 * next term is below rounding. The library's exp does not vectorise. Beyond +-80 the value is that at +-80; NaN stays
 * NaN, by r. */
static inline REAL exponential(REAL y)
{
  y = y > 80 ? 80 : y < -80 ? -80 : y;
  const REAL n = rint(y == y ? y * (REAL)1.4426950408889634 : 0); /* no conversion of NaN to an integer */
  /* ln 2 in two parts; the first has so few digits that its product with n is exact. */
  const REAL r = (y - n * (REAL)0.693145751953125) - n * (REAL)1.4286068203094172321e-06;
#if SINGLE
  REAL e = (REAL)1 / 5040;
#else
  REAL e = (REAL)1 / 6227020800;
  e = e * r + (REAL)1 / 479001600;
  e = e * r + (REAL)1 / 39916800;
  e = e * r + (REAL)1 / 3628800;
  e = e * r + (REAL)1 / 362880;
  e = e * r + (REAL)1 / 40320;
  e = e * r + (REAL)1 / 5040;
#endif
  e = e * r + (REAL)1 / 720;
  e = e * r + (REAL)1 / 120;
  e = e * r + (REAL)1 / 24;
  e = e * r + (REAL)1 / 6;
  e = e * r + (REAL)0.5;
  e = e * r + 1;
  e = e * r + 1;
  return e * power_of_two(n);
}

/* tanh x = 1 - 2 / (exp 2x + 1), with an absolute error of rounding. */
static inline REAL tanh_of(REAL x) { return 1 - 2 / (exponential(2 * x) + 1); }

/* The numbers of one or two vector instructions as one value in registers, at any address. */
#define PACK (64 / (int)sizeof(REAL) < LANES ? 64 / (int)sizeof(REAL) : LANES)
typedef REAL pack __attribute__((vector_size(PACK * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

/* As many packs and sums at a time as fit in the registers. */
#ifdef __AVX512F__
enum { PACKS = 2, SUMS = 8 };
#else
enum { PACKS = 1, SUMS = 6 };
#endif

/* y_m = start_m + sum_j a[j down + m along] x_j for the first `sums` rows m, in `packs` packs of each row. */
static inline __attribute__((always_inline)) void tile(
    const int packs, const int sums, const REAL *restrict a, const int down, const int along, const int in,
    const REAL *restrict start, const int columns, const REAL *restrict x, REAL *restrict y)
{
  pack sum[SUMS][PACKS];
  for (int k = 0; k < sums; ++k)
    for (int q = 0; q < packs; ++q) sum[k][q] = (pack){0} + (start ? start[k] : 0);
  for (int j = 0; j < in; ++j) {
    pack one[PACKS];
    for (int q = 0; q < packs; ++q) one[q] = ((const pack *)(x + j * columns))[q];
    for (int k = 0; k < sums; ++k)
      for (int q = 0; q < packs; ++q) sum[k][q] += a[j * down + k * along] * one[q];
  }
  for (int k = 0; k < sums; ++k)
    for (int q = 0; q < packs; ++q) ((pack *)(y + k * columns))[q] = sum[k][q];
}

/* y_m = start_m + sum_j a[j down + m along] x_j for rows of `columns` numbers, a multiple of PACK. */
static inline __attribute__((always_inline)) void product(
    const REAL *restrict a, const int down, const int along, const int in, const int out, const REAL *restrict start,
    const int columns, const REAL *restrict x, REAL *restrict y)
{
#define STRIP(packs, b)                                                                                        \
  do {                                                                                                         \
    int m = 0;                                                                                                 \
    for (; m + SUMS <= out; m += SUMS)                                                                         \
      tile(packs, SUMS, a + m * along, down, along, in, start ? start + m : 0, columns, x + (b),               \
           y + m * columns + (b));                                                                             \
    if (out % SUMS)                                                                                            \
      tile(packs, out % SUMS, a + m * along, down, along, in, start ? start + m : 0, columns, x + (b),         \
           y + m * columns + (b));                                                                             \
  } while (0)
  int b = 0;
  for (; b + PACKS * PACK <= columns; b += PACKS * PACK) STRIP(PACKS, b);
  for (; b < columns; b += PACK) STRIP(1, b);
#undef STRIP
}

/* Norms of x, the square roots of x.metric x + smoothing2, and their gradients: `spon.equino.networks.Norms`. */
static inline void norms_of(const REAL metrics[SOME(K)][D][D], REAL smoothing2, lanes x[D], lanes norm[SOME(K)],
                            lanes gradient[D][SOME(K)])
{
  for (int k = 0; k < K; ++k) {
    lanes square;
    EACH square[b] = smoothing2;
    for (int i = 0; i < D; ++i) {
      lanes y;
      EACH y[b] = 0;
      for (int l = 0; l < D; ++l) EACH y[b] += metrics[k][i][l] * x[l][b];
      EACH square[b] += y[b] * x[i][b];
      EACH gradient[i][k][b] = y[b];
    }
    EACH norm[k][b] = sqrt(square[b]);
    for (int i = 0; i < D; ++i) EACH gradient[i][k][b] /= norm[k][b];
  }
}
